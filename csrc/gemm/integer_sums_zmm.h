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

// The sums of two blocks for kTokens tokens, from a tile's beginning to its end.
template <int kTokens>
struct TokenSums {
  const IntegerTile& t;
  __m512 sum0[kTokens], sum1[kTokens];
  __m512i acc0[kTokens], acc1[kTokens];

  __attribute__((always_inline)) void load() {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) {
      sum0[i] = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(t.y + size_t(i) * kTileRows);
      sum1[i] = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(t.y + size_t(i) * kTileRows + kBlockRows);
    }
  }
  __attribute__((always_inline)) void store() const {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) {
      _mm512_storeu_ps(t.y + size_t(i) * kTileRows, sum0[i]);
      _mm512_storeu_ps(t.y + size_t(i) * kTileRows + kBlockRows, sum1[i]);
    }
  }
  __attribute__((always_inline)) void start(const Place& at) {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i)
      acc0[i] = acc1[i] = _mm512_set1_epi32(-t.center * t.sums[size_t(i) * t.sums_stride + at.group]);
  }
  // Vector `v` of a step: four columns, a of the first block and b of the second.
  __attribute__((always_inline)) void add(__m512i a, __m512i b, const int8_t* x, int v) {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) {
      const __m512i four = four_of(x + size_t(i) * t.x_stride + 4 * v);
      dot(acc0[i], a, four), dot(acc1[i], b, four);
    }
  }
  __attribute__((always_inline)) void finish(const Place& at) {
    scale_group<kTokens>(t, at, 0, acc0, sum0);
    scale_group<kTokens>(t, at, 1, acc1, sum1);
  }
  __attribute__((always_inline)) void half(Place& at) {
    if (--at.halves_left != 0) return;
    finish(at), next_group(t, at), start(at);
  }
};

}  // namespace
}  // namespace tersor::gemm
