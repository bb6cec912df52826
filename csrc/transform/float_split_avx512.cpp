// Floats cut and joined 32 words a step. Compiled with AVX-512 BW, no inline code of ours inside.
// Reference: float_split_scalar.cpp, equal byte for byte.
#include <immintrin.h>

#include "transform/float_split.h"

namespace tersor::transform {

// Results go to memory that is often cold, and these loops are too short for the processor to look far enough ahead.
static __attribute__((always_inline)) inline void prefetch_ahead(const void* target) {
  _mm_prefetch(static_cast<const char*>(target) + 2048, _MM_HINT_T0);
}

size_t split_words_avx512(const FloatSplit& split, const uint16_t* words, size_t count, uint8_t* names, uint8_t* rest,
                          uint16_t* escaped) noexcept {
  const int low_bits = 7 - split.extra_bits;
  const __m128i low = _mm_cvtsi32_si128(low_bits), sign_down = _mm_cvtsi32_si128(15 - low_bits);
  const __m512i window = _mm512_set1_epi16(short(split.window)), special = _mm512_set1_epi16(short(split.special));
  const __m512i magnitude = _mm512_set1_epi16(0x7fff), low_mask = _mm512_set1_epi16(short((1 << low_bits) - 1));
  const __m512i sign = _mm512_set1_epi16(short(1 << low_bits)), escape = _mm512_set1_epi16(kEscapeName);
  uint16_t* at = escaped;
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512i word = _mm512_loadu_si512(words + i);
    const __m512i key = _mm512_srl_epi16(_mm512_and_si512(word, magnitude), low);
    const __m512i place = _mm512_sub_epi16(key, window);
    const __mmask32 inside = _mm512_cmplt_epu16_mask(place, _mm512_set1_epi16(kWindow));
    __m512i name =
        _mm512_mask_mov_epi16(escape, _mm512_cmpeq_epi16_mask(key, special), _mm512_set1_epi16(kSpecialName));
    name = _mm512_mask_mov_epi16(name, inside, place);
    // 0xEA: (a & b) | c
    const __m512i tail =
        _mm512_ternarylogic_epi32(word, low_mask, _mm512_and_si512(_mm512_srl_epi16(word, sign_down), sign), 0xEA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(names + i), _mm512_cvtepi16_epi8(name));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rest + i), _mm512_cvtepi16_epi8(tail));
    uint32_t bits = _cvtmask32_u32(_mm512_cmpeq_epi16_mask(name, escape));
    for (; bits; bits &= bits - 1) {
      unsigned short one;
      __builtin_memcpy(&one, words + i + size_t(__builtin_ctz(bits)), 2);
      *at++ = (unsigned short)((one & 0x7fff) >> low_bits);
    }
  }
  return size_t(at - escaped) + split_words_scalar(split, words + i, count - i, names + i, rest + i, at);
}

bool merge_words_avx512(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, size_t count,
                        uint16_t* words, const uint16_t*& escaped, const uint16_t* escaped_end) noexcept {
  const int low_bits = 7 - split.extra_bits;
  const __m128i low = _mm_cvtsi32_si128(low_bits), sign_up = _mm_cvtsi32_si128(15 - low_bits);
  const __m512i magnitude = _mm512_set1_epi16(0x7fff), low_mask = _mm512_set1_epi16(short((1 << low_bits) - 1));
  // All 32 names' keys in place, so that a word is one look-up; the escape's is filled in behind.
  const __m512i iota = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12,
                                        11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m512i keys = _mm512_add_epi16(_mm512_set1_epi16(short(split.window)), iota);
  keys = _mm512_mask_set1_epi16(keys, 1u << kSpecialName, short(split.special));
  keys = _mm512_and_si512(_mm512_sll_epi16(keys, low), magnitude);
  const __m512i escape = _mm512_set1_epi8(kEscapeName);
  size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const __m512i name = _mm512_loadu_si512(names + i);
    const __mmask64 escapes = _mm512_cmpeq_epi8_mask(name, escape);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i n =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(names + i + 32 * half)));
      const __m512i r =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rest + i + 32 * half)));
      // 0xEC: (a & c) | b
      const __m512i word = _mm512_ternarylogic_epi32(r, _mm512_permutexvar_epi16(n, keys), low_mask, 0xEC);
      const __m512i top = _mm512_andnot_si512(magnitude, _mm512_sll_epi16(r, sign_up));
      prefetch_ahead(words + i + 32 * half);
      _mm512_storeu_si512(words + i + 32 * half, _mm512_or_si512(word, top));
    }
    for (uint64_t bits = _cvtmask64_u64(escapes); bits; bits &= bits - 1) {
      if (escaped == escaped_end) return false;
      const size_t j = i + size_t(__builtin_ctzll(bits));
      const unsigned r = rest[j], key = *escaped++;
      const unsigned short word =
          (unsigned short)((key << low_bits & 0x7fff) | (r >> low_bits & 1) << 15 | (r & ((1u << low_bits) - 1)));
      __builtin_memcpy(words + j, &word, 2);
    }
  }
  return merge_words_scalar(split, names + i, rest + i, count - i, words + i, escaped, escaped_end);
}

void split32_avx512(const uint32_t* words, size_t count, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512i word = _mm512_loadu_si512(words + i);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(upper + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(word, 16)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(byte1 + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(word, 8)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(byte0 + i), _mm512_cvtepi32_epi8(word));
  }
  split32_scalar(words + i, count - i, upper + i, byte1 + i, byte0 + i);
}

void merge32_avx512(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, size_t count,
                    uint32_t* words) noexcept {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(upper + i)));
    const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(byte1 + i)));
    const __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(byte0 + i)));
    // 0xFE: a | b | c
    const __m512i word = _mm512_ternarylogic_epi32(_mm512_slli_epi32(a, 16), _mm512_slli_epi32(b, 8), c, 0xFE);
    prefetch_ahead(words + i);
    _mm512_storeu_si512(words + i, word);
  }
  merge32_scalar(upper + i, byte1 + i, byte0 + i, count - i, words + i);
}

// Shifts of 16-bit elements serve bytes, since what crosses into the neighbor is masked away.
void pack_rest_avx512(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  const int kept = 8 - extra_bits, runs = extra_bits == 1 ? 7 : 3;
  const __m512i free = _mm512_set1_epi8(char(0xff << kept));
  for (; blocks > 0; --blocks, from += 64 * (runs + 1), to += 64 * runs) {
    // The run's share of `dealt`, moved from bit run * extra_bits up to bit kept.
    const __m512i dealt = _mm512_loadu_si512(from + 64 * runs);
    for (int run = 0; run < runs; ++run) {
      const int up = kept - run * extra_bits;
      const __m512i share =
          up >= 0 ? _mm512_sll_epi16(dealt, _mm_cvtsi32_si128(up)) : _mm512_srl_epi16(dealt, _mm_cvtsi32_si128(-up));
      // 0xF8: a | (b & c)
      _mm512_storeu_si512(to + 64 * run,
                          _mm512_ternarylogic_epi32(_mm512_loadu_si512(from + 64 * run), share, free, 0xF8));
    }
  }
}

void unpack_rest_avx512(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  const int kept = 8 - extra_bits, runs = extra_bits == 1 ? 7 : 3;
  const __m512i low = _mm512_set1_epi8(char((1 << kept) - 1));
  for (; blocks > 0; --blocks, from += 64 * runs, to += 64 * (runs + 1)) {
    __m512i dealt = _mm512_setzero_si512();
    for (int run = 0; run < runs; ++run) {
      const __m512i packed = _mm512_loadu_si512(from + 64 * run);
      const int up = kept - run * extra_bits;
      const __m512i share = _mm512_andnot_si512(low, packed);
      const __m512i back =
          up >= 0 ? _mm512_srl_epi16(share, _mm_cvtsi32_si128(up)) : _mm512_sll_epi16(share, _mm_cvtsi32_si128(-up));
      dealt = _mm512_or_si512(dealt, back);
      _mm512_storeu_si512(to + 64 * run, _mm512_and_si512(packed, low));
    }
    _mm512_storeu_si512(to + 64 * runs, dealt);
  }
}

}  // namespace tersor::transform
