// y = x W^T + bias with W packed (packed.h). One driver for all formats: it owns blocking, threads and the epilogue.
#pragma once
#include <cstdint>
#include <span>

#include "core/array.h"
#include "gemm/packed.h"

namespace tersor::gemm {

// How x is read. Numbers are those of a QuantizedTensor's `activations`.
enum class Activations : uint8_t {
  int8,       // 8 bits, one scale a token: the largest |x| / 127
  int8_g128,  // one a token and 128 columns
};

// Row-major, rows end to end, of F32, F16 or BF16.
struct Matrix {
  DType dtype;
  const uint8_t* data;
  size_t rows, columns;
};

// x: [M, K]. bias: N numbers or none. y: M * N numbers. The same bits on every ISA level, for any number of threads,
// and for a token whatever other tokens there are. A token with a number that is not finite gives a row of NaN. Raises
// bad_type (dtypes), bad_call (K and N that differ from the packed matrix's, one that int8 arithmetic does not read).
void linear(const Matrix& x, const Packed& weights, const Matrix& bias, Activations activations, DType y_dtype,
            std::span<uint8_t> y, int threads);

}  // namespace tersor::gemm
