// Grids and vector codebooks on the GPU: a warp dequantizes a row, or multiplies it by up to four tokens. Compiled for
// sm_80 and sm_90a and tested on the host; no GPU has timed it.
#include "gemm/gemv.h"

#include <cuda_runtime.h>

#include <algorithm>

namespace tersor::gemm {
namespace {

constexpr uint32_t kThreads = 256, kWarps = kThreads / cuda::kWarpLanes;  // of a block

// ---- kernels: launched with kThreads threads a block ----------------------------------------------------------------

__device__ uint32_t first_row() { return blockIdx.x * kWarps + threadIdx.x / cuda::kWarpLanes; }

// Every thread of the block calls it. table: room for a table of the codes.
template <class Codes>
__device__ const float* levels_of(const WarpGrid& grid, float* table) {
  if (!grid.one_table()) return grid.levels;
  for (uint32_t i = threadIdx.x; i < Codes::kCodes; i += kThreads) table[i] = grid.levels[i];
  __syncthreads();
  return table;
}

template <class Codes, class Y>
__global__ void __launch_bounds__(kThreads) dequantize_grid_kernel(const WarpGrid grid, Y* out) {
  __shared__ float table[Codes::kCodes];
  const float* const levels = levels_of<Codes>(grid, table);
  const uint32_t row = first_row();
  if (row < grid.rows)
    dequantize_row_warp<Codes>(cuda::DeviceWarp{}, grid, levels, row, out + size_t(row) * grid.columns);
}

template <class Codes, uint32_t kTokens, class X>
__global__ void __launch_bounds__(kThreads) gemv_grid_kernel(const WarpGrid grid, const X* x, X* y) {
  __shared__ float table[Codes::kCodes];
  const float* const levels = levels_of<Codes>(grid, table);
  const uint32_t row = first_row();
  if (row < grid.rows) gemv_row_warp<Codes, kTokens>(cuda::DeviceWarp{}, grid, levels, row, x, y);  // whole warps
}

// Every thread of the block calls it. A block copies the codebook once, so that its warps take many rows.
__device__ const Half* codebook_of(const WarpVectors& vectors, bool shared) {
  extern __shared__ uint4 room[];
  if (!shared) return vectors.codebook;
  auto* const copy = reinterpret_cast<Half*>(room);
  const auto halves = uint32_t(vectors.codebook_bytes() / sizeof(Half)), whole = halves / 8;
  for (uint32_t i = threadIdx.x; i < whole; i += kThreads)
    store(copy + 8 * i, load<Vector<16>>(vectors.codebook + 8 * i));
  for (uint32_t i = 8 * whole + threadIdx.x; i < halves; i += kThreads) copy[i] = vectors.codebook[i];
  __syncthreads();
  return copy;
}

template <uint32_t kDimension, class Y>
__global__ void __launch_bounds__(kThreads) dequantize_vectors_kernel(const WarpVectors vectors, bool shared, Y* out) {
  const Half* const codebook = codebook_of(vectors, shared);
  for (uint32_t row = first_row(); row < vectors.rows; row += gridDim.x * kWarps)
    dequantize_row_warp<kDimension>(cuda::DeviceWarp{}, vectors, codebook, row, out + size_t(row) * vectors.columns);
}

template <uint32_t kDimension, uint32_t kTokens, class X>
__global__ void __launch_bounds__(kThreads)
    gemv_vectors_kernel(const WarpVectors vectors, bool shared, const X* x, X* y) {
  const Half* const codebook = codebook_of(vectors, shared);
  for (uint32_t row = first_row(); row < vectors.rows; row += gridDim.x * kWarps)
    gemv_row_warp<kDimension, kTokens>(cuda::DeviceWarp{}, vectors, codebook, row, x, y);
}

// ---- checks and launches --------------------------------------------------------------------------------------------

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(Code::environment, what, ": ", cudaGetErrorString(status));
}

void require_aligned(const void* at, uint32_t bytes, const char* name) {
  TERSOR_REQUIRE(at != nullptr && is_aligned(at, bytes), Code::bad_call, name, " lie at ", at, ", a multiple of ",
                 bytes, " is needed");
}

void require_numbers(const formats::GroupNumbers& numbers, const char* name) {
  using formats::NumberKind;
  if (numbers.kind == NumberKind::none) return;
  const bool two = numbers.kind == NumberKind::f16 || numbers.kind == NumberKind::bf16;
  require_aligned(numbers.data, numbers.kind == NumberKind::f32 ? 4 : two ? 2 : 1, name);
  if (numbers.kind != NumberKind::super) return;
  require_aligned(numbers.supers, 2, name);
  TERSOR_REQUIRE(numbers.supers_span > 0, Code::bad_call, name, ": ", numbers.supers_span, " groups share a number");
}

void require_sizes(uint32_t rows, uint32_t columns) {
  TERSOR_REQUIRE(rows > 0 && columns > 0 && rows <= kMostWarpColumns && columns <= kMostWarpColumns, Code::bad_call,
                 "a matrix of [", rows, ", ", columns, "], 1..", kMostWarpColumns, " of each are possible");
}

void check(const WarpGrid& grid) {
  require_sizes(grid.rows, grid.columns);
  const bool whole_row = grid.log_group == 31;
  TERSOR_REQUIRE(whole_row || (grid.log_group >= 4 && grid.log_group < 31), Code::bad_call, "groups of 2^",
                 grid.log_group, " columns, 16 at least are needed");
  const uint64_t bytes = grid.trits ? (uint64_t(grid.columns) + 4) / 5 : (uint64_t(grid.columns) * grid.bits + 7) / 8;
  TERSOR_REQUIRE(grid.row_bytes >= bytes, Code::bad_call, "rows of ", grid.row_bytes, " bytes, ", bytes, " are needed");
  require_aligned(grid.codes, 1, "codes"), require_aligned(grid.levels, 4, "levels");
  require_numbers(grid.scales, "scales"), require_numbers(grid.zeros, "zeros");
  require_numbers(grid.minimums, "minimums");
}

void check(const WarpVectors& vectors) {
  require_sizes(vectors.rows, vectors.columns);
  TERSOR_REQUIRE(vectors.stages >= 1 && vectors.stages <= 4, Code::bad_call, "1..4 stages are possible, not ",
                 vectors.stages);
  TERSOR_REQUIRE(
      vectors.bits >= 1 && vectors.bits <= 12 && vectors.entries >= 2 && vectors.entries <= 1u << vectors.bits,
      Code::bad_call, vectors.entries, " entries with codes of ", vectors.bits, " bits");
  require_aligned(vectors.codes, 1, "codes"), require_aligned(vectors.codebook, 16, "entries");
  require_numbers(vectors.scales, "scales");
}

template <class F>
void with_element(Element element, F&& f) {
  if (element == Element::f32) return f(float{});
  TERSOR_REQUIRE(element == Element::bf16, Code::bad_type, "no element has the number ", int(element));
  f(Bf16{});
}

uint32_t blocks_of(uint32_t rows) { return (rows + kWarps - 1) / kWarps; }

// No more blocks than run at once, as each of them copies the codebook, where that fits.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(WarpVectors, bool, Parameters...), const WarpVectors& vectors, void* stream,
            Arguments... arguments) {
  int device = 0, most_shared = 0, processors = 0, blocks = 0;
  require(cudaGetDevice(&device), "the device");
  require(cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
  require(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
  const bool shared = vectors.codebook_bytes() <= size_t(most_shared);
  const size_t bytes = shared ? vectors.codebook_bytes() : 0;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)), "shared memory");
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, int(kThreads), bytes), "blocks");
  const auto at_once = uint32_t(std::max(1, blocks * processors));
  kernel<<<std::min(blocks_of(vectors.rows), at_once), kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(
      vectors, shared, arguments...);
  require(cudaGetLastError(), "the launch");
}

}  // namespace

void launch_dequantize(const WarpGrid& grid, Element element, void* out, void* stream) {
  with_codes(grid, [&](auto codes) {
    with_element(element, [&](auto one) {
      check(grid), require_aligned(out, sizeof one, "outputs");
      using Y = decltype(one);
      dequantize_grid_kernel<decltype(codes)>
          <<<blocks_of(grid.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(grid, static_cast<Y*>(out));
      require(cudaGetLastError(), "the launch");
    });
  });
}

void launch_gemv(const WarpGrid& grid, Element element, const void* x, uint32_t tokens, void* y, void* stream) {
  with_codes(grid, [&](auto codes) {
    with_element(element, [&](auto one) {
      with_tokens(tokens, [&](auto count) {
        check(grid), require_aligned(x, sizeof one, "activations"), require_aligned(y, sizeof one, "outputs");
        using X = decltype(one);
        gemv_grid_kernel<decltype(codes), decltype(count)::value>
            <<<blocks_of(grid.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(grid, static_cast<const X*>(x),
                                                                                       static_cast<X*>(y));
        require(cudaGetLastError(), "the launch");
      });
    });
  });
}

void launch_dequantize(const WarpVectors& vectors, Element element, void* out, void* stream) {
  with_dimension(vectors.dimension, [&](auto dimension) {
    with_element(element, [&](auto one) {
      check(vectors), require_aligned(out, sizeof one, "outputs");
      using Y = decltype(one);
      launch(dequantize_vectors_kernel<decltype(dimension)::value, Y>, vectors, stream, static_cast<Y*>(out));
    });
  });
}

void launch_gemv(const WarpVectors& vectors, Element element, const void* x, uint32_t tokens, void* y, void* stream) {
  with_dimension(vectors.dimension, [&](auto dimension) {
    with_element(element, [&](auto one) {
      with_tokens(tokens, [&](auto count) {
        check(vectors), require_aligned(x, sizeof one, "activations"), require_aligned(y, sizeof one, "outputs");
        using X = decltype(one);
        launch(gemv_vectors_kernel<decltype(dimension)::value, decltype(count)::value, X>, vectors, stream,
               static_cast<const X*>(x), static_cast<X*>(y));
      });
    });
  });
}

}  // namespace tersor::gemm
