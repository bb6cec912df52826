// Experts of a layer: every token goes to some of E matrices of one shape, in one call of the driver.
#pragma once
#include <cstdint>
#include <span>

#include "gemm/linear.h"

namespace tersor::gemm {

struct Expert {
  const Packed* weights = nullptr;
  Matrix bias{DType::F32, nullptr, 1, 0};  // N numbers; data null: none
};

// y[m, s] = x[m] W^T + bias of expert chosen[m, s]. x: [M, K], chosen: [M, slots], y: [M, slots, N] of y_dtype. The
// same bits as `linear` gives, an expert at a time. Raises bad_call (experts of several shapes, one that there is not,
// sizes) and what linear raises.
void linear_experts(const Matrix& x, std::span<const Expert> experts, std::span<const int64_t> chosen,
                    Activations activations, DType y_dtype, std::span<uint8_t> y, int threads);

}  // namespace tersor::gemm
