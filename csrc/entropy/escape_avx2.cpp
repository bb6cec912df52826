// Escapes split and merged 32 symbols a step. Compiled with AVX2, no inline code of ours inside.
// Reference: escape_scalar.cpp, equal byte for byte.
#include <immintrin.h>

#include "entropy/escape.h"

namespace tersor::entropy {
namespace avx2 {
namespace {

// Shuffles of eight bytes, by the eight bits that say which of them are meant: to the front, and from there back.
struct Controls {
  alignas(64) unsigned char compress[256][8];
  alignas(64) unsigned char expand[256][8];
};
constexpr Controls make_controls() {
  Controls controls{};
  for (int bits = 0; bits < 256; ++bits)
    for (int lane = 0, next = 0; lane < 8; ++lane) {
      const bool meant = bits >> lane & 1;
      if (meant) controls.compress[bits][next] = (unsigned char)lane;
      controls.expand[bits][lane] = meant ? (unsigned char)next : 0x80;  // 0x80: a zero
      next += meant;
    }
  return controls;
}
constexpr Controls kControls = make_controls();

__attribute__((always_inline)) inline __m128i load64(const uint8_t* at) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
}

// 32 bytes of table, indices 0..31: where the second shuffle's index is negative it gives 0.
struct Table32 {
  __m256i low, difference;
  explicit Table32(const uint8_t* at) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16));
    low = _mm256_broadcastsi128_si256(first);
    difference = _mm256_broadcastsi128_si256(_mm_xor_si128(first, second));
  }
  __attribute__((always_inline)) __m256i operator()(__m256i index) const {
    const __m256i above = _mm256_sub_epi8(index, _mm256_set1_epi8(16));
    return _mm256_xor_si256(_mm256_shuffle_epi8(low, index), _mm256_shuffle_epi8(difference, above));
  }
};

}  // namespace
}  // namespace avx2

size_t split_escapes_avx2(const NameMap& map, const NameWindow& window, const uint8_t* symbols, size_t count,
                          uint8_t* names, uint8_t* escaped) noexcept {
  using namespace avx2;
  // Names outside of the window are looked up one by one.
  if (!window.most) return split_escapes_scalar(map, window, symbols, count, names, escaped);
  const Table32 name_of(window.name_of);
  const __m256i base = _mm256_set1_epi8(char(window.first)), escape = _mm256_set1_epi8(char(map.escape));
  const __m256i last = _mm256_set1_epi8(31);
  uint8_t* at = escaped;
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i symbol = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols + i));
    const __m256i index = _mm256_sub_epi8(symbol, base), near = _mm256_min_epu8(index, last);
    const __m256i name = _mm256_blendv_epi8(escape, name_of(near), _mm256_cmpeq_epi8(near, index));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(names + i), name);
    uint32_t bits = uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(name, escape)));
    if (!window.all)
      for (uint32_t outside = bits; outside; outside &= outside - 1) {
        const int lane = __builtin_ctz(outside);
        const size_t j = i + size_t(lane);
        names[j] = map.name_of[symbols[j]];
        bits &= ~(uint32_t(names[j] != map.escape) << lane);
      }
#pragma GCC unroll 4
    for (int eight = 0; eight < 4; ++eight, bits >>= 8) {
      const __m128i kept = _mm_shuffle_epi8(load64(symbols + i + 8 * eight), load64(kControls.compress[bits & 255]));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(at), kept);
      at += _mm_popcnt_u32(bits & 255);
    }
  }
  return size_t(at - escaped) + split_escapes_scalar(map, window, symbols + i, count - i, names + i, at);
}

bool merge_escapes_avx2(const NameMap& map, uint8_t* names, size_t count, const uint8_t*& escaped,
                        const uint8_t* escaped_end) noexcept {
  using namespace avx2;
  const Table32 symbol_of(map.symbol_of);
  const __m256i escape = _mm256_set1_epi8(char(map.escape)), low5 = _mm256_set1_epi8(31);
  const uint8_t* at = escaped;
  size_t i = 0;
  for (; i + 32 <= count && escaped_end - at >= 32; i += 32) {  // 32 escaped symbols may be read
    const __m256i name = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(names + i));
    const __m256i escapes = _mm256_cmpeq_epi8(name, escape);
    const __m256i symbol = _mm256_andnot_si256(escapes, symbol_of(_mm256_and_si256(name, low5)));
    const uint32_t bits = uint32_t(_mm256_movemask_epi8(escapes));
    const auto next = [&](int eight) __attribute__((always_inline)) {
      const uint32_t here = bits >> (8 * eight) & 255;
      const __m128i bytes = _mm_shuffle_epi8(load64(at), load64(kControls.expand[here]));
      at += _mm_popcnt_u32(here);
      return bytes;
    };
    const __m128i first = next(0), second = next(1), third = next(2), fourth = next(3);
    const __m256i taken = _mm256_set_m128i(_mm_unpacklo_epi64(third, fourth), _mm_unpacklo_epi64(first, second));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(names + i), _mm256_or_si256(symbol, taken));
  }
  escaped = at;
  return merge_escapes_scalar(map, names + i, count - i, escaped, escaped_end);
}

}  // namespace tersor::entropy
