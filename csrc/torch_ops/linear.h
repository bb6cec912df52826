// Operators of the low-bit linear layer. A packed matrix is what tersor.gemm.PackedMatrix holds: uint8 [bytes], from a
// multiple of 64 bytes on. It does not tell its shape to a tracer, so calls name it. x: F32, F16 or BF16, any strides;
// bias: of these dtypes, N numbers, or empty. activations: a number of gemm::Activations.
#pragma once
#include <cstdint>

namespace tersor::torch_ops {

// x: [..., K]; rows: N. Returns [..., N] of x's dtype.
inline constexpr const char* kLinearSchema =
    "linear(Tensor x, Tensor packed, Tensor bias, int rows, int activations) -> Tensor";
void linear_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);
// The same without a gradient, which is written in Python and costs 5 us a call also where nobody asks for one.
inline constexpr const char* kLinearForwardSchema =
    "linear_forward(Tensor x, Tensor packed, Tensor bias, int rows, int activations) -> Tensor";

// Several matrices on one x; bias and rows: one each.
inline constexpr const char* kLinearManySchema =
    "linear_many(Tensor x, Tensor[] packed, Tensor[] bias, int[] rows, int activations) -> Tensor[]";
void linear_many_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

// x: [..., K]; bias: none, or one an expert; experts: int32 or int64 [..., slots]. Returns [..., slots, N].
inline constexpr const char* kLinearExpertsSchema =
    "linear_experts(Tensor x, Tensor[] packed, Tensor[] bias, Tensor experts, int rows, int activations) -> Tensor";
void linear_experts_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

// ids: int32 or int64, any shape; columns: K. Returns [*ids.shape, K] of dtype.
inline constexpr const char* kPackedRowsSchema =
    "packed_rows(Tensor packed, Tensor ids, int columns, ScalarType dtype) -> Tensor";
void packed_rows_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

}  // namespace tersor::torch_ops
