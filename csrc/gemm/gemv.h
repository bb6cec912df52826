// Dequantize and y = W x on the GPU, over the stored parts of a matrix in device memory. Built where nvcc is
// (TERSOR_HAVE_CUDA).
//
// Pointers of the views, x, y and out are device memory, aligned to their elements; a codebook to 16 bytes. What the
// parts hold has been checked where they came from (formats::grid_of, vector_codes_of). All raise bad_call for
// arguments that cannot be meant, and environment, with CUDA's words, for a launch that fails.
#pragma once
#include <cstdint>

#include "gemm/grid_warp.cuh"
#include "gemm/vectors_warp.cuh"

namespace tersor::gemm {

enum class Element : uint8_t { f32, bf16 };

// out: [rows, columns]. stream: a cudaStream_t; null is the default one.
void launch_dequantize(const WarpGrid& grid, Element element, void* out, void* stream);
void launch_dequantize(const WarpVectors& vectors, Element element, void* out, void* stream);

// x: [tokens, columns], y: [tokens, rows], both of the element; 1..4 tokens.
void launch_gemv(const WarpGrid& grid, Element element, const void* x, uint32_t tokens, void* y, void* stream);
void launch_gemv(const WarpVectors& vectors, Element element, const void* x, uint32_t tokens, void* y, void* stream);

}  // namespace tersor::gemm
