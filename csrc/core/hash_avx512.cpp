// XXH3's stripe loop, all eight lanes in one register. Compiled with -mavx512f. Reference: hash_scalar.cpp, equal bit
// for bit.
#include <immintrin.h>

#include "core/hash.h"

namespace tersor {
namespace {

static inline __m512i load(const uint8_t* at) { return _mm512_loadu_si512(at); }

static inline __m512i accumulate(__m512i lanes, __m512i words, __m512i secret) {
  const __m512i keyed = _mm512_xor_si512(words, secret);
  const __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
  return _mm512_add_epi64(_mm512_add_epi64(lanes, _mm512_shuffle_epi32(words, _MM_PERM_BADC)), product);
}

}  // namespace

void hash_stripes_avx512(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes,
                         const uint8_t* secret) noexcept {
  const __m512i prime = _mm512_set1_epi64(0x9e3779b1);
  __m512i state = _mm512_loadu_si512(lanes.data());
  const uint8_t* at = stripes.data();
  size_t left = stripes.size() / 64;
  for (; left >= 16; left -= 16) {
    for (int stripe = 0; stripe < 16; ++stripe, at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(at + 1024), _MM_HINT_T0);
      state = accumulate(state, load(at), load(secret + 8 * stripe));
    }
    const __m512i mixed = _mm512_ternarylogic_epi64(state, _mm512_srli_epi64(state, 47), load(secret + 128), 0x96);
    const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
    state = _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64(high, 32));
  }
  for (size_t stripe = 0; stripe < left; ++stripe, at += 64) {
    state = accumulate(state, load(at), load(secret + 8 * stripe));
  }
  _mm512_storeu_si512(lanes.data(), state);
}

}  // namespace tersor
