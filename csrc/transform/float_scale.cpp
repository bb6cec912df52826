#include "transform/float_scale.h"

#include <algorithm>

#include "core/isa.h"

namespace tersor::transform {
namespace {

__extension__ using Wide = unsigned __int128;

template <class U>
constexpr Variant<AddScaled<U>> kAddScaled[] = {{Isa::scalar, add_scaled_scalar},
                                                TERSOR_X86({Isa::avx512, add_scaled_avx512}, )};

}  // namespace

template <class U>
void add_scaled(const FloatScale& scale, std::span<const U> multiples, U* floats) noexcept {
  pick(kAddScaled<U>)(scale, multiples, floats);
}

template <class U>
void split_scaled(const FloatScale& scale, std::span<const U> floats, U* multiples, U* corrections) noexcept {
  constexpr int kBits = kFloatBits<U>, kTop = 8 * sizeof(U) - 1;
  constexpr U kMost = U(~U(0)) >> 1;
  constexpr int kMostExponent = int(kMost >> (kBits - 1));  // of infinities and NaNs
  // 2^127 / mantissa, at most 2^64 - 1.
  const uint64_t inverse = uint64_t(std::min<Wide>((Wide(1) << 127) / scale.mantissa, ~uint64_t(0)));
  for (size_t i = 0; i < floats.size(); ++i) {
    const U magnitude = floats[i] & kMost;
    const int exponent = int(magnitude >> (kBits - 1));
    const int shift = int16_t(scale.exponent) + kBits + 128 - exponent;
    U multiple = 0;
    if (exponent > 0 && exponent < kMostExponent && shift > 0 && shift <= 127) {
      const U mantissa = U((magnitude & ((U(1) << (kBits - 1)) - 1)) | U(1) << (kBits - 1));
      const Wide rounded = ((Wide(mantissa) * inverse >> (shift - 1)) + 1) >> 1;
      if (rounded <= kMost) multiple = U(rounded);
    }
    multiples[i] = floats[i] >> kTop ? U(0 - multiple) : multiple;
    corrections[i] = 0;
  }
  add_scaled(scale, std::span<const U>(multiples, floats.size()), corrections);
  for (size_t i = 0; i < floats.size(); ++i) corrections[i] = U(order_float(floats[i]) - order_float(corrections[i]));
}

#define TERSOR_FOR(U)                                                              \
  template void add_scaled<U>(const FloatScale&, std::span<const U>, U*) noexcept; \
  template void split_scaled<U>(const FloatScale&, std::span<const U>, U*, U*) noexcept;
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
