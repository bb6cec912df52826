// The reading half of numbers.h.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/arena.h"
#include "entropy/bit_io.h"
#include "lossless/numbers.h"
#include "lossless/series.h"
#include "transform/float_scale.h"
#include "transform/sparse_map.h"

namespace tersor::lossless {
namespace {

using transform::order_float;
constexpr const char* kWhat = "lossless numbers";

uint8_t take_flag(ByteReader& reader, const char* name) {
  const uint8_t flag = reader.take<uint8_t>();
  TERSOR_REQUIRE(flag <= 1, Code::bad_data, kWhat, ": ", name, " is ", int(flag), ", 0 and 1 are known");
  return flag;
}

template <class U>
void decode_words(uint8_t method, std::span<const uint8_t>& data, std::span<U> words, DecodePart* decode_part,
                  int depth) {
  const size_t n = words.size();
  ScratchFrame frame;
  const auto part = [&](std::span<U> values) {
    const uint64_t bytes = entropy::take_varint(data, kWhat);
    ByteReader reader(data, kWhat);
    const auto coded = reader.take(bytes);
    data = reader.take(reader.left());
    decode_part(coded, {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()}, depth - 1);
  };
  TERSOR_REQUIRE(depth > 0 || (method != kSparse && method != kRuns && method != kScaled), Code::bad_data, kWhat,
                 ": parts nested deeper than ", kMostDepth);
  switch (method) {
    case kSeries: {
      ByteReader reader(data, kWhat);
      const uint8_t floats = take_flag(reader, "order");
      data = reader.take(reader.left());
      decode_series(data, words);
      if (floats)
        for (U& word : words) word = order_float(word);
      return;
    }
    case kRanks: {
      ByteReader reader(data, kWhat);
      const uint8_t floats = take_flag(reader, "order");
      data = reader.take(reader.left());
      const uint64_t count = entropy::take_varint(data, kWhat);
      TERSOR_REQUIRE(count >= 1 && count <= std::min<size_t>(n, 65536), Code::bad_data, kWhat, ": ", count,
                     " values for ", n, " ranks");
      const auto values = frame.take<U>(size_t(count));
      const auto ranks = frame.take<uint16_t>(n);
      decode_series<U>(data, values);
      if (floats)
        for (U& value : values) value = order_float(value);
      decode_series<uint16_t>(data, ranks);
      int16_t highest = INT16_MIN;  // signed: what baseline machines compare eight at a time
      for (const uint16_t rank : ranks) highest = std::max(highest, int16_t(rank ^ 0x8000));
      const auto most = uint16_t(highest ^ 0x8000);
      TERSOR_REQUIRE(most < count, Code::bad_data, kWhat, ": rank ", most, " of ", count);
      for (size_t i = 0; i < n; ++i) words[i] = values[ranks[i]];
      return;
    }
    case kSparse: {
      PlaneDecoder plane(data, (n + 7) / 8, 256);
      const auto scratch = frame.bytes((n + 7) / 8);
      const uint8_t* const map = plane.next(scratch.size(), scratch.data());
      plane.finish();
      const size_t count = transform::count_map({map, scratch.size()});
      TERSOR_REQUIRE(count >= 1 && map[scratch.size() - 1] >> ((n - 1) % 8) <= 1, Code::bad_data, kWhat, ": ", count,
                     " values that are not zero in a map of ", n);
      const auto others = frame.take<U>(count + transform::kOthersSpare / sizeof(U));
      part(others.first(count));
      transform::fill_sparse<U>(map, others.data(), words);
      return;
    }
    case kRuns: {
      const uint64_t runs = entropy::take_varint(data, kWhat);
      TERSOR_REQUIRE(runs >= 1 && runs <= n, Code::bad_data, kWhat, ": ", runs, " runs of ", n, " values");
      const auto heads = frame.take<U>(size_t(runs));
      part(heads);
      const auto lengths = frame.take<uint32_t>(size_t(runs));  // not before: parts may hold runs
      decode_series<uint32_t>(data, lengths);
      size_t at = 0;
      for (size_t i = 0; i < runs; ++i) {
        TERSOR_REQUIRE(lengths[i] < n - at, Code::bad_data, kWhat, ": a run of ", lengths[i], " more values, ", n - at,
                       " are left");
        std::fill_n(words.begin() + long(at), size_t(lengths[i]) + 1, heads[i]);
        at += size_t(lengths[i]) + 1;
        TERSOR_REQUIRE(at < n || i + 1 == runs, Code::bad_data, kWhat, ": more runs than values");
      }
      TERSOR_REQUIRE(at == n, Code::bad_data, kWhat, ": runs of ", at, " values, ", n, " are needed");
      return;
    }
    case kScaled: {
      if constexpr (sizeof(U) >= 4) {
        ByteReader reader(data, kWhat);
        transform::FloatScale scale;
        scale.mantissa = reader.take<uint64_t>(), scale.exponent = reader.take<uint16_t>();
        TERSOR_REQUIRE(scale.mantissa >> 63, Code::bad_data, kWhat, ": a step of ", scale.mantissa,
                       ", its highest bit is needed");
        data = reader.take(reader.left());
        const auto multiples = frame.take<U>(n);
        part(multiples);
        part(words);
        return transform::add_scaled<U>(scale, multiples, words.data());
      } else {
        fail(Code::bad_data, kWhat, ": scaled words of ", sizeof(U), " bytes");
      }
    }
    default: {  // kPlanes
      std::vector<PlaneDecoder> planes;
      planes.reserve(sizeof(U));
      for (size_t i = 0; i < sizeof(U); ++i) planes.emplace_back(data, n, 256);
      const auto scratch = frame.bytes(kTile);
      for (size_t at = 0; at < n; at += kTile) {
        const auto tile = words.subspan(at, std::min(kTile, n - at));
        for (size_t byte = 0; byte < sizeof(U); ++byte) {
          const uint8_t* const values = planes[byte].next(tile.size(), scratch.data());
          if (byte == 0)
            for (size_t i = 0; i < tile.size(); ++i) tile[i] = values[i];
          else
            for (size_t i = 0; i < tile.size(); ++i) tile[i] = U(tile[i] | U(values[i]) << (8 * byte));
        }
      }
      for (const PlaneDecoder& plane : planes) plane.finish();
      return;
    }
  }
}

template <class U>
void decode_aligned(uint8_t method, std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodePart* decode_part,
                    int depth) {
  const size_t n = raw.size() / sizeof(U);
  if (reinterpret_cast<uintptr_t>(raw.data()) % sizeof(U) == 0)
    return decode_words<U>(method, data, {reinterpret_cast<U*>(raw.data()), n}, decode_part, depth);
  ScratchFrame frame;
  const auto words = frame.take<U>(n);
  decode_words<U>(method, data, words, decode_part, depth);
  std::memcpy(raw.data(), words.data(), raw.size());
}

void decode_packed(std::span<const uint8_t>& data, std::span<uint8_t> raw, int bits) {
  const size_t held = size_t(8 / bits);
  ScratchFrame frame;
  const auto scratch = frame.bytes(kTile);
  PlaneDecoder plane(data, raw.size() / held, 256);
  const unsigned mask = (1u << bits) - 1;
  for (size_t at = 0; at < raw.size() / held; at += kTile) {
    const size_t count = std::min(kTile, raw.size() / held - at);
    const uint8_t* const bytes = plane.next(count, scratch.data());
    uint8_t* to = raw.data() + at * held;
    for (size_t i = 0; i < count; ++i)
      for (size_t k = 0; k < held; ++k) *to++ = uint8_t(bytes[i] >> (int(k) * bits) & mask);
  }
  plane.finish();
}

}  // namespace

void decode_numbers(uint8_t method, std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodePart* decode_part,
                    int depth) {
  ByteReader reader(data, kWhat);
  const uint8_t width = reader.take<uint8_t>();
  data = reader.take(reader.left());
  const bool packed = method == kPacked;
  const size_t unit = packed ? size_t(width ? 8 / width : 0) : width;
  TERSOR_REQUIRE(width == 1 || width == 2 || width == 4 || (width == 8 && !packed), Code::bad_data, kWhat, ": ",
                 packed ? "packed to " : "a width of ", int(width), packed ? " bits" : " bytes");
  TERSOR_REQUIRE(!raw.empty() && raw.size() % unit == 0 && raw.size() <= size_t(1) << 20, Code::bad_data, kWhat, ": ",
                 raw.size(), " bytes are not 1..1048576 in units of ", unit);
  if (packed) return decode_packed(data, raw, width);
  switch (width) {
    case 1: return decode_aligned<uint8_t>(method, data, raw, decode_part, depth);
    case 2: return decode_aligned<uint16_t>(method, data, raw, decode_part, depth);
    case 4: return decode_aligned<uint32_t>(method, data, raw, decode_part, depth);
    default: return decode_aligned<uint64_t>(method, data, raw, decode_part, depth);
  }
}

}  // namespace tersor::lossless
