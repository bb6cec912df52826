// Columns of a matrix in another order: exact. Page: docs/formats/hadamard.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::transform {

// Raises bad_data unless each of 0, 1, ... stands in `order` once.
void check_permutation(std::span<const uint32_t> order);

// out[n, k] = matrix[n, order[k]], and where `inverse`, out[n, order[k]] = matrix[n, k]. The two do not overlap; both
// hold whole rows of order.size(), else bad_call. Raises what check_permutation does.
void permute_columns(std::span<const float> matrix, std::span<const uint32_t> order, bool inverse, std::span<float> out,
                     int threads);

}  // namespace tersor::transform
