#include "lossless/records.h"

#include <cstring>

#include "core/arena.h"
#include "entropy/bit_io.h"

namespace tersor::lossless {
namespace {

constexpr const char* kWhat = "lossless records";

// Copies `bytes` bytes `count` times. The sizes that occur are constants to the compiler: a call for two bytes would
// cost more than they do.
template <size_t bytes>
void copy_fixed(uint8_t* to, size_t to_step, const uint8_t* from, size_t from_step, size_t count) {
  for (size_t i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, bytes);
}

void copy_strided(size_t bytes, uint8_t* to, size_t to_step, const uint8_t* from, size_t from_step, size_t count) {
  switch (bytes) {
    case 1: return copy_fixed<1>(to, to_step, from, from_step, count);
    case 2: return copy_fixed<2>(to, to_step, from, from_step, count);
    case 4: return copy_fixed<4>(to, to_step, from, from_step, count);
    case 8: return copy_fixed<8>(to, to_step, from, from_step, count);
    case 16: return copy_fixed<16>(to, to_step, from, from_step, count);
    case 32: return copy_fixed<32>(to, to_step, from, from_step, count);
    case 64: return copy_fixed<64>(to, to_step, from, from_step, count);
    case 128: return copy_fixed<128>(to, to_step, from, from_step, count);
    default:
      for (size_t i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, bytes);
  }
}

}  // namespace

bool encode_records(const Layout& layout, std::span<const uint8_t> raw, int level, EncodePart* encode_part, int depth,
                    ByteWriter& out) {
  const size_t width = layout.record_bytes(), before = layout.phase % width;
  const size_t head = before ? width - before : 0;
  if (raw.size() < head + width) return false;
  const size_t count = (raw.size() - head) / width;
  out.put(uint8_t(kRecords)), out.put(uint8_t(layout.record.size()));
  for (const Field& field : layout.record) entropy::put_varint(out, field.bytes);
  entropy::put_varint(out, head);
  out.append(raw.first(head));
  out.append(raw.subspan(head + count * width));
  ScratchFrame frame;
  const uint8_t* from = raw.data() + head;
  for (const Field& field : layout.record) {
    const auto values = frame.bytes(count * field.bytes);
    copy_strided(field.bytes, values.data(), field.bytes, from, width, count);
    const auto coded = frame.bytes(chunk_bound(values.size()));
    const size_t bytes = encode_part(field.element, values, level, coded, depth);
    entropy::put_varint(out, bytes);
    out.append(coded.first(bytes));
    from += field.bytes;
  }
  return !out.full();
}

void decode_records(std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodePart* decode_part, int depth) {
  TERSOR_REQUIRE(depth > 0, Code::bad_data, kWhat, ": parts nested deeper than ", kMostDepth);
  const size_t fields = data.empty() ? 0 : data[0];
  TERSOR_REQUIRE(fields >= 1 && fields <= kMostFields, Code::bad_data, kWhat, ": ", fields, " fields, 1..", kMostFields,
                 " are allowed");
  data = data.subspan(1);
  size_t bytes[kMostFields], width = 0;
  for (size_t i = 0; i < fields; ++i) {
    const uint64_t size = entropy::take_varint(data, kWhat);
    TERSOR_REQUIRE(size >= 1 && size <= kMostRecordBytes - width, Code::bad_data, kWhat, ": a field of ", size,
                   " bytes behind ", width, ", a record has at most ", kMostRecordBytes);
    bytes[i] = size_t(size), width += bytes[i];
  }
  const uint64_t head = entropy::take_varint(data, kWhat);
  TERSOR_REQUIRE(head < width && raw.size() >= head + width && raw.size() <= kChunkBytes, Code::bad_data, kWhat, ": ",
                 head, " bytes before records of ", width, " in ", raw.size());
  const size_t count = (raw.size() - size_t(head)) / width, tail = raw.size() - size_t(head) - count * width;
  ByteReader reader(data, kWhat);
  const auto front = reader.take(head), back = reader.take(tail);
  data = reader.take(reader.left());
  if (head) std::memcpy(raw.data(), front.data(), front.size());
  if (tail) std::memcpy(raw.data() + raw.size() - tail, back.data(), tail);
  uint8_t* to = raw.data() + head;
  for (size_t i = 0; i < fields; ++i) {
    const uint64_t coded_bytes = entropy::take_varint(data, kWhat);
    ByteReader part(data, kWhat);
    const auto coded = part.take(coded_bytes);
    data = part.take(part.left());
    ScratchFrame frame;
    const auto values = frame.bytes(count * bytes[i]);
    decode_part(coded, values, depth - 1);
    copy_strided(bytes[i], to, width, values.data(), bytes[i], count);
    to += bytes[i];
  }
}

}  // namespace tersor::lossless
