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

template <class U>
void add(U* values, size_t begin, size_t end, size_t stride) noexcept {
  begin = begin > stride ? begin : stride;
  if (stride == 1 && begin < end) {
    U sum = values[begin - 1];
    for (size_t i = begin; i < end; ++i) values[i] = sum = U(sum + values[i]);
    return;
  }
  // Pieces of a stride do not depend on themselves, so compilers may take many values at once.
  while (begin < end) {
    const size_t piece = stride < end - begin ? stride : end - begin;
    const U* const before = values + begin - stride;
    U* const here = values + begin;
    for (size_t i = 0; i < piece; ++i) here[i] = U(here[i] + before[i]);
    begin += piece;
  }
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

void add_stride_scalar(uint8_t* values, size_t begin, size_t end, size_t stride) noexcept {
  add(values, begin, end, stride);
}

void add_stride_scalar(uint16_t* values, size_t begin, size_t end, size_t stride) noexcept {
  add(values, begin, end, stride);
}

void add_stride_scalar(uint32_t* values, size_t begin, size_t end, size_t stride) noexcept {
  add(values, begin, end, stride);
}

void add_stride_scalar(uint64_t* values, size_t begin, size_t end, size_t stride) noexcept {
  add(values, begin, end, stride);
}

}  // namespace tersor::transform
