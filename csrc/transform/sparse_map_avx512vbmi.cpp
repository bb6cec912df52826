// A register of values at a time: VBMI2 and AVX-512 spread what was loaded over the lanes that the map names.
#include <immintrin.h>

#include "transform/sparse_map.h"

namespace tersor::transform {
namespace avx512vbmi {

static inline __m512i spread(uint64_t bits, __m512i from, const uint8_t*) {
  return _mm512_maskz_expand_epi8(bits, from);
}
static inline __m512i spread(uint64_t bits, __m512i from, const uint16_t*) {
  return _mm512_maskz_expand_epi16(__mmask32(bits), from);
}
static inline __m512i spread(uint64_t bits, __m512i from, const uint32_t*) {
  return _mm512_maskz_expand_epi32(__mmask16(bits), from);
}
static inline __m512i spread(uint64_t bits, __m512i from, const uint64_t*) {
  return _mm512_maskz_expand_epi64(__mmask8(bits), from);
}

template <class U>
static void fill(const uint8_t* map, const U* others, std::span<U> values) noexcept {
  constexpr size_t kLanes = 64 / sizeof(U);
  const size_t n = values.size();
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, map + i / 8, kLanes / 8);
    _mm512_storeu_si512(values.data() + i, spread(bits, _mm512_loadu_si512(others), others));
    others += _mm_popcnt_u64(bits);
  }
  fill_sparse_scalar(map + i / 8, others, values.subspan(i));
}

}  // namespace avx512vbmi

#define TERSOR_FOR(U)                                                                              \
  void fill_sparse_avx512vbmi(const uint8_t* map, const U* others, std::span<U> values) noexcept { \
    avx512vbmi::fill(map, others, values);                                                         \
  }
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
