// Chooses the codes of a grid column by column: what the columns chosen so far are off by moves the next one before it
// is rounded. One pass with the errors of earlier columns is GPTQ, which is LDLQ; passes with the errors of all others
// are cyclic coordinate descent on the same objective. Rows are independent of each other; sums run over columns in
// order, with fused multiply-adds: the codes are the same on every machine and number of threads.
// Sources: Frantar et al., GPTQ, ICLR 2023; Chee et al., QuIP, NeurIPS 2023 (theorem 6: LDLQ is GPTQ); Behdin et al.,
// QuantEase, arXiv:2309.01885.
#pragma once
#include <cstdint>
#include <span>

#include "formats/grid.h"
#include "solve/grid_fit.h"

namespace tersor::solve {

struct ColumnOrder {
  // [columns][columns], row-major: how far an error of the column in place j moves the one in place k. One pass reads
  // only j < k, more passes all but j = k.
  std::span<const float> factor;
  std::span<const uint32_t> order;  // the column in each place; empty: as they stand
};

// codes: [rows][columns], a byte each. grid: numbers and levels, which decide what a code is worth; its codes are not
// read. Raises bad_type and bad_call as grid_fit does, and bad_call where the order is no permutation.
void choose_codes(const Weights& weights, const formats::Grid& grid, const ColumnOrder& columns,
                  std::span<uint8_t> codes, int threads);
// codes: those to begin from. An element of a pass takes the code that is best for it while all others stay as they
// are, so that the objective never rises. Returns how many codes changed in the last pass, which is the first that
// changed none if there is one.
size_t improve_codes(const Weights& weights, const formats::Grid& grid, const ColumnOrder& columns, int passes,
                     std::span<uint8_t> codes, int threads);

// Rows that are solved at once, and columns that are moved at once.
inline constexpr size_t kLoopRows = 32, kLoopColumns = 8;

// moved[c][r] += sum over j of errors[j][r] * factor[j][c], j rising: [8][32], [count][32], [count][8].
using MoveColumns = void(const float* errors, const float* factor, size_t count, float* moved) noexcept;
MoveColumns move_columns_scalar, move_columns_avx2, move_columns_avx512;

}  // namespace tersor::solve
