// .gguf, versions 2 and 3, little endian: metadata, tensor infos, tensors at aligned offsets. Source: the GGUF page of
// the ggml project. Quantized tensors are shown as the gguf package shows them: bytes, with a row's blocks one behind
// the other in the last dim.
#include <cstring>

#include "checkpoint/file_layout.h"
#include "core/bits.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

using lossless::Element;
using lossless::Field;

// The blocks of ggml's types: how many weights they hold and which fields, in the order of ggml-common.h.
struct BlockType {
  uint32_t number;
  uint32_t weights;
  std::vector<Field> fields;
};
constexpr Element kScale = Element::fp16, kCodes = Element::bytes, kInts = Element::int8;

const BlockType* block_type(uint32_t number) {
  // Packed 6-bit scales: thirds that mean different things. Codes are kept apart from the scales beside them.
  static const std::vector<BlockType> types = {
      {2, 32, {{2, kScale}, {16, kCodes}}},                                                         // Q4_0
      {3, 32, {{2, kScale}, {2, kScale}, {16, kCodes}}},                                            // Q4_1
      {6, 32, {{2, kScale}, {4, kCodes}, {16, kCodes}}},                                            // Q5_0
      {7, 32, {{2, kScale}, {2, kScale}, {4, kCodes}, {16, kCodes}}},                               // Q5_1
      {8, 32, {{2, kScale}, {32, kInts}}},                                                          // Q8_0
      {10, 256, {{16, kCodes}, {64, kCodes}, {2, kScale}, {2, kScale}}},                            // Q2_K
      {11, 256, {{32, kCodes}, {64, kCodes}, {8, kCodes}, {4, kCodes}, {2, kScale}}},               // Q3_K
      {12, 256, {{2, kScale}, {2, kScale}, {4, kCodes}, {4, kCodes}, {4, kCodes}, {128, kCodes}}},  // Q4_K
      {13,
       256,
       {{2, kScale}, {2, kScale}, {4, kCodes}, {4, kCodes}, {4, kCodes}, {32, kCodes}, {128, kCodes}}},  // Q5_K
      {14, 256, {{128, kCodes}, {64, kCodes}, {16, kInts}, {2, kScale}}},                                // Q6_K
      {15, 256, {{4, Element::fp32}, {256, kInts}, {32, Element::int16}}},                               // Q8_K
      {16, 256, {{2, kScale}, {64, kCodes}}},                                                            // IQ2_XXS
      {17, 256, {{2, kScale}, {64, kCodes}, {8, kCodes}}},                                               // IQ2_XS
      {18, 256, {{2, kScale}, {64, kCodes}, {32, kCodes}}},                                              // IQ3_XXS
      {19, 256, {{2, kScale}, {32, kCodes}, {16, kCodes}}},                                              // IQ1_S
      {20, 32, {{2, kScale}, {16, kCodes}}},                                                             // IQ4_NL
      {21, 256, {{2, kScale}, {64, kCodes}, {8, kCodes}, {32, kCodes}, {4, kCodes}}},                    // IQ3_S
      {22, 256, {{2, kScale}, {32, kCodes}, {32, kCodes}, {8, kCodes}, {8, kCodes}}},                    // IQ2_S
      {23, 256, {{2, kScale}, {2, kCodes}, {4, kCodes}, {128, kCodes}}},                                 // IQ4_XS
      {29, 256, {{32, kCodes}, {16, kCodes}, {8, kCodes}}},                                              // IQ1_M
      {34, 256, {{48, kCodes}, {4, kCodes}, {2, kScale}}},                                               // TQ1_0
      {35, 256, {{64, kCodes}, {2, kScale}}},                                                            // TQ2_0
      {39, 32, {{1, kCodes}, {16, kCodes}}},                                                             // MXFP4
      {40, 64, {{4, kCodes}, {32, kCodes}}},                                                             // NVFP4
      {41, 128, {{2, kScale}, {16, kCodes}}},                                                            // Q1_0
  };
  for (const BlockType& type : types)
    if (type.number == number) return &type;
  return nullptr;
}

std::optional<DType> plain_type(uint32_t number) {
  switch (number) {
    case 0: return DType::F32;
    case 1: return DType::F16;
    case 24: return DType::I8;
    case 25: return DType::I16;
    case 26: return DType::I32;
    case 27: return DType::I64;
    case 28: return DType::F64;
    case 30: return DType::BF16;
    default: return std::nullopt;
  }
}

// What follows is read with ByteReader, which throws where the bytes end: the door below catches.
std::string take_text(ByteReader& in) {
  const auto text = in.take(in.take<uint64_t>());
  return {text.begin(), text.end()};
}

[[noreturn]] void refuse(const char* what) { fail(Code::bad_data, "gguf: ", what); }

enum ValueType : uint32_t { kUint32 = 4, kText = 8, kArray = 9 };

size_t value_bytes(uint32_t type) {
  constexpr uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  if (type >= sizeof kBytes || kBytes[type] == 0) refuse("a value of an unknown type");
  return kBytes[type];
}

void skip_value(ByteReader& in, uint32_t type, int depth) {
  if (type == kText) {
    in.take(in.take<uint64_t>());
  } else if (type == kArray) {
    if (depth == 0) refuse("arrays nested too deep");
    const auto inner = in.take<uint32_t>();
    const auto count = in.take<uint64_t>();
    if (inner == kText || inner == kArray)
      for (uint64_t i = 0; i < count; ++i) skip_value(in, inner, depth - 1);
    else
      in.take(checked_mul(count, value_bytes(inner), "gguf: an array's bytes"));
  } else {
    in.take(value_bytes(type));
  }
}

FileLayout read(std::span<const uint8_t> bytes) {
  ByteReader in(bytes, "gguf");
  in.take(4);
  const auto version = in.take<uint32_t>();
  if (version != 2 && version != 3) refuse("an unknown version");
  const auto tensors = in.take<uint64_t>(), pairs = in.take<uint64_t>();
  uint64_t alignment = 32;
  for (uint64_t i = 0; i < pairs; ++i) {
    const std::string key = take_text(in);
    const auto type = in.take<uint32_t>();
    if (key == "general.alignment" && type == kUint32)
      alignment = in.take<uint32_t>();
    else
      skip_value(in, type, 8);
  }
  if (alignment == 0 || alignment > 1 << 20) refuse("an impossible alignment");
  FileLayout layout;
  layout.origin = container::Origin::gguf;
  constexpr size_t kLeastInfoBytes = 24;
  if (tensors > in.left() / kLeastInfoBytes) refuse("more tensors than there is room for");
  for (uint64_t i = 0; i < tensors; ++i) {
    FilePart part;
    part.name = take_text(in);
    const auto dims = in.take<uint32_t>();
    if (dims > kMostDims) refuse("too many dims");
    part.shape.resize(dims);
    for (uint32_t k = dims; k-- > 0;) part.shape[k] = in.take<uint64_t>();  // the fastest one comes first
    const auto type = in.take<uint32_t>();
    part.begin = in.take<uint64_t>();
    if (const auto dtype = plain_type(type)) {
      set_dtype(part, *dtype);
    } else if (const BlockType* block = block_type(type)) {
      uint64_t block_bytes = 0;
      for (const Field& field : block->fields) block_bytes += field.bytes;
      if (dims == 0 || part.shape.back() % block->weights) refuse("a row that is no whole number of blocks");
      part.shape.back() = checked_mul(part.shape.back() / block->weights, block_bytes, "gguf: a row's bytes");
      set_dtype(part, DType::U8);
      part.record = block->fields;
    } else {
      continue;  // a type that is not known here stays bytes
    }
    part.end = checked_add(part.begin, bytes_of(part.dtype, part.shape), "gguf: a tensor's end");
    layout.parts.push_back(std::move(part));
  }
  const uint64_t begin = ceil_div(bytes.size() - in.left(), alignment) * alignment;
  for (FilePart& part : layout.parts) {
    part.begin = checked_add(part.begin, begin, "gguf: an offset");
    part.end = checked_add(part.end, begin, "gguf: an offset");
  }
  return layout;
}

}  // namespace

std::optional<FileLayout> gguf_layout(std::span<const uint8_t> bytes) {
  if (bytes.size() < 24 || std::memcmp(bytes.data(), "GGUF", 4) != 0) return std::nullopt;
  try {
    return read(bytes);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace tersor::checkpoint
