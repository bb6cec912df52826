// Rows of a matrix under a randomized Hadamard rotation, in blocks where their length has no Hadamard matrix that we
// know. Orthonormal: what one direction does the other undoes but for the rounding of float32. Sums are in a fixed
// order, so that the floats are the same on every machine and number of threads. Page: docs/formats/hadamard.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace tersor::transform {

// How rows of so many columns are cut: `blocks` of 2^k times `factor`, which is 1, 12, 20 or 28.
struct HadamardLayout {
  size_t block = 1, factor = 1;
  explicit HadamardLayout(size_t columns);  // bad_call for 0
};

// The sign of a column: -1 where the top bit of a hash of seed and column is set.
float hadamard_sign(uint64_t seed, size_t column) noexcept;

// Entries of the factor's matrix, row-major, -1 and 1; bad_call for an order that is none of 12, 20, 28.
std::span<const int8_t> hadamard_factor(size_t order);

// Each row in place. matrix: whole rows of `columns`, else bad_call. seed: nothing for no signs. inverse: transposed.
void hadamard(std::span<float> matrix, size_t columns, std::optional<uint64_t> seed, bool inverse, int threads);

}  // namespace tersor::transform
