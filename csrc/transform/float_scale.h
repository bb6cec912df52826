// Floats that are whole multiples of a step: decimals, counts of a scale, sums of such. A float is the multiple's
// product with the step, rounded, and what is missing from there to the float in the order of floats, mostly nothing.
// All in integers, so no machine and no mode of rounding changes a bit. Page: docs/formats/lossless.md, "scaled".
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "transform/value_bins.h"

namespace tersor::transform {

struct FloatScale {
  uint64_t mantissa;  // its highest bit is set
  uint16_t exponent;  // the step is mantissa * 2^(exponent - bias + 2), modulo 2^16
};

// U, here and below: uint32_t and uint64_t, whose floats have 24 and 53 bits, the hidden one among them.
template <class U>
inline constexpr int kFloatBits = sizeof(U) == 8 ? 53 : 24;

// The multiples nearest to the floats (0 where none fits or where there is no number), and the corrections that
// add_scaled needs.
template <class U>
void split_scaled(const FloatScale& scale, std::span<const U> floats, U* multiples, U* corrections) noexcept;

// In place: corrections become floats.
template <class U>
void add_scaled(const FloatScale& scale, std::span<const U> multiples, U* floats) noexcept;

template <class U>
using AddScaled = void(const FloatScale& scale, std::span<const U> multiples, U* floats) noexcept;
AddScaled<uint32_t> add_scaled_scalar, add_scaled_avx512;
AddScaled<uint64_t> add_scaled_scalar, add_scaled_avx512;

}  // namespace tersor::transform
