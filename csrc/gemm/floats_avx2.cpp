#include <immintrin.h>

#include "gemm/float_tile.h"

namespace tersor::gemm {
namespace {

struct Eight {
  using Type = __m256;
  static constexpr size_t kLanes = 8, kTokens = 2;

  static Type zero() noexcept { return _mm256_setzero_ps(); }
  static Type load(const float* at) noexcept { return _mm256_loadu_ps(at); }
  static void store(float* at, Type value) noexcept { _mm256_storeu_ps(at, value); }
  static Type broadcast(float value) noexcept { return _mm256_set1_ps(value); }
  static Type multiply_add(Type a, Type b, Type sum) noexcept { return _mm256_fmadd_ps(a, b, sum); }
  static __m256i words(const uint8_t* at) noexcept {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
  }
  static Type bytes(const uint8_t* at) noexcept { return _mm256_cvtepi32_ps(words(at)); }
  static Type numbers(PackedScale kind, const uint8_t* at, size_t j) noexcept {
    const auto halves = [&] { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at) + j); };
    switch (kind) {
      case PackedScale::f16: return _mm256_cvtph_ps(halves());
      case PackedScale::bf16: return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves()), 16));
      case PackedScale::e8m0:  // 2^-127 is no normal number
        return _mm256_castsi256_ps(
            _mm256_max_epu32(_mm256_slli_epi32(words(at + 8 * j), 23), _mm256_set1_epi32(0x00400000)));
      default: return _mm256_loadu_ps(reinterpret_cast<const float*>(at) + 8 * j);
    }
  }
  static const float* table(int, const float* levels) noexcept { return levels; }
  static Type levels(int, const float* table, const uint8_t* bytes, int byte) noexcept {
    const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m256i codes =
        _mm256_and_si256(_mm256_srlv_epi32(four, _mm256_set1_epi32(8 * byte)), _mm256_set1_epi32(255));
    return _mm256_i32gather_ps(table, codes, 4);
  }
};

}  // namespace

const FloatKernels kAvx2FloatKernels = {float_tile<Eight>, float_levels<Eight>};

}  // namespace tersor::gemm
