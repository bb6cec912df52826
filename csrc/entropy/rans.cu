// The rows of rANS blocks on the GPU: a thread block decodes a rANS block, a warp a lane group. The narrow tail, serial
// by nature, stays on the host. Of the indexed stream a warp decodes a chunk of 32 lanes. Compiled for sm_80 and sm_90a
// and tested on the host; no GPU has timed it.
#include "entropy/indexed_warp.cuh"
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

struct IndexedJob {  // of one chunk, in device memory, and so is what it points to
  const uint64_t *places, *buckets;
  const TableRow* tables;
  const SymbolEntry* entries;
  const uint16_t* table_of;
  uint64_t* states;
  const uint32_t *words, *end;
  uint32_t* symbols;
  size_t rows;
  bool sound;  // false behind the launch when the words did not last
};

// Launched with a warp for each job; several may share a block.
__global__ void decode_indexed_kernel(IndexedJob* jobs, uint32_t count) {
  const uint32_t number = (blockIdx.x * blockDim.x + threadIdx.x) / cuda::kWarpLanes;
  if (number >= count) return;  // whole warps leave
  IndexedJob& job = jobs[number];
  const uint32_t* words = job.words;
  const bool sound = decode_indexed_warp(cuda::DeviceWarp{}, job.places, job.buckets, job.tables, job.entries,
                                         job.table_of, job.rows, job.states, &words, job.end, job.symbols);
  if (threadIdx.x % cuda::kWarpLanes == 0) job.words = words, job.sound = sound;
}

}  // namespace tersor::entropy
