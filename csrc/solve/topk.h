// Which numbers of a row are the largest. What sparse formats and outliers keep.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::solve {

// mask[n, k] = 1 for the `keep` numbers of largest magnitude of each `span` columns of a row, of which the last may be
// fewer, else 0; of equal magnitudes the first. Raises bad_call for a span of 0, sizes that differ and NaN.
void keep_largest(std::span<const float> numbers, size_t columns, size_t span, size_t keep, std::span<uint8_t> mask,
                  int threads);

}  // namespace tersor::solve
