// .tsr files written field by field, so that checks can make what no writer of ours makes.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/bits.h"
#include "core/crc32c.h"
#include "core/hash.h"

namespace tersor::check {

class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    const size_t at = data.size();
    data.resize(at + sizeof value);
    store_le(data.data() + at, value);
    return *this;
  }
  Bytes& put(const Bytes& other) {
    data.insert(data.end(), other.data.begin(), other.data.end());
    return *this;
  }
  Bytes& text(std::string_view text) {
    put(uint32_t(text.size()));
    data.insert(data.end(), text.begin(), text.end());
    return *this;
  }
  std::vector<uint8_t> data;
};

struct HandMadeEntry {
  std::string name;
  uint8_t kind = 1, dtype = 2, rank = 1, codec = 1;  // tensor, U8, [n], stored
  uint32_t same_as = 0;
  std::vector<uint64_t> shape;
  uint64_t raw_bytes = 0;
  Hash128 hash;
  std::vector<std::pair<uint32_t, uint32_t>> chunks;  // stored bytes, CRC

  HandMadeEntry() = default;
  HandMadeEntry(std::string named, std::span<const uint8_t> raw)
      : name(std::move(named)),
        shape{raw.size()},
        raw_bytes(raw.size()),
        hash(hash128(raw)),
        chunks{{uint32_t(raw.size()), crc32c(raw)}} {}

  Bytes bytes() const {
    Bytes out;
    out.text(name).put(kind).put(dtype).put(rank).put(codec).put(same_as);
    for (const uint64_t dim : shape) out.put(dim);
    out.put(raw_bytes).put(hash.bytes());
    for (const auto& [stored, crc] : chunks) out.put(stored).put(crc);
    return out;
  }
};

struct HandMadeFile {
  uint16_t version = 1, optional_features = 0;
  uint32_t required_features = 0;
  uint32_t origin = 2;
  std::vector<uint8_t> chunks;
  std::vector<HandMadeEntry> entries;
  std::vector<std::pair<std::string, std::string>> metadata;
  Bytes extensions = Bytes().put(uint32_t(0));
  uint32_t more_entries = 0, more_pairs = 0;  // said, but not there

  std::vector<uint8_t> bytes() const {
    Bytes file;
    for (const uint8_t byte : {0xd4, 0x74, 0x73, 0x72, 0x0d, 0x0a, 0x1a, 0x0a}) file.put(byte);
    file.put(version).put(optional_features).put(required_features);
    const std::vector<uint8_t> header = file.data;
    file.data.insert(file.data.end(), chunks.begin(), chunks.end());
    Bytes index;
    index.put(origin).put(uint32_t(entries.size()) + more_entries).put(uint32_t(metadata.size()) + more_pairs);
    index.put(Hash128{}.bytes());
    for (const auto& entry : entries) index.put(entry.bytes());
    for (const auto& [key, value] : metadata) index.text(key).text(value);
    index.put(extensions);
    Bytes trailer;
    trailer.put(uint64_t(file.data.size())).put(uint64_t(index.data.size())).put(crc32c(index.data));
    trailer.put(crc32c(trailer.data, crc32c(header)));
    for (const uint8_t byte : {0xd4, 0x74, 0x73, 0x72, 0x65, 0x6e, 0x64, 0x0a}) trailer.put(byte);
    return file.put(index).put(trailer).data;
  }
};

}  // namespace tersor::check
