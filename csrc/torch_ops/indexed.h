// Operators of the indexed stream.
#pragma once
#include <cstdint>

namespace tersor::torch_ops {

// symbols: int32; indexes: uint8 or int32; tables: uint8, what TableSet.to_bytes returns; means: int32, as many as
// there are symbols, or none. All contiguous. Returns the stream as uint8 [bytes].
inline constexpr const char* kRansEncodeIndexedSchema =
    "rans_encode_indexed(Tensor symbols, Tensor indexes, Tensor tables, Tensor means) -> Tensor";
void rans_encode_indexed_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

// data: uint8, a stream. Returns int32 in the shape of indexes.
inline constexpr const char* kRansDecodeIndexedSchema =
    "rans_decode_indexed(Tensor data, Tensor indexes, Tensor tables, Tensor means) -> Tensor";
void rans_decode_indexed_boxed(uint64_t* stack, uint64_t inputs, uint64_t outputs);

}  // namespace tersor::torch_ops
