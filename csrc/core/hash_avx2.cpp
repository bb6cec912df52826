// XXH3's stripe loop, four lanes a register. Compiled with -mavx2. Reference: hash_scalar.cpp, equal bit for bit.
#include <immintrin.h>

#include "core/hash.h"

namespace tersor {
namespace {

constexpr int kSwapHalves = _MM_SHUFFLE(1, 0, 3, 2), kHighToLow = _MM_SHUFFLE(2, 3, 0, 1);

static inline __m256i load(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

static inline __m256i accumulate(__m256i lanes, __m256i words, __m256i secret) {
  const __m256i keyed = _mm256_xor_si256(words, secret);
  const __m256i product = _mm256_mul_epu32(keyed, _mm256_shuffle_epi32(keyed, kHighToLow));
  return _mm256_add_epi64(_mm256_add_epi64(lanes, _mm256_shuffle_epi32(words, kSwapHalves)), product);
}

static inline __m256i scramble(__m256i lanes, __m256i secret) {
  const __m256i prime = _mm256_set1_epi64x(0x9e3779b1);
  const __m256i mixed = _mm256_xor_si256(_mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47)), secret);
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
  return _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
}

}  // namespace

void hash_stripes_avx2(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes, const uint8_t* secret) noexcept {
  auto* const state = reinterpret_cast<__m256i*>(lanes.data());
  __m256i a = _mm256_loadu_si256(state), b = _mm256_loadu_si256(state + 1);
  const uint8_t* at = stripes.data();
  size_t left = stripes.size() / 64;
  for (; left >= 16; left -= 16) {
    for (int stripe = 0; stripe < 16; ++stripe, at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(at + 512), _MM_HINT_T0);
      a = accumulate(a, load(at), load(secret + 8 * stripe));
      b = accumulate(b, load(at + 32), load(secret + 8 * stripe + 32));
    }
    a = scramble(a, load(secret + 128));
    b = scramble(b, load(secret + 160));
  }
  for (size_t stripe = 0; stripe < left; ++stripe, at += 64) {
    a = accumulate(a, load(at), load(secret + 8 * stripe));
    b = accumulate(b, load(at + 32), load(secret + 8 * stripe + 32));
  }
  _mm256_storeu_si256(state, a);
  _mm256_storeu_si256(state + 1, b);
}

}  // namespace tersor
