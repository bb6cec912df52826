#include "checkpoint/batches.h"

#include <algorithm>

#include "core/pool.h"

namespace tersor::checkpoint {
namespace {

// Enough for every thread to find work at the end of a batch, few enough to keep two batches in memory.
size_t jobs_for(int threads) {
  const auto count = size_t(threads > 0 ? threads : num_threads());
  if (count == 1) return 1;  // the caches keep what is hashed, coded and written
  return std::clamp(16 * count, size_t(16), std::max(size_t(128), 2 * count));
}

constexpr size_t kMostPiecesInJob = 4096;

}  // namespace

Batches::Batches(std::span<const container::Entry> entries, bool shared, int threads)
    : entries_(entries), shared_(shared), jobs_(jobs_for(threads)) {}

bool Batches::next(Batch& batch) {
  batch.pieces.clear();
  batch.jobs.clear();
  batch.raw_bytes = 0;
  while (entry_ < entries_.size()) {
    const container::Entry& entry = entries_[entry_];
    if ((entry.same_as && !shared_) || chunk_ == container::chunk_count(entry.raw_bytes)) {
      ++entry_;
      chunk_ = 0;
      continue;
    }
    const size_t raw_bytes = container::chunk_raw_bytes(entry.raw_bytes, chunk_);
    const bool joins = !batch.jobs.empty() && batch.jobs.back().raw_bytes + raw_bytes <= container::kChunkRawBytes &&
                       batch.jobs.back().count < kMostPiecesInJob;
    if (!joins) {
      if (batch.jobs.size() == jobs_) break;
      batch.jobs.push_back({batch.pieces.size(), 0, 0});
    }
    batch.pieces.push_back({entry_, chunk_, raw_bytes});
    batch.jobs.back().count += 1;
    batch.jobs.back().raw_bytes += raw_bytes;
    batch.raw_bytes += raw_bytes;
    ++chunk_;
  }
  return !batch.empty();
}

}  // namespace tersor::checkpoint
