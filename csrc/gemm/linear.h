// y = x W^T + bias with W packed (packed.h). One driver for all formats: it owns blocking, threads and the epilogue.
#pragma once
#include <cstdint>
#include <span>

#include "core/array.h"
#include "gemm/packed.h"
#include "gemm/tokens.h"

namespace tersor::gemm {

// A matrix and the rows of x that it multiplies.
struct Product {
  const Packed* weights = nullptr;
  Matrix bias{DType::F32, nullptr, 1, 0};  // N numbers; data null: none
  const uint32_t* rows = nullptr;          // which rows of x, in the order of y's; null: all of them
  size_t row_count = 0;                    // how many; all where rows is null
  std::span<uint8_t> y;                    // row_count rows of N numbers
};

// Several matrices in one call, so that no thread waits between them: those of queries, keys and values on one x; the
// experts of a layer, each on rows of its own. x: [M, K], read once where it is read alike. The same bits on every ISA
// level (but where `exact`), for any number of threads, and for a row of x whatever else there is in the call. A row
// with a number that is not finite gives a row of NaN. Raises bad_type (dtypes), bad_call (K and N that differ from a
// packed matrix's, rows that x has not, a matrix that these activations do not serve).
void linear(const Matrix& x, std::span<const Product> products, Activations activations, DType y_dtype, int threads);

}  // namespace tersor::gemm
