// Values from names and places, eight at a time; the reference of value_bins_avx2.cpp.
#include <cstring>

#include "transform/value_bins.h"

namespace tersor::transform {
namespace {

template <class U>
size_t take(const ValueBins<U>& bins, const uint8_t* names, size_t count, const uint8_t* bytes, size_t last,
            size_t& bit, U* values) noexcept {
  size_t at = bit, done = 0;
  for (; at <= last && done + 8 <= count; done += 8)
    for (size_t i = done; i < done + 8; ++i) {
      uint64_t word;
      std::memcpy(&word, bytes + at / 8, 8);
      const unsigned width = bins.bits[names[i]];
      if constexpr (sizeof(U) == 8)
        if (width > 56) {  // a load of 64 has up to 7 bits of others before them
          uint64_t rest;
          std::memcpy(&rest, bytes + (at + 32) / 8, 8);
          values[i] = bins.first[names[i]] +
                      (uint32_t(word >> (at % 8)) | (rest >> (at % 8) & ((uint64_t(1) << (width - 32)) - 1)) << 32);
          at += width;
          continue;
        }
      values[i] = U(bins.first[names[i]] + U(word >> (at % 8) & ((uint64_t(1) << width) - 1)));
      at += width;
    }
  bit = at;
  return done;
}

}  // namespace

size_t take_eights_scalar(const ValueBins<uint8_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                          size_t last, size_t& bit, uint8_t* values) noexcept {
  return take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_scalar(const ValueBins<uint16_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                          size_t last, size_t& bit, uint16_t* values) noexcept {
  return take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_scalar(const ValueBins<uint32_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                          size_t last, size_t& bit, uint32_t* values) noexcept {
  return take(bins, names, count, bytes, last, bit, values);
}

size_t take_eights_scalar(const ValueBins<uint64_t>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                          size_t last, size_t& bit, uint64_t* values) noexcept {
  return take(bins, names, count, bytes, last, bit, values);
}

}  // namespace tersor::transform

#define TERSOR_LEVEL scalar
#include "transform/add_stride_loop.h"
