#include "formats/code_rows.h"

#include <array>
#include <cstring>

#include "core/error.h"
#include "core/pool.h"

namespace tersor::formats {
namespace {

constexpr int kPowers[kTritsAByte] = {1, 3, 9, 27, 81};
constexpr int kTritBytes = 243;

using Trits = std::array<std::array<uint8_t, kTritsAByte>, 256>;
constexpr Trits kTrits = [] {
  Trits trits{};
  for (int byte = 0; byte < 256; ++byte)
    for (size_t i = 0; i < kTritsAByte; ++i) trits[byte][i] = uint8_t(byte / kPowers[i] % 3);
  return trits;
}();

void unpack_trits(const uint8_t* row, size_t first, size_t count, uint8_t* out) noexcept {
  size_t at = first % kTritsAByte;
  row += first / kTritsAByte;
  for (; count; ++row, at = 0) {
    const size_t take = std::min(count, kTritsAByte - at);
    std::memcpy(out, kTrits[*row].data() + at, take);
    out += take, count -= take;
  }
}

uint8_t code_at(const uint8_t* row, int bits, size_t i) noexcept {
  const size_t bit = i * size_t(bits), shift = bit % 8;
  uint32_t window = row[bit / 8];
  if (shift + size_t(bits) > 8) window |= uint32_t(row[bit / 8 + 1]) << 8;
  return uint8_t(window >> shift & ((1u << bits) - 1));
}

// Eight codes begin and end at whole bytes, which fit one word.
template <int kBits>
void unpack(const uint8_t* row, size_t first, size_t count, uint8_t* out) noexcept {
  for (; count && first % 8; --count) *out++ = code_at(row, kBits, first++);
  const uint8_t* from = row + first / 8 * kBits;
  for (; count >= 8; count -= 8, first += 8, from += kBits, out += 8) {
    uint64_t word = 0;
    std::memcpy(&word, from, kBits);
    for (int i = 0; i < 8; ++i) out[i] = uint8_t(word >> (i * kBits) & ((1u << kBits) - 1));
  }
  for (; count; --count) *out++ = code_at(row, kBits, first++);
}

template <int kBits>
void pack(const uint8_t* codes, size_t count, uint8_t* row) noexcept {
  for (; count >= 8; count -= 8, codes += 8, row += kBits) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= uint64_t(codes[i]) << (i * kBits);
    std::memcpy(row, &word, kBits);
  }
  uint64_t word = 0;
  for (size_t i = 0; i < count; ++i) word |= uint64_t(codes[i]) << (i * kBits);
  std::memcpy(row, &word, (count * kBits + 7) / 8);
}

using Unpack = void (*)(const uint8_t*, size_t, size_t, uint8_t*) noexcept;
using Pack = void (*)(const uint8_t*, size_t, uint8_t*) noexcept;
constexpr Unpack kUnpack[] = {unpack<1>, unpack<2>, unpack<3>, unpack<4>, unpack<5>, unpack<6>, unpack<7>};
constexpr Pack kPack[] = {pack<1>, pack<2>, pack<3>, pack<4>, pack<5>, pack<6>, pack<7>};

// Rows that a thread takes at once.
size_t grain_of(size_t columns) noexcept { return std::max<size_t>(1, (size_t(1) << 16) / columns); }

}  // namespace

void unpack_codes(const uint8_t* row, CodeWidth width, size_t first, size_t count, uint8_t* out) noexcept {
  if (width.trits) return unpack_trits(row, first, count, out);
  if (width.bits == 8) {
    std::memcpy(out, row + first, count);
    return;
  }
  kUnpack[width.bits - 1](row, first, count, out);
}

void pack_codes(const uint8_t* codes, CodeWidth width, size_t count, uint8_t* row) noexcept {
  if (width.trits) {
    for (; count; ++row) {
      const size_t take = std::min(count, kTritsAByte);
      int byte = 0;
      for (size_t i = 0; i < take; ++i) byte += codes[i] * kPowers[i];
      *row = uint8_t(byte);
      codes += take, count -= take;
    }
    return;
  }
  if (width.bits == 8) {
    std::memcpy(row, codes, count);
    return;
  }
  kPack[width.bits - 1](codes, count, row);
}

void unpack_rows(std::span<const uint8_t> packed, CodeWidth width, size_t rows, size_t columns, std::span<uint8_t> out,
                 int threads) {
  const size_t row_bytes = width.row_bytes(columns);
  TERSOR_ASSERT(packed.size() == rows * row_bytes && out.size() == rows * columns);
  parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row)
      unpack_codes(packed.data() + row * row_bytes, width, 0, columns, out.data() + row * columns);
  });
}

void pack_rows(std::span<const uint8_t> codes, CodeWidth width, size_t rows, size_t columns, std::span<uint8_t> packed,
               int threads) {
  const size_t row_bytes = width.row_bytes(columns);
  TERSOR_ASSERT(packed.size() == rows * row_bytes && codes.size() == rows * columns);
  parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const uint8_t* const from = codes.data() + row * columns;
      const uint8_t most = *std::max_element(from, from + columns);
      TERSOR_REQUIRE(most < width.codes(), Code::bad_data, "codes: row ", row, " holds ", int(most), ", at most ",
                     width.codes() - 1, " is possible");
      pack_codes(from, width, columns, packed.data() + row * row_bytes);
    }
  });
}

void check_codes(std::span<const uint8_t> packed, CodeWidth width, size_t rows, size_t columns,
                 const SmallFloat* element, int threads) {
  const size_t row_bytes = width.row_bytes(columns);
  TERSOR_ASSERT(packed.size() == rows * row_bytes);
  const size_t tail = width.trits ? columns % kTritsAByte : columns * size_t(width.bits) % 8;
  const int tail_values = !tail ? 256 : width.trits ? kPowers[tail] : 1 << tail;
  const bool look_at_all = width.trits || (element && element->bits == 8);
  if (!look_at_all && tail_values == 256) return;
  parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const auto bytes = packed.subspan(row * row_bytes, row_bytes);
      TERSOR_REQUIRE(bytes.back() < tail_values, Code::bad_data, "codes: row ", row, " ends in the byte ",
                     int(bytes.back()), ", whose unused part is not 0");
      if (!look_at_all) continue;
      const uint8_t mask = width.trits ? 0xff : 0x7f;
      const int limit = width.trits ? kTritBytes : element->most_code + 1;
      int most = 0;  // no early exit: loops without one are vectorized
      for (const uint8_t byte : bytes) most = std::max(most, int(byte & mask));
      if (most < limit) [[likely]]
        continue;
      const auto bad = std::find_if(bytes.begin(), bytes.end(), [&](uint8_t byte) { return (byte & mask) >= limit; });
      fail(Code::bad_data, "codes: row ", row, " holds the byte ", int(*bad), " at ", bad - bytes.begin(),
           width.trits ? ", which is no five trits" : ", which is no finite number");
    }
  });
}

}  // namespace tersor::formats
