// Codes, scales and groups of a tile (kernels.h) in 512-bit registers. Included by files of one level each: everything
// here is local to them.
#pragma once
#include <immintrin.h>

#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

__attribute__((always_inline)) inline __m512i unit(const uint8_t* p, int number) {
  return _mm512_loadu_si512(p + 2 * 64 * number);
}

template <int kShift>
__attribute__((always_inline)) inline __m512i shifted(__m512i v) {
  if constexpr (kShift > 0) return _mm512_srli_epi16(v, kShift);
  if constexpr (kShift < 0) return _mm512_slli_epi16(v, -kShift);
  return v;
}

// Bits [kBit, kBit + kBits) of each byte, moved to [kTo, kTo + kBits).
template <int kBits, int kBit, int kTo = 0>
__attribute__((always_inline)) inline __m512i field(__m512i v) {
  return _mm512_and_si512(shifted<kBit - kTo>(v), _mm512_set1_epi8(char(((1 << kBits) - 1) << kTo)));
}

// Vector kV of a block of the step at `p`, see kernels.h.
template <int kBits, int kV>
__attribute__((always_inline)) inline __m512i codes(const uint8_t* p) {
  if constexpr (kBits == 8) return unit(p, kV);
  if constexpr (kBits == 4) return field<4, 4 * (kV % 2)>(unit(p, kV / 2));
  if constexpr (kBits == 2) return field<2, 2 * (kV % 4)>(unit(p, kV / 4));
  if constexpr (kBits == 1) return field<1, kV>(unit(p, 0));
  if constexpr (kBits == 3) return _mm512_or_si512(codes<2, kV>(p), field<1, kV, 2>(unit(p, 2)));
  if constexpr (kBits == 5) return _mm512_or_si512(codes<4, kV>(p), field<1, kV, 4>(unit(p, 4)));
  if constexpr (kBits == 6) return _mm512_or_si512(codes<4, kV>(p), field<2, 2 * (kV % 4), 4>(unit(p, 4 + kV / 4)));
}

// Into the second cache: the hardware's prefetcher follows codes in order, but falls behind where a step takes long, as
// those of several tokens, or has few bytes.
template <int kBits, int kBytesAhead>
__attribute__((always_inline)) inline void prefetch_step(const uint8_t* p) {
#pragma GCC unroll 16
  for (int line = 0; line < 2 * kBits; ++line)
    _mm_prefetch(reinterpret_cast<const char*>(p) + kBytesAhead + 64 * line, _MM_HINT_T1);
}

// Of a tile's block.
__attribute__((always_inline)) inline __m512 numbers_at(PackedScale kind, const uint8_t* group, int block) {
  const __m256i* const halves = reinterpret_cast<const __m256i*>(group) + block;
  switch (kind) {
    case PackedScale::f16: return _mm512_cvtph_ps(_mm256_loadu_si256(halves));
    case PackedScale::bf16:
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(halves)), 16));
    case PackedScale::e8m0:  // 2^-127 is no normal number
      return _mm512_castsi512_ps(_mm512_max_epu32(
          _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group) + block)), 23),
          _mm512_set1_epi32(0x00400000)));
    default: return _mm512_loadu_ps(group + 64 * block);
  }
}

__attribute__((always_inline)) inline __m512 zeros_at(const uint8_t* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

// Where a tile stands among its groups.
struct Place {
  const uint8_t *scales, *zeros, *minimums;
  size_t group = 0, halves_left, groups_left;
};

__attribute__((always_inline)) inline Place first_place(const TileGroups& t) {
  return {t.scales.at, t.zeros.at, t.minimums.at, 0, t.group_halves, t.groups_a_scale};
}

__attribute__((always_inline)) inline void next_group(const TileGroups& t, Place& at) {
  ++at.group, at.halves_left = t.group_halves;
  if (--at.groups_left != 0) return;
  at.groups_left = t.groups_a_scale;
  at.scales += t.scales.group_stride;
  if (at.zeros) at.zeros += t.zeros.group_stride;
  if (at.minimums) at.minimums += t.minimums.group_stride;
}

}  // namespace
}  // namespace tersor::gemm
