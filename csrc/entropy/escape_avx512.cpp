// Escapes split and merged 64 symbols a step. Compiled with AVX-512 BW, no inline code of ours inside.
// Reference: escape_scalar.cpp, equal byte for byte.
#include <immintrin.h>

#include "entropy/escape.h"

namespace tersor::entropy {
namespace avx512 {

// 32 bytes of table, indices 0..31: a shuffle for each half, chosen by bit 4.
static __attribute__((always_inline)) inline __m512i look_up32(__m512i low, __m512i high, __m512i index) {
  const __mmask64 upper = _mm512_test_epi8_mask(index, _mm512_set1_epi8(16));
  return _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(low, index), upper, high, index);
}

static __m512i four_times(const uint8_t* at) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

}  // namespace avx512

size_t split_escapes_avx512(const NameMap& map, const NameWindow& window, const uint8_t* symbols, size_t count,
                            uint8_t* names, uint8_t* escaped) noexcept {
  using namespace avx512;
  // Names outside of the window are looked up one by one.
  if (!window.most) return split_escapes_scalar(map, window, symbols, count, names, escaped);
  const __m512i low = four_times(window.name_of), high = four_times(window.name_of + 16);
  const __m512i base = _mm512_set1_epi8(char(window.first)), escape = _mm512_set1_epi8(char(map.escape));
  uint8_t* at = escaped;
  size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const __m512i symbol = _mm512_loadu_si512(symbols + i), index = _mm512_sub_epi8(symbol, base);
    const __mmask64 inside = _mm512_cmplt_epu8_mask(index, _mm512_set1_epi8(32));
    const __m512i name = _mm512_mask_mov_epi8(escape, inside, look_up32(low, high, index));
    _mm512_storeu_si512(names + i, name);
    uint64_t bits = _cvtmask64_u64(_mm512_cmpeq_epi8_mask(name, escape));
    if (!window.all)
      for (uint64_t outside = bits; outside; outside &= outside - 1) {
        const size_t j = size_t(__builtin_ctzll(outside));
        names[i + j] = map.name_of[symbols[i + j]];
        bits &= ~(uint64_t(names[i + j] != map.escape) << j);
      }
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter, bits >>= 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols + i + 16 * quarter));
      const __m512i kept = _mm512_maskz_compress_epi32(_cvtu32_mask16(uint16_t(bits)), _mm512_cvtepu8_epi32(bytes));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_cvtepi32_epi8(kept));
      at += _mm_popcnt_u32(uint16_t(bits));
    }
  }
  return size_t(at - escaped) + split_escapes_scalar(map, window, symbols + i, count - i, names + i, at);
}

bool merge_escapes_avx512(const NameMap& map, uint8_t* names, size_t count, const uint8_t*& escaped,
                          const uint8_t* escaped_end) noexcept {
  using namespace avx512;
  const __m512i low = four_times(map.symbol_of), high = four_times(map.symbol_of + 16);
  const __m512i escape = _mm512_set1_epi8(char(map.escape));
  const uint8_t* at = escaped;
  size_t i = 0;
  for (; i + 64 <= count && escaped_end - at >= 64; i += 64) {  // 64 escaped symbols may be read
    const __m512i name = _mm512_loadu_si512(names + i);
    _mm512_storeu_si512(names + i, look_up32(low, high, name));
    uint64_t bits = _cvtmask64_u64(_mm512_cmpeq_epi8_mask(name, escape));
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter, bits >>= 16) {
      const __mmask16 here = _cvtu32_mask16(uint16_t(bits));
      const __m512i next = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_maskz_expand_epi32(here, next));
      _mm_mask_storeu_epi8(names + i + 16 * quarter, here, bytes);
      at += _mm_popcnt_u32(uint16_t(bits));
    }
  }
  escaped = at;
  return merge_escapes_scalar(map, names + i, count - i, escaped, escaped_end);
}

}  // namespace tersor::entropy
