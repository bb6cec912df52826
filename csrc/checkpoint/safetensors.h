// The .safetensors layout: 8 bytes of length, a JSON header, the tensors' bytes without gaps.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "container/index.h"
#include "core/array.h"

namespace tersor::checkpoint {

struct Safetensors {
  struct Tensor {
    std::string name;
    DType dtype;
    Shape shape;
    uint64_t begin, end;  // in the bytes behind the header
  };
  uint64_t header_bytes = 0;    // with the 8 bytes of length: where the tensors' bytes begin
  std::vector<Tensor> tensors;  // in the order of their bytes
  container::Metadata metadata;
};

// Nothing when the bytes are not, in every respect, a valid file whose dtypes core/ids.def has. Allocates no more than
// a small multiple of the header. `front` holds the header at least; file_bytes counts what follows it, too.
std::optional<Safetensors> parse_safetensors(std::span<const uint8_t> front, uint64_t file_bytes);

// The header, length included, for entries that follow it in this order; padded with spaces to a multiple of 8.
std::vector<uint8_t> safetensors_header(std::span<const container::Entry> entries, const container::Metadata& metadata);

// Sorts as the format's own writer does: wide dtypes first, so that every tensor is aligned, then by name.
void sort_as_safetensors(std::vector<TensorView>& tensors);

inline constexpr uint64_t kMostSafetensorsHeader = 8 + 100'000'000;  // the format's own limit and the length before it
inline constexpr const char* kMetadataKey = "__metadata__";          // no tensor may be called so

}  // namespace tersor::checkpoint
