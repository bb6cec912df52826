// Reads a .tsr that lies in memory or is mapped there. Knows bytes and codec numbers, decodes nothing.
#pragma once
#include <span>

#include "container/index.h"

namespace tersor::container {

bool looks_like_tsr(std::span<const uint8_t> front) noexcept;  // the first 8 bytes are the magic

class Reader {
 public:
  // Checks everything but the chunks' bytes; raises bad_data. The bytes outlive the reader.
  explicit Reader(std::span<const uint8_t> file);

  const Index& index() const noexcept { return index_; }
  uint16_t version() const noexcept { return version_; }
  uint64_t file_bytes() const noexcept { return file_.size(); }

  // The entry whose chunks hold this entry's bytes: itself, or the one that it is same_as.
  const Entry& stored_entry(size_t entry) const noexcept;

  // The stored bytes of chunk i of a stored entry, their CRC checked: raises bad_data.
  std::span<const uint8_t> chunk(const Entry& entry, size_t i) const;

 private:
  std::span<const uint8_t> file_;
  uint16_t version_ = 0;
  Index index_;
};

}  // namespace tersor::container
