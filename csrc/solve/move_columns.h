// The kernel of column_loop.h. Files of several levels include this: nothing here is inline.
#pragma once
#include <cstddef>

namespace tersor::solve {

inline constexpr size_t kLoopRows = 32, kLoopColumns = 8;  // rows that are solved, and columns that are moved, at once

// moved[c][r] += sum over j of errors[j][r] * factor[j][c], j rising, with fused multiply-adds: [8][32], [count][32],
// [count][8]. All levels give the same bits.
using MoveColumns = void(const float* errors, const float* factor, size_t count, float* moved) noexcept;
MoveColumns move_columns_scalar, move_columns_avx2, move_columns_avx512;

}  // namespace tersor::solve
