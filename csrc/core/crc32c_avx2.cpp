// The crc32 instruction answers after three cycles but starts one a cycle: three streams run side by side and a
// carry-less product moves each state over the bytes that follow it. Compiled with -msse4.2 -mpclmul.
// Reference: crc32c_scalar.cpp, equal bit for bit.
#include <immintrin.h>
#include <string.h>

#include "core/crc32c.h"

namespace tersor {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;

// x^power mod P, reflected.
constexpr uint32_t power_of_x(unsigned power) {
  uint32_t value = 0x80000000;
  for (; power > 0; --power) value = value >> 1 ^ (value & 1 ? kPolynomial : 0);
  return value;
}

static inline uint64_t word_at(const uint8_t* at) {
  uint64_t word;
  memcpy(&word, at, sizeof word);
  return word;
}

// state * x^(8 * bytes), for key = x^(8 * bytes - 33): the product of two reflected numbers comes out times x, and the
// crc32 instruction that reduces it multiplies by x^32.
static inline uint64_t moved(uint64_t state, uint32_t key) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(int64_t(state)), _mm_cvtsi32_si128(int32_t(key)), 0);
  return _mm_crc32_u64(0, uint64_t(_mm_cvtsi128_si64(product)));
}

template <unsigned kStream>
static inline const uint8_t* three_streams(const uint8_t* at, const uint8_t* end, uint64_t& state) {
  constexpr uint32_t one = power_of_x(8 * kStream - 33), two = power_of_x(16 * kStream - 33);
  uint64_t a = state;
  while (end - at >= 3 * ptrdiff_t(kStream)) {
    uint64_t b = 0, c = 0;
    for (unsigned i = 0; i < kStream; i += 8) {
      a = _mm_crc32_u64(a, word_at(at + i));
      b = _mm_crc32_u64(b, word_at(at + kStream + i));
      c = _mm_crc32_u64(c, word_at(at + 2 * kStream + i));
    }
    a = moved(a, two) ^ moved(b, one) ^ c;
    at += 3 * kStream;
  }
  state = a;
  return at;
}

}  // namespace

uint32_t crc32c_avx2(std::span<const uint8_t> data, uint32_t initial) noexcept {
  const uint8_t* at = data.data();
  const uint8_t* const end = at + data.size();
  uint64_t state = initial;
  at = three_streams<4096>(at, end, state);
  at = three_streams<256>(at, end, state);
  for (; end - at >= 8; at += 8) state = _mm_crc32_u64(state, word_at(at));
  for (; at < end; ++at) state = _mm_crc32_u8(uint32_t(state), *at);
  return uint32_t(state);
}

}  // namespace tersor
