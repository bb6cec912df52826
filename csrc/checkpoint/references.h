// What files are coded against: the tensors of other files, of .tsr files and of folders of both, named by the
// hash of their content. Page: docs/formats/difference.md.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/pace.h"
#include "container/index.h"
#include "core/arena.h"

namespace tersor::checkpoint {

// Immutable after `open`, shared when copied, read by any number of threads.
class References {
 public:
  // A .tsr among the paths may itself be coded against others among them. Raises bad_data where one is none of the
  // three kinds, holds no tensors or needs a base that is not there; environment where it cannot be read.
  static References open(std::span<const std::string> paths, int threads, Pace& pace);

  struct Tensor {
    size_t base = 0, part = 0, entry = 0;  // which base, which file of it, and what of that
  };
  size_t size() const noexcept { return bases_.size(); }
  // Raises environment where writing to `path` would destroy a base, or change a folder of them.
  void refuse_as_output(const std::string& path) const;
  const Hash128& hash(size_t base) const noexcept;
  // The base of this content; raises bad_data that names the hash and those that are there.
  size_t with_hash(const Hash128& hash) const;
  // The tensor that has this entry's name, dtype and size.
  std::optional<Tensor> find(size_t base, const container::Entry& entry) const;
  // Raw bytes of a tensor's chunk: mapped, or decoded into the frame. Raises bad_data where the base is damaged.
  std::span<const uint8_t> chunk(const Tensor& tensor, size_t chunk, ScratchFrame& frame) const;

 private:
  struct Content;
  std::vector<std::shared_ptr<const Content>> bases_;
};

}  // namespace tersor::checkpoint
