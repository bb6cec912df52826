// Operators over exact tensors.
#pragma once
#include <cstdint>

namespace tersor::torch_ops {

// decompress_into(Tensor data, Tensor(a!) out) -> (): what tersor.compress made of a tensor, back into a tensor of the
// same shape and dtype. data: uint8, contiguous. out: contiguous.
inline constexpr const char* kDecompressIntoSchema = "decompress_into(Tensor data, Tensor(a!) out) -> ()";
void decompress_into_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

}  // namespace tersor::torch_ops
