// The rows of rANS blocks on the GPU: a thread block decodes a rANS block, a warp a lane group. The narrow tail, serial
// by nature, stays on the host. Compiled for sm_80 and sm_90a and tested on the host; no GPU has timed it.
#include "entropy/rans_warp.cuh"

namespace tersor::entropy {

struct RowsJob {  // in device memory, and so is what it points to
  const DecodeTables* tables;
  DecodeStates* states;  // left where the rows end
  const uint8_t* floor;
  uint8_t* out;
  size_t rows;
  int groups;
  bool sound;  // true before the launch; false behind it when a group's words did not last
};

// Launched with kMostLanes threads a block; warps beyond a job's groups only help to load the tables.
__global__ void decode_rows_kernel(RowsJob* jobs) {
  __shared__ uint64_t side[512];
  __shared__ uint32_t until[256];
  RowsJob& job = jobs[blockIdx.x];
  for (uint32_t i = threadIdx.x; i < 512; i += blockDim.x) side[i] = job.tables->side[i];
  for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) until[i] = job.tables->until[i];
  __syncthreads();
  const uint32_t group = threadIdx.x / cuda::kWarpLanes;
  if (group >= uint32_t(job.groups)) return;  // whole warps leave, no ballot misses them
  const uint32_t lane = group * cuda::kWarpLanes;
  const WarpTables tables{until, side, bucket_log_width(job.tables->layout)};
  const uint8_t* words = job.states->words[group];
  const bool sound =
      decode_group_warp(cuda::DeviceWarp{}, tables, job.states->low + lane, job.states->high + lane, &words, job.floor,
                        job.rows, job.out + lane, size_t(job.groups) * cuda::kWarpLanes);
  if (threadIdx.x % cuda::kWarpLanes == 0) {
    job.states->words[group] = words;
    if (!sound) job.sound = false;  // every warp that writes it writes the same
  }
}

}  // namespace tersor::entropy
