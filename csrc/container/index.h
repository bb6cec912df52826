// What a .tsr file says about itself: entries, their chunks, metadata. Page: docs/formats/tsr.md.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/array.h"
#include "core/hash.h"

namespace tersor::container {

inline constexpr uint16_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 16, kTrailerBytes = 32;
inline constexpr uint64_t kChunkRawBytes = uint64_t(1) << 20;  // every chunk of an entry but the last
inline constexpr uint64_t kMostStoredBytes = uint64_t(1) << 21;
inline constexpr uint64_t kMostNameBytes = uint64_t(1) << 16;  // of a tensor, a metadata key, an extension
inline constexpr uint64_t kMostEntries = uint64_t(1) << 24;
inline constexpr uint64_t kMostGapBytes = uint64_t(1) << 26;  // a reader has it in memory
inline constexpr const char* kGapsName = "gaps";
inline constexpr uint64_t kMostMetadata = uint64_t(1) << 24;
inline constexpr size_t kMostBases = 255;

// Numbers are on disk.
enum class Origin : uint8_t {
  safetensors = 1,
  tensors = 2,
  file = 3,
  array = 4,
  npy = 5,
  npz = 6,
  torch = 7,
  gguf = 8
};
inline constexpr uint32_t kOrigins = 8;
enum class Kind : uint8_t { tensor = 1, bytes = 2 };
enum class Codec : uint8_t {
#define TERSOR_CODEC(number, name) name = number,
#include "core/ids.def"
#undef TERSOR_CODEC
};

std::string_view origin_name(Origin origin) noexcept;
// Of files that have bytes between their tensors: these are kept together, as the last entry.
constexpr bool has_gaps(Origin origin) noexcept { return origin >= Origin::npy; }
std::string codec_name(uint8_t codec);  // "lossless"; "codec 77" for a number that this version does not know

struct Chunk {
  uint64_t offset;  // from the start of the file; not on disk: chunks lie back to back in the order of the entries
  uint32_t stored_bytes;
  uint32_t crc;
};

struct Entry {
  std::string name;
  Kind kind = Kind::tensor;
  DType dtype = DType::U8;  // of kind bytes: U8, not on disk
  Shape shape;              // of kind bytes: empty
  uint8_t codec = uint8_t(Codec::lossless);
  uint64_t raw_bytes = 0;
  Hash128 hash;                   // of the raw bytes
  uint8_t base = 0;               // codec difference: which of the index's bases has the tensor of this name
  std::optional<size_t> same_as;  // an earlier entry with the same dtype and bytes, whose chunks are these
  std::vector<Chunk> chunks;      // empty when same_as is set

  uint64_t stored_bytes() const noexcept;
  // How errors call it: tensor "a.weight"
  std::string title() const;
};

using Metadata = std::map<std::string, std::string>;

struct Index {
  Origin origin = Origin::tensors;
  std::vector<Entry> entries;
  Metadata metadata;
  Hash128 hash;                // of the content: content_hash(entries)
  std::vector<Hash128> bases;  // the contents that entries of codec difference are coded against
  std::vector<uint64_t> gaps;  // has_gaps: how many bytes of the last entry come before each other one
};

// The identity of the tensors, whatever their order, level and chunking; of files without any: of their bytes.
Hash128 content_hash(Origin origin, std::span<const Entry> entries);

// Sizes of chunk i of an entry with raw_bytes.
uint64_t chunk_count(uint64_t raw_bytes) noexcept;
size_t chunk_raw_bytes(uint64_t raw_bytes, size_t i) noexcept;

// The index as it lies on disk. Raises bad_call for what the page does not allow.
std::vector<uint8_t> index_bytes(const Index& index);

// The reverse: raises bad_data for what the page does not allow. chunks_end: where the chunks must end, the index's
// own offset. Allocates no more than a small multiple of bytes.size().
Index parse_index(std::span<const uint8_t> bytes, uint64_t chunks_end);

bool is_utf8(std::string_view text) noexcept;

}  // namespace tersor::container
