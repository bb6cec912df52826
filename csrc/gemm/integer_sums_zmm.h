// Sums of products of 8-bit integers in 512-bit registers, and what becomes of them at a group's end. Included by files
// of one level each: everything here is local to them.
//
// The accumulators are written as assembly: gcc 12 copies the destination of _mm512_dpbusd_epi32, and spills.
#pragma once
#include <immintrin.h>

#include "gemm/codes_zmm.h"
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

__attribute__((always_inline)) inline void dot(__m512i& sum, __m512i weights, __m512i activations) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(activations));
}

// A finished group's integer sums of one block, for kTokens tokens, into `sum`.
template <int kTokens>
__attribute__((always_inline)) inline void scale_group(const IntegerTile& t, const Place& at, int block,
                                                       const __m512i* acc, __m512* sum) {
  const __m512 scale = numbers_at(t.scale_kind, at.scales, block);
#pragma GCC unroll 8
  for (int i = 0; i < kTokens; ++i) {
    __m512 value = _mm512_cvtepi32_ps(acc[i]);
    const size_t here = size_t(i) * t.sums_stride + at.group;
    if (at.zeros) value = _mm512_fnmadd_ps(zeros_at(at.zeros + 16 * block), _mm512_set1_ps(float(t.sums[here])), value);
    const __m512 factor = t.x_scales ? _mm512_mul_ps(scale, _mm512_set1_ps(t.x_scales[here])) : scale;
    sum[i] = _mm512_fmadd_ps(value, factor, sum[i]);
    if (at.minimums) {
      const float x_sum = float(t.sums[here]) * (t.x_scales ? t.x_scales[here] : 1.0f);
      sum[i] = _mm512_fmadd_ps(numbers_at(t.scale_kind, at.minimums, block), _mm512_set1_ps(x_sum), sum[i]);
    }
  }
}

__attribute__((always_inline)) inline __m512i four_of(const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

}  // namespace
}  // namespace tersor::gemm
