// Entries to a .tsr: ties found, chunks coded and hashed by all threads, written in order.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/pace.h"
#include "checkpoint/references.h"
#include "container/writer.h"

namespace tersor::checkpoint {

struct Source {
  std::string name;
  container::Kind kind;
  DType dtype;
  Shape shape;
  std::span<const uint8_t> data;
  lossless::Element element = lossless::element_of(dtype);
  std::vector<lossless::Field> record;  // where the bytes are records of fields
};
struct Contents {
  container::Origin origin;
  std::vector<Source> sources;
  container::Metadata metadata;
  std::vector<uint64_t> gaps;  // as the index has them
};

// bases: a tensor is coded against the first that has one of its name, dtype and size.
// sink_blocks: the sink may wait for a reader, so only the calling thread writes to it.
Summary pack(container::Sink& sink, bool sink_blocks, const Contents& contents, const References& bases,
             const Options& options, Pace& pace);

// Sets same_as where two tensors are equal, and the hash of every tensor whose bytes had to be hashed for that.
// hashed[i]: whether entries[i].hash is set.
void find_ties(std::span<const Source> sources, std::span<Entry> entries, std::vector<uint8_t>& hashed, int threads,
               Pace& pace);

}  // namespace tersor::checkpoint
