// Values from names and places, eight at a time: the loop of value_bins_scalar.cpp with BMI2's shifts and masks, and
// one look-up a value where a bin's beginning and width fit into one word.
#include <immintrin.h>

#include <cstring>

#include "transform/value_bins.h"

namespace tersor::transform {
namespace avx2 {

template <class U>
static size_t take(const ValueBins<U>& bins, const uint8_t* names, size_t count, const uint8_t* bytes, size_t last,
                   size_t& bit, U* values) noexcept {
  uint64_t rows[kMostBins];  // beginning * 256 + bits
  for (size_t i = 0; i < kMostBins; ++i) rows[i] = uint64_t(bins.first[i]) << 8 | bins.bits[i];
  size_t at = bit, done = 0;
  for (; at <= last && done + 8 <= count; done += 8)
    for (size_t i = done; i < done + 8; ++i) {
      uint64_t word;
      std::memcpy(&word, bytes + at / 8, 8);
      const uint64_t row = rows[names[i]];
      const unsigned width = unsigned(row & 255);
      if constexpr (sizeof(U) == 8)
        if (width > 56) {  // a load of 64 has up to 7 bits of others before them
          uint64_t rest;
          std::memcpy(&rest, bytes + (at + 32) / 8, 8);
          values[i] = bins.first[names[i]] +
                      (uint32_t(word >> (at % 8)) | (rest >> (at % 8) & ((uint64_t(1) << (width - 32)) - 1)) << 32);
          at += width;
          continue;
        }
      const uint64_t place = _bzhi_u64(word >> (at % 8), width);
      if constexpr (sizeof(U) == 8)
        values[i] = U(bins.first[names[i]] + place);
      else
        values[i] = U((row >> 8) + place);
      at += width;
    }
  bit = at;
  return done;
}

}  // namespace avx2

size_t take_eights_avx2(const ValueBins<uint8_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                        size_t last, size_t& bit, uint8_t* values) noexcept {
  return avx2::take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_avx2(const ValueBins<uint16_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                        size_t last, size_t& bit, uint16_t* values) noexcept {
  return avx2::take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_avx2(const ValueBins<uint32_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                        size_t last, size_t& bit, uint32_t* values) noexcept {
  return avx2::take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_avx2(const ValueBins<uint64_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                        size_t last, size_t& bit, uint64_t* values) noexcept {
  return avx2::take(bins, names, count, bytes, last, bit, values);
}

}  // namespace tersor::transform

#define TERSOR_LEVEL avx2
#include "transform/add_stride_loop.h"
