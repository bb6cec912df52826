// Coded chunks of Huffman streams on the GPU: a warp decodes a span, a thread a piece. Compiled for sm_80 and sm_90a
// and tested on the host; no GPU has timed it.
#include "entropy/huffman_warp.cuh"

namespace tersor::entropy::huffman {

struct ChunkJob {  // in device memory, and so is what it points to
  WarpString string;
  const uint64_t* out_at;  // of each span, from `out`, and one more: the sums of the starts
  uint8_t* out;
  size_t spans;
  bool sound;  // true before the launch; false behind it when a span was not
};

// Launched with a multiple of 32 threads a block; blockIdx.y is the chunk, and the x dimension has a warp for each
// span.
__global__ void decode_spans_kernel(ChunkJob* jobs) {
  __shared__ uint16_t table[1 << kMostLength];
  ChunkJob& job = jobs[blockIdx.y];
  WarpString string = job.string;
  for (uint32_t i = threadIdx.x; i < 1u << string.index_bits; i += blockDim.x) table[i] = string.table[i];
  __syncthreads();
  string.table = table;
  const size_t span = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / cuda::kWarpLanes;
  if (span >= job.spans) return;  // whole warps leave, no ballot misses them
  const uint64_t at = job.out_at[span];
  const bool sound =
      decode_span_warp(cuda::DeviceWarp{}, string, span * kSpanPieces, size_t(job.out_at[span + 1] - at), job.out + at);
  if (!sound && threadIdx.x % cuda::kWarpLanes == 0) job.sound = false;  // all that write it write the same
}

}  // namespace tersor::entropy::huffman
