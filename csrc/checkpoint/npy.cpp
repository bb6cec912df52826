// .npy: a magic, a Python literal that describes the array, its bytes; .npz: a .zip of such. Source: numpy.lib.format,
// versions 1.0 to 3.0.
#include <bit>
#include <cstring>
#include <string_view>

#include "checkpoint/file_layout.h"
#include "checkpoint/zip.h"
#include "core/bits.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

using lossless::Element;

// Reads the dict of a header: what NumPy writes, with white space and order left free.
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) noexcept : text_(text) {}
  bool take(std::string_view sign) noexcept {
    skip();
    if (!text_.substr(at_).starts_with(sign)) return false;
    at_ += sign.size();
    return true;
  }
  bool string(std::string_view& value) noexcept {
    skip();
    const char quote = at_ < text_.size() ? text_[at_] : 0;
    if (quote != '\'' && quote != '"') return false;
    const size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) return false;
    value = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return value.find('\\') == value.npos;
  }
  bool number(uint64_t& value) noexcept {
    skip();
    const size_t begin = at_;
    if (text_.substr(begin).starts_with('0') && begin + 1 < text_.size() && text_[begin + 1] >= '0' &&
        text_[begin + 1] <= '9')
      return false;
    for (value = 0; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (__builtin_mul_overflow(value, uint64_t(10), &value) ||
          __builtin_add_overflow(value, uint64_t(text_[at_] - '0'), &value))
        return false;
    return at_ > begin;
  }
  bool at_end() noexcept {
    skip();
    return at_ == text_.size();
  }

 private:
  void skip() noexcept {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  std::string_view text_;
  size_t at_ = 0;
};

struct Header {
  std::string_view descr;
  bool fortran = false;
  Shape shape;
};

bool read_shape(LiteralReader& in, Shape& shape) {
  if (!in.take("(")) return false;
  while (!in.take(")")) {
    if (shape.size() == kMostDims || !in.number(shape.emplace_back())) return false;
    if (!in.take(",")) return shape.size() > 1 && in.take(")");  // (3) is a number in parentheses
  }
  return true;
}

bool read_header(std::string_view text, Header& header) {
  LiteralReader in(text);
  bool has_descr = false, has_order = false, has_shape = false;
  if (!in.take("{")) return false;
  while (!in.take("}")) {
    std::string_view key;
    if (!in.string(key) || !in.take(":")) return false;
    if (key == "descr" && !has_descr) {
      has_descr = in.string(header.descr);  // a list for arrays of structs, which stay bytes
      if (!has_descr) return false;
    } else if (key == "fortran_order" && !has_order) {
      header.fortran = in.take("True");
      has_order = header.fortran || in.take("False");
      if (!has_order) return false;
    } else if (key == "shape" && !has_shape) {
      has_shape = read_shape(in, header.shape);
      if (!has_shape) return false;
    } else {
      return false;
    }
    if (!in.take(",")) {
      if (!in.take("}")) return false;
      break;
    }
  }
  return has_descr && has_order && has_shape && in.at_end();
}

// What an element is: a dtype of ours, or how its bytes are best coded.
bool read_descr(std::string_view descr, FilePart& part, size_t& width) {
  if (descr.size() < 3 || std::string_view("<>|").find(descr[0]) == std::string_view::npos) return false;
  const char order = descr[0], kind = descr[1];
  uint64_t size = 0;
  LiteralReader digits(descr.substr(2));
  if (!digits.number(size) || size < 1) return false;
  if (kind == 'M' || kind == 'm') {  // a unit in brackets follows
    if (size != 8) return false;
  } else if (!digits.at_end()) {
    return false;
  }
  constexpr struct {
    char kind;
    uint64_t size;
    DType dtype;
  } kKnown[] = {{'b', 1, DType::BOOL}, {'u', 1, DType::U8},  {'i', 1, DType::I8},  {'i', 2, DType::I16},
                {'u', 2, DType::U16},  {'f', 2, DType::F16}, {'i', 4, DType::I32}, {'u', 4, DType::U32},
                {'f', 4, DType::F32},  {'f', 8, DType::F64}, {'i', 8, DType::I64}, {'u', 8, DType::U64},
                {'c', 8, DType::C64}};
  part.kind = container::Kind::bytes;
  switch (kind) {
    case 'U':  // UCS-4
      if (size > SIZE_MAX / 4) return false;
      width = size_t(size * 4);
      if (order == '<') part.element = Element::int32;
      return true;
    case 'S': width = size_t(size); return true;
    case 'V':  // bfloat16 of ml_dtypes is saved as two bytes without a name
      width = size_t(size);
      if (size == 2) part.element = Element::bf16;
      return true;
    case 'M':
    case 'm': width = 8, part.element = Element::int64; break;
    case 'c':
      if (size != 8 && size != 16 && size != 32) return false;
      width = size_t(size);
      if (size == 16) part.element = Element::fp64;
      break;
    case 'b':
    case 'u':
    case 'i':
    case 'f':
      if (size > 16 || !std::has_single_bit(size)) return false;
      width = size_t(size);
      break;
    default: return false;  // objects are pickles
  }
  for (const auto& known : kKnown)
    if (known.kind == kind && known.size == size) {
      set_dtype(part, known.dtype);
      if (order == '<' || order == '|') part.kind = container::Kind::tensor;
    }
  if (order == '>' || (part.kind == container::Kind::bytes && part.element == Element::bytes)) {
    // A byte of such numbers resembles the same byte of the next one.
    part.element = Element::bytes;
    part.record.assign(width, {1, Element::bytes});
  }
  return true;
}

// The array of a .npy whose bytes lie at `begin` of a file. Nothing for objects, which are pickled.
std::optional<FilePart> npy_part(std::span<const uint8_t> bytes, uint64_t begin) {
  constexpr uint8_t kMagic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return std::nullopt;
  const uint8_t version = bytes[6];
  if (version < 1 || version > 3 || bytes[7] != 0) return std::nullopt;
  const size_t fixed = version == 1 ? 10 : 12;
  if (bytes.size() < fixed) return std::nullopt;
  const uint64_t length = version == 1 ? load_le<uint16_t>(&bytes[8]) : load_le<uint32_t>(&bytes[8]);
  if (length > bytes.size() - fixed) return std::nullopt;
  Header header;
  if (!read_header({reinterpret_cast<const char*>(&bytes[0]) + fixed, size_t(length)}, header)) return std::nullopt;
  FilePart part;
  part.begin = begin + fixed + length, part.end = begin + bytes.size();
  part.shape = header.shape;
  size_t width = 0;
  if (!read_descr(header.descr, part, width)) return std::nullopt;
  uint64_t product = width;
  for (const uint64_t dim : header.shape)
    if (__builtin_mul_overflow(product, dim, &product)) return std::nullopt;
  if (product != part.end - part.begin) return std::nullopt;
  if (header.fortran && header.shape.size() > 1) part.kind = container::Kind::bytes;
  if (part.kind == container::Kind::bytes) part.shape.clear(), part.dtype = DType::U8;
  return part;
}

}  // namespace

std::optional<FileLayout> npy_layout(std::span<const uint8_t> bytes) {
  auto part = npy_part(bytes, 0);
  if (!part) return std::nullopt;
  if (part->kind == container::Kind::bytes) part->name = "array";
  FileLayout layout;
  layout.origin = container::Origin::npy;
  layout.parts.push_back(std::move(*part));
  return layout;
}

std::optional<FileLayout> npz_layout(std::span<const uint8_t> bytes) {
  constexpr std::string_view kEnding = ".npy";
  const auto members = stored_members(bytes);
  if (!members) return std::nullopt;
  FileLayout layout;
  layout.origin = container::Origin::npz;
  for (const ZipMember& member : *members) {
    if (!member.name.ends_with(kEnding)) continue;
    auto part = npy_part(bytes.subspan(size_t(member.begin), size_t(member.end - member.begin)), member.begin);
    if (!part) continue;
    part->name = member.name.substr(0, member.name.size() - kEnding.size());
    layout.parts.push_back(std::move(*part));
  }
  if (layout.parts.empty()) return std::nullopt;
  return layout;
}

}  // namespace tersor::checkpoint
