// Cuts entries into the pieces that threads work on, and these into batches that bound the memory.
#pragma once
#include <span>
#include <vector>

#include "container/index.h"

namespace tersor::checkpoint {

struct Piece {
  size_t entry, chunk;
  size_t raw_bytes;
};
// Consecutive pieces that one thread takes at once: one of a chunk's size or many small ones.
struct Job {
  size_t first, count;  // pieces of the batch
  size_t raw_bytes;
};
struct Batch {
  std::vector<Piece> pieces;
  std::vector<Job> jobs;
  size_t raw_bytes = 0;
  bool empty() const noexcept { return pieces.empty(); }
};

class Batches {
 public:
  // shared: whether entries that are same_as another come again.
  Batches(std::span<const container::Entry> entries, bool shared, int threads);
  bool next(Batch& batch);  // false, and an empty batch, behind the last one

 private:
  std::span<const container::Entry> entries_;
  bool shared_;
  size_t jobs_;
  size_t entry_ = 0, chunk_ = 0;
};

}  // namespace tersor::checkpoint
