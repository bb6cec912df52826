// Equals move_columns_scalar.cpp bit for bit.
#include <immintrin.h>

#include "solve/move_columns.h"

namespace tersor::solve {
namespace {

constexpr size_t kSomeRows = 16, kSomeColumns = 4;  // as many sums as registers hold

void move_some(const float* errors, const float* factor, size_t count, float* moved) noexcept {
  __m256 low[kSomeColumns], high[kSomeColumns];
#pragma GCC unroll 4
  for (size_t c = 0; c < kSomeColumns; ++c) {
    low[c] = _mm256_loadu_ps(moved + c * kLoopRows);
    high[c] = _mm256_loadu_ps(moved + c * kLoopRows + 8);
  }
  for (size_t j = 0; j < count; ++j, errors += kLoopRows, factor += kLoopColumns) {
    const __m256 first = _mm256_loadu_ps(errors), second = _mm256_loadu_ps(errors + 8);
#pragma GCC unroll 4
    for (size_t c = 0; c < kSomeColumns; ++c) {
      const __m256 by = _mm256_broadcast_ss(factor + c);
      low[c] = _mm256_fmadd_ps(first, by, low[c]);
      high[c] = _mm256_fmadd_ps(second, by, high[c]);
    }
  }
#pragma GCC unroll 4
  for (size_t c = 0; c < kSomeColumns; ++c) {
    _mm256_storeu_ps(moved + c * kLoopRows, low[c]);
    _mm256_storeu_ps(moved + c * kLoopRows + 8, high[c]);
  }
}

}  // namespace

void move_columns_avx2(const float* errors, const float* factor, size_t count, float* moved) noexcept {
  for (size_t r = 0; r < kLoopRows; r += kSomeRows)
    for (size_t c = 0; c < kLoopColumns; c += kSomeColumns)
      move_some(errors + r, factor + c, count, moved + c * kLoopRows + r);
}

}  // namespace tersor::solve
