// The reference of float_scale_avx512.cpp.
#include <bit>

#include "transform/float_scale.h"

namespace tersor::transform {
namespace {

__extension__ using Wide = unsigned __int128;

// The multiple's product with the step, rounded to the nearest, as a number in the order of floats.
template <class U>
U product(const FloatScale& scale, U multiple) noexcept {
  constexpr int kBits = kFloatBits<U>;
  const bool negative = multiple >> (8 * sizeof(U) - 1);
  const uint64_t size = negative ? U(0 - multiple) : multiple;
  if (size == 0) return 0;
  // With its highest bit in place the multiple gives a product of 127 or 128 bits. What lies below its upper half only
  // tells whether it is a half.
  const int zeros = std::countl_zero(size);
  const Wide exact = Wide(size << zeros) * scale.mantissa;
  const uint64_t high = uint64_t(exact >> 64) | (uint64_t(exact) != 0);
  const int shorter = int(~high >> 63), length = 128 - zeros - shorter, drop = 63 - kBits - shorter;
  const uint64_t doubled = high >> drop;
  const uint64_t above = (doubled >> 1 & 1) | ((high & ((uint64_t(1) << drop) - 1)) != 0);  // halves go to even
  const uint64_t rounded = (doubled + above) >> 1;
  const U order = U((uint64_t(scale.exponent + length) << (kBits - 1)) + rounded);
  return negative ? U(0 - order) : order;
}

template <class U>
void add(const FloatScale& scale, std::span<const U> multiples, U* floats) noexcept {
  for (size_t i = 0; i < multiples.size(); ++i) floats[i] = order_float(U(floats[i] + product(scale, multiples[i])));
}

}  // namespace

void add_scaled_scalar(const FloatScale& scale, std::span<const uint32_t> multiples, uint32_t* floats) noexcept {
  add(scale, multiples, floats);
}

void add_scaled_scalar(const FloatScale& scale, std::span<const uint64_t> multiples, uint64_t* floats) noexcept {
  add(scale, multiples, floats);
}

}  // namespace tersor::transform
