// 256-bit integers: VPMADDUBSW, or VPDPBUSD in both of its codings.
#include "gemm/integer_tile_x86.h"
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

// x[0..7], 0 from x[count] on, which is not read.
__m256 front(const float* x, size_t count) {
  if (count >= 8) return _mm256_loadu_ps(x);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(x, _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), lanes));
}

float quantize(const float* x, size_t columns, size_t padded, int8_t* out) noexcept {
  const __m256 most_finite = _mm256_set1_ps(__FLT_MAX__), sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
  for (size_t k = 0; k < columns; k += 8) {
    const __m256 size = _mm256_andnot_ps(sign, front(x + k, columns - k));
    odd = _mm256_or_ps(odd, _mm256_cmp_ps(size, most_finite, _CMP_NLE_UQ));
    most = _mm256_max_ps(most, size);
  }
  float sizes[8], largest = 0;
  _mm256_storeu_ps(sizes, most);
  for (const float size : sizes) largest = size > largest ? size : largest;
  const bool finite = _mm256_movemask_ps(odd) == 0;
  float inverse = 0, scale = __builtin_nanf("");
  if (finite) {
    inverse = largest == 0 ? 0 : 127 / largest;
    scale = largest / 127;
    if (!(inverse <= __FLT_MAX__)) inverse = 0;
    if (inverse == 0) scale = 0;
  }
  const __m256 by = _mm256_set1_ps(inverse);
  const auto eight = [&](size_t k) {
    const size_t left = k < columns && finite ? columns - k : 0;
    return _mm256_cvtps_epi32(_mm256_mul_ps(front(x + k, left), by));
  };
  for (size_t k = 0; k < padded; k += 16) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(eight(k), eight(k + 8)), 0xd8);
    const __m128i sixteen = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), sixteen);
  }
  return scale;
}

}  // namespace

void sum_groups_avx2(const int8_t* x, size_t columns, size_t group, int32_t* out) noexcept {
  // The sum of x + 128 as bytes, less what the 128s come to.
  const __m128i sign = _mm_set1_epi8(char(0x80));
  for (size_t first = 0; first < columns; first += group) {
    const size_t end = first + group < columns ? first + group : columns;
    __m128i sums = _mm_setzero_si128();
    for (size_t k = first; k < end; k += 16) {
      const __m128i sixteen = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k)), sign);
      sums = _mm_add_epi64(sums, _mm_sad_epu8(sixteen, _mm_setzero_si128()));
    }
    const int64_t whole = _mm_cvtsi128_si64(sums) + _mm_extract_epi64(sums, 1);
    *out++ = int32_t(whole - int64_t(end - first) * 128);
  }
}

const Kernels kAvx2Kernels = {kTileWidths, 0, integer_tile<Pairs>, integer_panel, quantize, sum_groups_avx2};
const Kernels kAvx2VnniKernels = {kTileWidths, 0, integer_tile<FoursVex>, integer_panel, quantize, sum_groups_avx2};
const Kernels kAvx2Avx512VnniKernels = {kTileWidths, 0, integer_tile<Fours>, integer_panel, quantize, sum_groups_avx2};

}  // namespace tersor::gemm
