// From a codec's number to the bytes: the one place that knows which room decodes what.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/batches.h"
#include "checkpoint/references.h"
#include "container/reader.h"

namespace tersor::checkpoint {

// Decodes chunks of one .tsr, on any number of threads. Reader and bases outlive it.
class PieceDecoder {
 public:
  // Finds the base of every entry that is a difference. Where a base, or a tensor in it, is missing it raises bad_data;
  // with `partly` not before such an entry is asked for.
  PieceDecoder(const container::Reader& reader, const References& bases, bool partly = false);

  const container::Reader& reader() const noexcept { return reader_; }
  // Fills raw with chunk `chunk` of `entry` (or of the one whose chunks it shares); raises bad_data with both named.
  void piece(size_t entry, size_t chunk, std::span<uint8_t> raw) const;
  // All pieces of a job, one behind the other.
  void job(const Batch& batch, const Job& job, std::span<uint8_t> raw) const;

 private:
  struct Link {
    size_t base;
    References::Tensor tensor;
  };
  const container::Reader& reader_;
  const References& bases_;
  Link linked(const container::Entry& entry) const;
  std::vector<std::optional<Link>> links_;  // of every entry, where there are bases; set for differences
};

}  // namespace tersor::checkpoint
