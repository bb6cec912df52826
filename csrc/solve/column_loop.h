// Chooses the codes of a grid column by column: what the columns chosen so far are off by moves the next one before it
// is rounded. One pass with the errors of earlier columns is GPTQ, which is LDLQ; passes with the errors of all others
// are cyclic coordinate descent on the same objective. Rows are independent of each other; sums run in a fixed order,
// with fused multiply-adds: the codes are the same on every machine and number of threads.
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
// read. Raises bad_type and bad_call as grid_fit does, and bad_call where the order is no permutation and where a
// factor is not finite.
void choose_codes(const Weights& weights, const formats::Grid& grid, const ColumnOrder& columns,
                  std::span<uint8_t> codes, int threads);
// codes: those to begin from. With factor[j][k] = H[j][k] / H[k][k] each takes in turn the value that is best for it
// while all others stay, so that e H e^T, e a row's errors, never rises but by what float32 rounds away. Returns how
// many codes changed in the last pass; a pass that changes none is the last. Raises what choose_codes raises, and
// bad_call for a code that is none of the grid's.
size_t improve_codes(const Weights& weights, const formats::Grid& grid, const ColumnOrder& columns, int passes,
                     std::span<uint8_t> codes, int threads);

}  // namespace tersor::solve
