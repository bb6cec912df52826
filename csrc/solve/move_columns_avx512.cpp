// Equals move_columns_scalar.cpp bit for bit.
#include <immintrin.h>

#include "solve/move_columns.h"

namespace tersor::solve {

// Two registers of rows times eight columns: each load of a factor serves two multiplications.
void move_columns_avx512(const float* errors, const float* factor, size_t count, float* moved) noexcept {
  __m512 low[kLoopColumns], high[kLoopColumns];
#pragma GCC unroll 8
  for (size_t c = 0; c < kLoopColumns; ++c) {
    low[c] = _mm512_loadu_ps(moved + c * kLoopRows);
    high[c] = _mm512_loadu_ps(moved + c * kLoopRows + 16);
  }
  for (size_t j = 0; j < count; ++j, errors += kLoopRows, factor += kLoopColumns) {
    const __m512 first = _mm512_loadu_ps(errors), second = _mm512_loadu_ps(errors + 16);
#pragma GCC unroll 8
    for (size_t c = 0; c < kLoopColumns; ++c) {
      const __m512 by = _mm512_set1_ps(factor[c]);
      low[c] = _mm512_fmadd_ps(first, by, low[c]);
      high[c] = _mm512_fmadd_ps(second, by, high[c]);
    }
  }
#pragma GCC unroll 8
  for (size_t c = 0; c < kLoopColumns; ++c) {
    _mm512_storeu_ps(moved + c * kLoopRows, low[c]);
    _mm512_storeu_ps(moved + c * kLoopRows + 16, high[c]);
  }
}

}  // namespace tersor::solve
