// The members of a .zip that are stored as they are: what .npz files and PyTorch's checkpoints consist of.
// Source: PKWARE's APPNOTE 6.3.10, with the 64-bit sizes of its section 4.5.3.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tersor::checkpoint {

struct ZipMember {
  std::string name;
  uint64_t begin, end;  // of its bytes in the file
};

// Members whose bytes lie in the file uncompressed and unencrypted, in the order of the directory, whose sizes hold.
// Nothing where the bytes are no .zip that ends with its directory, or where members overlap.
std::optional<std::vector<ZipMember>> stored_members(std::span<const uint8_t> bytes);

}  // namespace tersor::checkpoint
