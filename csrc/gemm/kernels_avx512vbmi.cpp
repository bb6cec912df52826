// 8-bit integers with VPDPBUSD; tables of up to 64 codes with VPERMB.
#include <immintrin.h>

#include "gemm/integer_tile_zmm.h"
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

__mmask16 front(size_t count) { return __mmask16(count >= 16 ? 0xffff : (1u << count) - 1); }

float quantize(const float* x, size_t columns, size_t padded, int8_t* out) noexcept {
  const __m512 most_finite = _mm512_set1_ps(__FLT_MAX__);
  __m512 most = _mm512_setzero_ps();
  __mmask16 odd = 0;
  for (size_t k = 0; k < columns; k += 16) {
    const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(front(columns - k), x + k));
    odd |= _mm512_cmp_ps_mask(size, most_finite, _CMP_NLE_UQ);
    most = _mm512_max_ps(most, size);
  }
  const float largest = _mm512_reduce_max_ps(most);
  float inverse = 0, scale = __builtin_nanf("");
  if (odd == 0) {
    inverse = largest == 0 ? 0 : 127 / largest;
    scale = largest / 127;
    if (!(inverse <= __FLT_MAX__)) inverse = 0;
    if (inverse == 0) scale = 0;
  }
  const __m512 by = _mm512_set1_ps(inverse);
  for (size_t k = 0; k < padded; k += 16) {
    const size_t left = k < columns && odd == 0 ? columns - k : 0;
    const __m512 steps = _mm512_mul_ps(_mm512_maskz_loadu_ps(front(left), x + k), by);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(steps)));
  }
  return scale;
}

void sum_groups(const int8_t* x, size_t columns, size_t group, int32_t* out) noexcept {
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

}  // namespace

const Kernels kAvx512VbmiKernels = {true, integer_tile, integer_panel, quantize, sum_groups};

}  // namespace tersor::gemm
