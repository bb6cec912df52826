// Sixteen floats of 32 bits at a time, eight of 64 bits where multiples have 32. Reference: float_scale_scalar.cpp.
#include <immintrin.h>

#include "transform/float_scale.h"

namespace tersor::transform {
namespace avx512 {

// Rounded products of eight multiples below 2^32 as numbers in the order of floats of so many bits.
template <int kBits>
static inline __m512i product(__m512i sizes, __m512i high_scale, __m512i low_scale, __m512i exponent) {
  const __m512i zeros = _mm512_sub_epi64(_mm512_lzcnt_epi64(sizes), _mm512_set1_epi64(32));
  const __m512i whole = _mm512_sllv_epi64(sizes, zeros);
  // The product's upper 64 of 96 bits, and whether there is anything below.
  const __m512i low = _mm512_mul_epu32(whole, low_scale), one = _mm512_set1_epi64(1);
  __m512i high = _mm512_add_epi64(_mm512_mul_epu32(whole, high_scale), _mm512_srli_epi64(low, 32));
  high = _mm512_mask_or_epi64(high, _mm512_test_epi64_mask(low, _mm512_set1_epi64(0xffffffff)), high, one);
  const __m512i shorter = _mm512_srli_epi64(_mm512_andnot_si512(high, _mm512_set1_epi64(-1)), 63);
  const __m512i drop = _mm512_sub_epi64(_mm512_set1_epi64(63 - kBits), shorter);
  const __m512i doubled = _mm512_srlv_epi64(high, drop);
  const __m512i below = _mm512_sub_epi64(_mm512_sllv_epi64(one, drop), one);
  const __m512i above = _mm512_mask_mov_epi64(_mm512_and_si512(_mm512_srli_epi64(doubled, 1), one),
                                              _mm512_test_epi64_mask(high, below), one);
  const __m512i rounded = _mm512_srli_epi64(_mm512_add_epi64(doubled, above), 1);
  const __m512i upper = _mm512_sub_epi64(exponent, _mm512_add_epi64(zeros, shorter));
  return _mm512_add_epi64(_mm512_slli_epi64(upper, kBits - 1), rounded);
}

}  // namespace avx512

void add_scaled_avx512(const FloatScale& scale, std::span<const uint32_t> multiples, uint32_t* floats) noexcept {
  const __m512i high_scale = _mm512_set1_epi64((long long)(scale.mantissa >> 32));
  const __m512i low_scale = _mm512_set1_epi64((long long)(scale.mantissa & 0xffffffff));
  const __m512i exponent = _mm512_set1_epi64(scale.exponent + 96);
  const __m512i sign = _mm512_set1_epi32(int(0x80000000)), low_half = _mm512_set1_epi64(0xffffffff);
  size_t i = 0;
  for (; i + 16 <= multiples.size(); i += 16) {
    const __m512i multiple = _mm512_loadu_si512(multiples.data() + i);
    const __m512i sizes = _mm512_abs_epi32(multiple);
    const __m512i even = avx512::product<24>(_mm512_and_si512(sizes, low_half), high_scale, low_scale, exponent);
    const __m512i odd = avx512::product<24>(_mm512_srli_epi64(sizes, 32), high_scale, low_scale, exponent);
    __m512i order = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
    order = _mm512_maskz_mov_epi32(_mm512_test_epi32_mask(multiple, multiple), order);
    order = _mm512_mask_sub_epi32(order, _mm512_movepi32_mask(multiple), _mm512_setzero_si512(), order);
    const __m512i number = _mm512_add_epi32(order, _mm512_loadu_si512(floats + i));
    const __mmask16 negative = _mm512_cmpgt_epu32_mask(number, sign);
    _mm512_storeu_si512(floats + i, _mm512_mask_sub_epi32(number, negative, sign, number));
  }
  add_scaled_scalar(scale, multiples.subspan(i), floats + i);
}

void add_scaled_avx512(const FloatScale& scale, std::span<const uint64_t> multiples, uint64_t* floats) noexcept {
  const __m512i high_scale = _mm512_set1_epi64((long long)(scale.mantissa >> 32));
  const __m512i low_scale = _mm512_set1_epi64((long long)(scale.mantissa & 0xffffffff));
  const __m512i exponent = _mm512_set1_epi64(scale.exponent + 96);
  const __m512i sign = _mm512_set1_epi64((long long)(uint64_t(1) << 63)), most = _mm512_set1_epi64(0xffffffff);
  size_t i = 0;
  for (; i + 8 <= multiples.size(); i += 8) {
    const __m512i multiple = _mm512_loadu_si512(multiples.data() + i);
    const __m512i sizes = _mm512_abs_epi64(multiple);
    if (_mm512_cmpgt_epu64_mask(sizes, most)) {
      add_scaled_scalar(scale, multiples.subspan(i, 8), floats + i);
      continue;
    }
    __m512i order = avx512::product<53>(sizes, high_scale, low_scale, exponent);
    order = _mm512_maskz_mov_epi64(_mm512_test_epi64_mask(multiple, multiple), order);
    order = _mm512_mask_sub_epi64(order, _mm512_movepi64_mask(multiple), _mm512_setzero_si512(), order);
    const __m512i number = _mm512_add_epi64(order, _mm512_loadu_si512(floats + i));
    const __mmask8 negative = _mm512_cmpgt_epu64_mask(number, sign);
    _mm512_storeu_si512(floats + i, _mm512_mask_sub_epi64(number, negative, sign, number));
  }
  add_scaled_scalar(scale, multiples.subspan(i), floats + i);
}

}  // namespace tersor::transform
