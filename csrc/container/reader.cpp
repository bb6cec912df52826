#include "container/reader.h"

#include <algorithm>
#include <cstdio>

#include "container/framing.h"
#include "core/bits.h"
#include "core/crc32c.h"

namespace tersor::container {
namespace {

std::string hex(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

// "d4 74 73 72 ...": as many bytes as tell formats apart.
std::string first_bytes(std::span<const uint8_t> file) {
  std::string text;
  for (const uint8_t byte : file.first(std::min(file.size(), kMagic.size()))) {
    char pair[4];
    std::snprintf(pair, sizeof pair, text.empty() ? "%02x" : " %02x", byte);
    text += pair;
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

bool looks_like_tsr(std::span<const uint8_t> front) noexcept {
  return front.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), front.begin());
}

Reader::Reader(std::span<const uint8_t> file) : file_(file) {
  TERSOR_REQUIRE(looks_like_tsr(file), Code::bad_data, "not a .tsr file: it begins with ", first_bytes(file),
                 ", a .tsr with ", first_bytes(kMagic));
  TERSOR_REQUIRE(file.size() >= kHeaderBytes + kTrailerBytes, Code::bad_data, "the file has ", file.size(),
                 " bytes, a .tsr has at least ", kHeaderBytes + kTrailerBytes, ": truncated?");
  version_ = load_le<uint16_t>(file.data() + 8);
  TERSOR_REQUIRE(version_ == kVersion, Code::bad_data, "the file has version ", version_,
                 ", tersor " TERSOR_VERSION " reads version ", kVersion);
  const auto required = load_le<uint32_t>(file.data() + 12);
  TERSOR_REQUIRE(required == 0, Code::bad_data, "the file requires feature ", std::countr_zero(required),
                 ", which tersor " TERSOR_VERSION " does not know");

  const auto trailer = file.last(kTrailerBytes);
  TERSOR_REQUIRE(std::equal(kEndMagic.begin(), kEndMagic.end(), trailer.begin() + kTrailerCrcAt + 4), Code::bad_data,
                 "the file does not end as a .tsr does: truncated, or something follows it");
  const uint32_t frame_crc = crc32c(trailer.first(kTrailerCrcAt), crc32c(file.first(kHeaderBytes)));
  const auto said = load_le<uint32_t>(trailer.data() + kTrailerCrcAt);
  TERSOR_REQUIRE(said == frame_crc, Code::bad_data, "header or trailer are damaged: their CRC is ", hex(frame_crc),
                 ", ", hex(said), " is needed");
  const auto offset = load_le<uint64_t>(trailer.data());
  const auto length = load_le<uint64_t>(trailer.data() + 8);
  const uint64_t room = file.size() - kHeaderBytes - kTrailerBytes;
  TERSOR_REQUIRE(length <= room && offset == file.size() - kTrailerBytes - length, Code::bad_data,
                 "the index has offset ", offset, " and ", length, " bytes, they must end at byte ",
                 file.size() - kTrailerBytes, ": truncated, or joined to something else?");
  const auto bytes = file.subspan(size_t(offset), size_t(length));
  const uint32_t index_crc = crc32c(bytes);
  const auto index_said = load_le<uint32_t>(trailer.data() + 16);
  TERSOR_REQUIRE(index_said == index_crc, Code::bad_data, "the index is damaged: its CRC is ", hex(index_crc), ", ",
                 hex(index_said), " is needed");
  index_ = parse_index(bytes, offset);
}

const Entry& Reader::stored_entry(size_t entry) const noexcept {
  const Entry& asked = index_.entries[entry];
  return asked.same_as ? index_.entries[*asked.same_as] : asked;
}

std::span<const uint8_t> Reader::chunk(const Entry& entry, size_t i) const {
  const Chunk& chunk = entry.chunks[i];
  const auto bytes = file_.subspan(size_t(chunk.offset), chunk.stored_bytes);
  const uint32_t crc = crc32c(bytes);
  TERSOR_REQUIRE(crc == chunk.crc, Code::bad_data, entry.title(), ": chunk ", i, " is damaged: its CRC is ", hex(crc),
                 ", ", hex(chunk.crc), " is needed");
  return bytes;
}

}  // namespace tersor::container
