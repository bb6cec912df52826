// 512-bit integers: VPMADDUBSW, or VPDPBUSD where the machine has it (Cascade Lake).
#include "gemm/integer_tile_x86.h"
#include "gemm/kernels.h"

namespace tersor::gemm {

static __mmask16 front(size_t count) { return __mmask16(count >= 16 ? 0xffff : (1u << count) - 1); }

float quantize_avx512(const float* x, size_t columns, size_t padded, int8_t* out) noexcept {
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

const Kernels kAvx512Kernels = {kTileWidths, 0, integer_tile<Pairs>, integer_panel, quantize_avx512, sum_groups_avx2};
const Kernels kAvx512VnniKernels = {kTileWidths,    0, integer_tile<Fours>, integer_panel, quantize_avx512,
                                    sum_groups_avx2};

}  // namespace tersor::gemm
