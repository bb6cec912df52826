// Floats cut and joined 32 words a step. Compiled with AVX2, no inline code of ours inside.
// Reference: float_split_scalar.cpp, equal byte for byte.
#include <immintrin.h>

#include "transform/float_split.h"

namespace tersor::transform {
namespace avx2 {
namespace {

__attribute__((always_inline)) inline __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}
__attribute__((always_inline)) inline void store(void* at, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), value);
}
// Packing works within 128-bit halves, which leaves the second and third quarter exchanged.
__attribute__((always_inline)) inline __m256i in_order(__m256i packed) {
  return _mm256_permute4x64_epi64(packed, 0xd8);
}

// Results go to memory that is often cold, and these loops are too short for the processor to look far enough ahead.
__attribute__((always_inline)) inline void prefetch_ahead(const void* target) {
  _mm_prefetch(static_cast<const char*>(target) + 2048, _MM_HINT_T0);
}

}  // namespace
}  // namespace avx2

size_t split_words_avx2(const FloatSplit& split, const uint16_t* words, size_t count, uint8_t* names, uint8_t* rest,
                        uint16_t* escaped) noexcept {
  using namespace avx2;
  const int low_bits = 7 - split.extra_bits;
  const __m128i low = _mm_cvtsi32_si128(low_bits), sign_down = _mm_cvtsi32_si128(15 - low_bits);
  const __m256i window = _mm256_set1_epi16(short(split.window)), special = _mm256_set1_epi16(short(split.special));
  const __m256i magnitude = _mm256_set1_epi16(0x7fff), low_mask = _mm256_set1_epi16(short((1 << low_bits) - 1));
  const __m256i sign = _mm256_set1_epi16(short(1 << low_bits)), escape = _mm256_set1_epi16(kEscapeName);
  const __m256i special_name = _mm256_set1_epi16(kSpecialName), last = _mm256_set1_epi16(kWindow - 1);
  uint16_t* at = escaped;
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    __m256i name[2], tail[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i word = load(words + i + 16 * half);
      const __m256i key = _mm256_srl_epi16(_mm256_and_si256(word, magnitude), low);
      const __m256i place = _mm256_sub_epi16(key, window);
      const __m256i inside = _mm256_cmpeq_epi16(_mm256_min_epu16(place, last), place);
      const __m256i outside = _mm256_blendv_epi8(escape, special_name, _mm256_cmpeq_epi16(key, special));
      name[half] = _mm256_blendv_epi8(outside, place, inside);
      tail[half] =
          _mm256_or_si256(_mm256_and_si256(word, low_mask), _mm256_and_si256(_mm256_srl_epi16(word, sign_down), sign));
    }
    const __m256i bytes = in_order(_mm256_packus_epi16(name[0], name[1]));
    store(names + i, bytes);
    store(rest + i, in_order(_mm256_packus_epi16(tail[0], tail[1])));
    uint32_t bits = uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(kEscapeName))));
    for (; bits; bits &= bits - 1) {
      unsigned short one;
      __builtin_memcpy(&one, words + i + size_t(__builtin_ctz(bits)), 2);
      *at++ = (unsigned short)((one & 0x7fff) >> low_bits);
    }
  }
  return size_t(at - escaped) + split_words_scalar(split, words + i, count - i, names + i, rest + i, at);
}

bool merge_words_avx2(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, size_t count, uint16_t* words,
                      const uint16_t*& escaped, const uint16_t* escaped_end) noexcept {
  using namespace avx2;
  const int low_bits = 7 - split.extra_bits;
  const __m128i low = _mm_cvtsi32_si128(low_bits), sign_up = _mm_cvtsi32_si128(15 - low_bits);
  const __m256i magnitude = _mm256_set1_epi16(0x7fff), low_mask = _mm256_set1_epi16(short((1 << low_bits) - 1));
  const __m256i window = _mm256_set1_epi16(short(split.window)), special = _mm256_set1_epi16(short(split.special));
  const __m256i special_name = _mm256_set1_epi16(kSpecialName), escape = _mm256_set1_epi8(kEscapeName);
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const uint32_t escapes = uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(load(names + i), escape)));
    prefetch_ahead(words + i);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const auto widen = [&](const uint8_t* from) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + 16 * half)));
      };
      const __m256i n = widen(names), r = widen(rest);
      const __m256i key = _mm256_blendv_epi8(_mm256_add_epi16(window, n), special, _mm256_cmpeq_epi16(n, special_name));
      const __m256i upper = _mm256_and_si256(_mm256_sll_epi16(key, low), magnitude);
      const __m256i top = _mm256_andnot_si256(magnitude, _mm256_sll_epi16(r, sign_up));
      store(words + i + 16 * half, _mm256_or_si256(_mm256_or_si256(upper, top), _mm256_and_si256(r, low_mask)));
    }
    for (uint32_t bits = escapes; bits; bits &= bits - 1) {
      if (escaped == escaped_end) return false;
      const size_t j = i + size_t(__builtin_ctz(bits));
      const unsigned r = rest[j], key = *escaped++;
      const unsigned short word =
          (unsigned short)((key << low_bits & 0x7fff) | (r >> low_bits & 1) << 15 | (r & ((1u << low_bits) - 1)));
      __builtin_memcpy(words + j, &word, 2);
    }
  }
  return merge_words_scalar(split, names + i, rest + i, count - i, words + i, escaped, escaped_end);
}

void split32_avx2(const uint32_t* words, size_t count, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept {
  using namespace avx2;
  const __m256i low_byte = _mm256_set1_epi16(255);
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    __m256i low[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i a = load(words + i + 16 * half), b = load(words + i + 16 * half + 8);
      const __m256i high = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
      store(upper + i + 16 * half, in_order(high));
      low[half] = _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);  // words of a and b in turn
    }
    // Bytes a0 b0 a1 b1 ...: split by byte first, then brought from turns into order within each quarter.
    const __m256i turns = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7,
                                           8, 10, 12, 14, 9, 11, 13, 15);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const auto together = [&](__m256i first, __m256i second) {
      return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(_mm256_packus_epi16(first, second), turns), order);
    };
    store(byte1 + i, together(_mm256_srli_epi16(low[0], 8), _mm256_srli_epi16(low[1], 8)));
    store(byte0 + i, together(_mm256_and_si256(low[0], low_byte), _mm256_and_si256(low[1], low_byte)));
  }
  split32_scalar(words + i, count - i, upper + i, byte1 + i, byte0 + i);
}

void merge32_avx2(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, size_t count,
                  uint32_t* words) noexcept {
  using namespace avx2;
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(byte1 + i)));
    const __m256i c = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(byte0 + i)));
    const __m256i low = _mm256_or_si256(_mm256_slli_epi16(b, 8), c), high = load(upper + i);
    const __m256i first = _mm256_unpacklo_epi16(low, high), second = _mm256_unpackhi_epi16(low, high);
    prefetch_ahead(words + i);
    store(words + i, _mm256_permute2x128_si256(first, second, 0x20));
    store(words + i + 8, _mm256_permute2x128_si256(first, second, 0x31));
  }
  merge32_scalar(upper + i, byte1 + i, byte0 + i, count - i, words + i);
}

// Shifts of 16-bit elements serve bytes, since what crosses into the neighbor is masked away.
void pack_rest_avx2(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  using namespace avx2;
  const int kept = 8 - extra_bits, runs = extra_bits == 1 ? 7 : 3;
  const __m256i free = _mm256_set1_epi8(char(0xff << kept));
  for (; blocks > 0; --blocks, from += 64 * (runs + 1), to += 64 * runs)
    for (int half = 0; half < 64; half += 32) {
      // The run's share of `dealt`, moved from bit run * extra_bits up to bit kept.
      const __m256i dealt = load(from + 64 * runs + half);
      for (int run = 0; run < runs; ++run) {
        const int up = kept - run * extra_bits;
        const __m256i share =
            up >= 0 ? _mm256_sll_epi16(dealt, _mm_cvtsi32_si128(up)) : _mm256_srl_epi16(dealt, _mm_cvtsi32_si128(-up));
        store(to + 64 * run + half, _mm256_or_si256(load(from + 64 * run + half), _mm256_and_si256(share, free)));
      }
    }
}

void unpack_rest_avx2(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  using namespace avx2;
  const int kept = 8 - extra_bits, runs = extra_bits == 1 ? 7 : 3;
  const __m256i low = _mm256_set1_epi8(char((1 << kept) - 1));
  for (; blocks > 0; --blocks, from += 64 * runs, to += 64 * (runs + 1))
    for (int half = 0; half < 64; half += 32) {
      __m256i dealt = _mm256_setzero_si256();
      for (int run = 0; run < runs; ++run) {
        const __m256i packed = load(from + 64 * run + half);
        const int up = kept - run * extra_bits;
        const __m256i share = _mm256_andnot_si256(low, packed);
        const __m256i back =
            up >= 0 ? _mm256_srl_epi16(share, _mm_cvtsi32_si128(up)) : _mm256_sll_epi16(share, _mm_cvtsi32_si128(-up));
        dealt = _mm256_or_si256(dealt, back);
        store(to + 64 * run + half, _mm256_and_si256(packed, low));
      }
      store(to + 64 * runs + half, dealt);
    }
}

}  // namespace tersor::transform
