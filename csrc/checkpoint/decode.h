// From a codec's number to the bytes: the one place that knows which room decodes what.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/batches.h"
#include "checkpoint/references.h"
#include "container/reader.h"

namespace tersor::checkpoint {

// What cannot be decoded, told by any thread. One line a chunk, or an entry, in the order of the file.
class Damage {
 public:
  static constexpr size_t kWholeEntry = SIZE_MAX;  // in place of a chunk's number
  void add(size_t entry, size_t chunk, std::string line);
  bool hurts(size_t entry) const;
  std::vector<std::string> lines() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<size_t, size_t>, std::string> lines_;
};

// Decodes chunks of one .tsr, on any number of threads. Reader and bases outlive it.
class PieceDecoder {
 public:
  // Finds the base of every entry that is a difference. Where a base, or a tensor in it, is missing it raises bad_data;
  // with `partly` not before such an entry is asked for.
  PieceDecoder(const container::Reader& reader, const References& bases, bool partly = false);

  const container::Reader& reader() const noexcept { return reader_; }
  // Fills raw with chunk `chunk` of `entry` (or of the one whose chunks it shares); raises bad_data with both named.
  void piece(size_t entry, size_t chunk, std::span<uint8_t> raw) const;
  // The same; with `damage` what cannot be decoded becomes zeros and is told there.
  void piece(size_t entry, size_t chunk, std::span<uint8_t> raw, Damage* damage) const;
  // All pieces of a job, one behind the other.
  void job(const Batch& batch, const Job& job, std::span<uint8_t> raw, Damage* damage = nullptr) const;

 private:
  const container::Reader& reader_;
  const References& bases_;
  References::Tensor linked(const container::Entry& entry) const;
  std::vector<std::optional<References::Tensor>> links_;  // of every entry, where there are bases; set for differences
};

}  // namespace tersor::checkpoint
