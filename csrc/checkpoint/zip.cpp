#include "checkpoint/zip.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "core/bits.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr uint64_t kIn64 = 0xffffffff;  // a 32-bit field whose value is in the 64-bit extra field

[[noreturn]] void refuse(const char* what) { fail(Code::bad_data, "zip: ", what); }

struct Directory {
  uint64_t entries, begin, bytes;
  uint64_t end;  // where the end record, the 64-bit one if there is one, begins
};

// The end record is the last thing in the file but for a comment of at most 65,535 bytes.
std::optional<size_t> end_record(std::span<const uint8_t> file) {
  if (file.size() < kEndBytes) return std::nullopt;
  const size_t last = file.size() - kEndBytes;
  for (size_t at = last;; --at) {
    if (load_le<uint32_t>(&file[at]) == kEnd && load_le<uint16_t>(&file[at + 20]) == last - at) return at;
    if (at == 0 || last - at == 65535) return std::nullopt;
  }
}

Directory directory_of(std::span<const uint8_t> file, size_t end) {
  ByteReader in(file.subspan(end + 8), "zip");
  in.take(2);
  Directory directory{};
  directory.entries = in.take<uint16_t>();
  directory.bytes = in.take<uint32_t>();
  directory.begin = in.take<uint32_t>();
  if (end < kLocator64Bytes || load_le<uint32_t>(&file[end - kLocator64Bytes]) != kLocator64) {
    directory.end = end;
    return directory;
  }
  const auto at = load_le<uint64_t>(&file[end - kLocator64Bytes + 8]);
  if (at > file.size() || file.size() - at < kEnd64Bytes || load_le<uint32_t>(&file[size_t(at)]) != kEnd64)
    refuse("a 64-bit end record is missing");
  if (load_le<uint64_t>(&file[size_t(at) + 4]) != end - kLocator64Bytes - at - 12)
    refuse("a 64-bit end record that does not end at its locator");
  const uint8_t* const record = &file[size_t(at)];
  directory.entries = load_le<uint64_t>(record + 32);
  directory.bytes = load_le<uint64_t>(record + 40);
  directory.begin = load_le<uint64_t>(record + 48);
  directory.end = at;
  return directory;
}

// The values of 32-bit fields that say so come from the extra field with id 1, in this order.
void take_64_bit(ByteReader extra, std::initializer_list<uint64_t*> fields) {
  while (extra.left() >= 4) {
    const auto id = extra.take<uint16_t>();
    ByteReader data(extra.take(extra.take<uint16_t>()), "zip: an extra field");
    if (id != 1) continue;
    for (uint64_t* field : fields)
      if (*field == kIn64) *field = data.take<uint64_t>();
    return;
  }
}

std::vector<ZipMember> read(std::span<const uint8_t> file, size_t end) {
  const Directory directory = directory_of(file, end);
  if (directory.begin > directory.end || directory.bytes != directory.end - directory.begin)
    refuse("a directory that does not end at its end record");
  ByteReader in(file.subspan(size_t(directory.begin), size_t(directory.bytes)), "zip");
  if (directory.entries > directory.bytes / kCentralBytes) refuse("more members than there is room for");
  std::vector<ZipMember> members;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (in.take<uint32_t>() != kCentral) refuse("a member without its mark");
    in.take(4);
    const auto flags = in.take<uint16_t>(), method = in.take<uint16_t>();
    in.take(8);
    uint64_t packed = in.take<uint32_t>(), unpacked = in.take<uint32_t>();
    const auto name_bytes = in.take<uint16_t>(), extra_bytes = in.take<uint16_t>(), comment_bytes = in.take<uint16_t>();
    in.take(8);
    uint64_t offset = in.take<uint32_t>();
    const auto name = in.take(name_bytes);
    take_64_bit(ByteReader(in.take(extra_bytes), "zip"), {&unpacked, &packed, &offset});
    in.take(comment_bytes);
    constexpr uint16_t kStored = 0, kEncrypted = 1;
    if (method != kStored || (flags & kEncrypted) || packed != unpacked) continue;
    if (offset > file.size() || file.size() - offset < kLocalBytes) refuse("a member outside of the file");
    const uint8_t* const local = &file[size_t(offset)];
    if (load_le<uint32_t>(local) != kLocal) refuse("a member without its header");
    const uint64_t begin = offset + kLocalBytes + load_le<uint16_t>(local + 26) + load_le<uint16_t>(local + 28);
    if (begin > file.size() || packed > file.size() - begin) refuse("a member that is longer than the file");
    members.push_back({{name.begin(), name.end()}, begin, begin + packed});
  }
  return members;
}

bool overlap(const std::vector<ZipMember>& members) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const ZipMember& member : members)
    if (member.begin < member.end) ranges.emplace_back(member.begin, member.end);
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].first < ranges[i - 1].second) return true;
  return false;
}

}  // namespace

std::optional<std::vector<ZipMember>> stored_members(std::span<const uint8_t> bytes) {
  if (bytes.size() < kEndBytes || load_le<uint32_t>(bytes.data()) != kLocal) return std::nullopt;
  const auto end = end_record(bytes);
  if (!end) return std::nullopt;
  try {
    auto members = read(bytes, *end);
    if (overlap(members)) return std::nullopt;
    return members;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace tersor::checkpoint
