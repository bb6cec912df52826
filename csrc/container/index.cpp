#include "container/index.h"

#include <algorithm>
#include <numeric>

#include "core/bits.h"

namespace tersor::container {
namespace {

// Sorted positions let duplicates be neighbors without a second copy of the names.
std::vector<size_t> by_kind_and_name(std::span<const Entry> entries) {
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const Entry &x = entries[a], &y = entries[b];
    return x.kind != y.kind ? x.kind < y.kind : x.name < y.name;
  });
  return order;
}

// The rules that hold between entries, for the writer and the reader alike.
void check_entries(Origin origin, std::span<const Entry> entries, Code code) {
  const auto order = by_kind_and_name(entries);
  for (size_t i = 1; i < order.size(); ++i) {
    const Entry &a = entries[order[i - 1]], &b = entries[order[i]];
    TERSOR_REQUIRE(a.kind != b.kind || a.name != b.name, code, "two entries are ", b.title());
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (!entry.same_as) continue;
    TERSOR_REQUIRE(*entry.same_as < i, code, entry.title(), " points to entry ", *entry.same_as,
                   ", an earlier one than ", i, " is needed");
    const Entry& first = entries[*entry.same_as];
    TERSOR_REQUIRE(
        !first.same_as && first.raw_bytes == entry.raw_bytes && first.dtype == entry.dtype &&
            first.kind == entry.kind && first.hash == entry.hash && first.codec == entry.codec && entry.raw_bytes > 0,
        code, entry.title(), " says that it equals ", first.title(), ", whose kind, dtype, size or hash differs");
  }
  if (has_gaps(origin)) {
    const bool last = !entries.empty() && entries.back().kind == Kind::bytes && entries.back().name == kGapsName &&
                      !entries.back().same_as && entries.back().raw_bytes <= kMostGapBytes;
    TERSOR_REQUIRE(last, code, "origin ", origin_name(origin), " needs a last entry of plain bytes named ", kGapsName,
                   ", of at most ", kMostGapBytes, " bytes");
    return;
  }
  const size_t plain = size_t(
      std::count_if(entries.begin(), entries.end(), [](const Entry& entry) { return entry.kind == Kind::bytes; }));
  const bool fits = origin == Origin::safetensors ? plain == 1 && entries[0].kind == Kind::bytes
                    : origin == Origin::tensors   ? plain == 0
                    : origin == Origin::file      ? plain == 1 && entries.size() == 1
                                                  : plain == 0 && entries.size() == 1;
  TERSOR_REQUIRE(fits, code, "origin ", origin_name(origin), " does not allow ", entries.size(), " entries with ",
                 plain, " of plain bytes among them");
}

class IndexWriter {
 public:
  template <class T>
  void put(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_le(bytes_.data() + at, value);
  }
  void put(std::span<const uint8_t> data) { bytes_.insert(bytes_.end(), data.begin(), data.end()); }
  void text(std::string_view text, uint64_t most, const char* what) {
    TERSOR_REQUIRE(text.size() <= most, Code::bad_call, what, " has ", text.size(), " bytes, at most ", most, " fit");
    TERSOR_REQUIRE(is_utf8(text), Code::bad_call, what, " is not UTF-8");
    put(uint32_t(text.size()));
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

void put_entry(IndexWriter& out, const Entry& entry) {
  out.text(entry.name, kMostNameBytes, "a tensor's name");
  out.put(uint8_t(entry.kind));
  out.put(uint8_t(entry.kind == Kind::tensor ? uint8_t(entry.dtype) : 0));
  out.put(uint8_t(entry.shape.size()));
  out.put(entry.codec);
  out.put(uint32_t(entry.same_as ? *entry.same_as + 1 : 0));
  for (const uint64_t dim : entry.shape) out.put(dim);
  out.put(entry.raw_bytes);
  out.put(entry.hash.bytes());
  for (const Chunk& chunk : entry.chunks) {
    out.put(chunk.stored_bytes);
    out.put(chunk.crc);
  }
}

std::string take_text(ByteReader& in, uint64_t most, const char* what) {
  const auto length = in.take<uint32_t>();
  TERSOR_REQUIRE(length <= most, Code::bad_data, what, " of ", length, " bytes, at most ", most, " are allowed");
  const auto bytes = in.take(length);
  std::string text(bytes.begin(), bytes.end());
  TERSOR_REQUIRE(is_utf8(text), Code::bad_data, what, " is not UTF-8");
  return text;
}

// Sizes come before what they size: nothing is allocated that the bytes left could not fill.
Entry take_entry(ByteReader& in, uint64_t& offset, uint64_t chunks_end) {
  Entry entry;
  entry.name = take_text(in, kMostNameBytes, "index: a name");
  const auto kind = in.take<uint8_t>();
  TERSOR_REQUIRE(kind == uint8_t(Kind::tensor) || kind == uint8_t(Kind::bytes), Code::bad_data, "entry \"", entry.name,
                 "\" has kind ", int(kind), ", 1 (tensor) or 2 (bytes) is needed");
  entry.kind = Kind(kind);
  const auto dtype = in.take<uint8_t>();
  const auto rank = in.take<uint8_t>();
  entry.codec = in.take<uint8_t>();
  const auto same_as = in.take<uint32_t>();
  TERSOR_REQUIRE(rank <= kMostDims, Code::bad_data, entry.title(), " has ", int(rank), " dims, at most ", kMostDims,
                 " are allowed");
  if (same_as) entry.same_as = same_as - 1;
  for (int i = 0; i < rank; ++i) entry.shape.push_back(in.take<uint64_t>());
  entry.raw_bytes = in.take<uint64_t>();
  entry.hash = Hash128::of_bytes(in.take(16).first<16>());
  if (entry.kind == Kind::tensor) {
    const auto known = dtype_numbered(dtype);
    TERSOR_REQUIRE(known, Code::bad_data, entry.title(), " has dtype number ", int(dtype),
                   ", which tersor " TERSOR_VERSION " does not know");
    entry.dtype = *known;
    const uint64_t needed = bytes_of(entry.dtype, entry.shape);
    TERSOR_REQUIRE(needed == entry.raw_bytes, Code::bad_data, entry.title(), " says ", entry.raw_bytes, " bytes, ",
                   dtype_name(entry.dtype), shape_text(entry.shape), " needs ", needed);
  } else {
    TERSOR_REQUIRE(dtype == 0 && rank == 0, Code::bad_data, entry.title(), " is plain bytes with dtype ", int(dtype),
                   " and ", int(rank), " dims, 0 and 0 are needed");
  }
  if (entry.same_as) return entry;
  const uint64_t count = chunk_count(entry.raw_bytes);
  TERSOR_REQUIRE(count <= in.left() / 8, Code::bad_data, entry.title(), " of ", entry.raw_bytes, " bytes needs ", count,
                 " chunks, the index has ", in.left(), " bytes left for them");
  entry.chunks.reserve(size_t(count));
  for (uint64_t i = 0; i < count; ++i) {
    const auto stored = in.take<uint32_t>();
    const auto crc = in.take<uint32_t>();
    TERSOR_REQUIRE(stored >= 1 && stored <= kMostStoredBytes, Code::bad_data, entry.title(), ": chunk ", i, " has ",
                   stored, " stored bytes, 1..", kMostStoredBytes, " are allowed");
    TERSOR_REQUIRE(stored <= chunks_end - offset, Code::bad_data, entry.title(), ": chunk ", i, " has ", stored,
                   " stored bytes, ", chunks_end - offset, " are left before the index");
    entry.chunks.push_back({offset, stored, crc});
    offset += stored;
  }
  return entry;
}

constexpr std::string_view kBaseExtension = "base";

bool needs_base(const Entry& entry) { return entry.codec == uint8_t(Codec::difference) && !entry.same_as; }

void put_bases(IndexWriter& out, const Index& index) {
  TERSOR_REQUIRE(index.bases.size() <= kMostBases, Code::bad_call, "a file has at most ", kMostBases, " bases, not ",
                 index.bases.size());
  out.text(kBaseExtension, kMostNameBytes, "an extension's name");
  out.put(uint8_t(1));
  const auto links = uint64_t(std::count_if(index.entries.begin(), index.entries.end(), needs_base));
  out.put(1 + 16 * uint64_t(index.bases.size()) + links);
  out.put(uint8_t(index.bases.size()));
  for (const Hash128& hash : index.bases) out.put(hash.bytes());
  for (const Entry& entry : index.entries)
    if (needs_base(entry)) out.put(entry.base);
}

void take_bases(ByteReader in, Index& index) {
  TERSOR_REQUIRE(index.bases.empty(), Code::bad_data, "index: two extensions are \"", kBaseExtension, "\"");
  const auto count = in.take<uint8_t>();
  TERSOR_REQUIRE(count >= 1, Code::bad_data, "index: 0 bases, 1..", kMostBases, " are needed");
  for (int i = 0; i < count; ++i) index.bases.push_back(Hash128::of_bytes(in.take(16).first<16>()));
  for (Entry& entry : index.entries) {
    if (!needs_base(entry)) continue;
    entry.base = in.take<uint8_t>();
    TERSOR_REQUIRE(entry.base < count, Code::bad_data, entry.title(), " is coded against base ", int(entry.base),
                   " of ", int(count));
  }
  TERSOR_REQUIRE(in.left() == 0, Code::bad_data, "index: ", in.left(), " bytes too many in \"", kBaseExtension, "\"");
}

constexpr std::string_view kGapsExtension = "gaps";

void check_gaps(const Index& index, Code code) {
  uint64_t left = index.entries.back().raw_bytes;
  for (const uint64_t gap : index.gaps) {
    TERSOR_REQUIRE(gap <= left, code, "index: ", gap, " bytes before an entry, the gaps have ", left, " left");
    left -= gap;
  }
}

void put_gaps(IndexWriter& out, const Index& index) {
  TERSOR_REQUIRE(index.gaps.size() + 1 == index.entries.size(), Code::bad_call, "sizes of ", index.gaps.size(),
                 " gaps for ", index.entries.size(), " entries");
  check_gaps(index, Code::bad_call);
  out.text(kGapsExtension, kMostNameBytes, "an extension's name");
  out.put(uint8_t(1));
  out.put(4 * uint64_t(index.gaps.size()));
  for (const uint64_t gap : index.gaps) out.put(uint32_t(gap));
}

void take_gaps(ByteReader in, Index& index) {
  TERSOR_REQUIRE(index.gaps.empty(), Code::bad_data, "index: two extensions are \"", kGapsExtension, "\"");
  TERSOR_REQUIRE(has_gaps(index.origin), Code::bad_data, "index: origin ", origin_name(index.origin), " has no \"",
                 kGapsExtension, "\"");
  const size_t needed = 4 * (std::max<size_t>(index.entries.size(), 1) - 1);
  TERSOR_REQUIRE(needed > 0 && in.left() == needed, Code::bad_data, "index: ", in.left(), " bytes in \"",
                 kGapsExtension, "\", ", needed, " are needed");
  for (size_t i = 0; i < needed / 4; ++i) index.gaps.push_back(in.take<uint32_t>());
}

// Extensions are how later writers add what this reader need not, or must, understand.
void take_extensions(ByteReader& in, Index& index) {
  const auto count = in.take<uint32_t>();
  for (uint32_t i = 0; i < count; ++i) {
    const std::string name = take_text(in, kMostNameBytes, "index: an extension's name");
    const auto required = in.take<uint8_t>();
    TERSOR_REQUIRE(required <= 1, Code::bad_data, "extension \"", name, "\" has flag ", int(required),
                   ", 0 (optional) or 1 (required) is needed");
    if (name == kBaseExtension || name == kGapsExtension) {
      TERSOR_REQUIRE(required, Code::bad_data, "extension \"", name, "\" is optional, a required one is needed");
      const ByteReader content(in.take(in.take<uint64_t>()), name == kBaseExtension ? "index: bases" : "index: gaps");
      name == kBaseExtension ? take_bases(content, index) : take_gaps(content, index);
      continue;
    }
    TERSOR_REQUIRE(!required, Code::bad_data, "the file requires the extension \"", name,
                   "\", which tersor " TERSOR_VERSION " does not know");
    in.take(in.take<uint64_t>());
  }
}

}  // namespace

std::string_view origin_name(Origin origin) noexcept {
  switch (origin) {
    case Origin::safetensors: return "safetensors";
    case Origin::tensors: return "tensors";
    case Origin::file: return "file";
    case Origin::array: return "array";
    case Origin::npy: return "npy";
    case Origin::npz: return "npz";
    case Origin::torch: return "torch";
    case Origin::gguf: return "gguf";
  }
  return "unknown";
}

std::string codec_name(uint8_t codec) {
  switch (codec) {
#define TERSOR_CODEC(number, name) \
  case number: return #name;
#include "core/ids.def"
#undef TERSOR_CODEC
    default: return "codec " + std::to_string(codec);
  }
}

uint64_t Entry::stored_bytes() const noexcept {
  uint64_t sum = 0;
  for (const Chunk& chunk : chunks) sum += chunk.stored_bytes;
  return sum;
}

std::string Entry::title() const {
  if (kind == Kind::tensor) return name.empty() ? "the unnamed tensor" : "tensor \"" + name + "\"";
  return name.empty() ? "the file's bytes" : "the file's " + name;
}

Hash128 content_hash(Origin origin, std::span<const Entry> entries) {
  if (origin == Origin::file) return entries[0].hash;
  HashStream stream;
  const auto is_tensor = [](const Entry& entry) { return entry.kind == Kind::tensor; };
  if (has_gaps(origin) && std::none_of(entries.begin(), entries.end(), is_tensor)) {
    for (const Entry& entry : entries) stream.update(entry.hash.bytes());
    return stream.finish();
  }
  const auto update = [&](const auto& value) {
    stream.update({reinterpret_cast<const uint8_t*>(&value), sizeof value});
  };
  for (const size_t i : by_kind_and_name(entries)) {
    const Entry& entry = entries[i];
    if (entry.kind != Kind::tensor) continue;
    update(uint32_t(entry.name.size()));
    stream.update({reinterpret_cast<const uint8_t*>(entry.name.data()), entry.name.size()});
    update(uint8_t(entry.dtype));
    update(uint8_t(entry.shape.size()));
    for (const uint64_t dim : entry.shape) update(dim);
    update(entry.hash.bytes());
  }
  return stream.finish();
}

uint64_t chunk_count(uint64_t raw_bytes) noexcept { return ceil_div(raw_bytes, kChunkRawBytes); }

size_t chunk_raw_bytes(uint64_t raw_bytes, size_t i) noexcept {
  return size_t(std::min(kChunkRawBytes, raw_bytes - i * kChunkRawBytes));
}

std::vector<uint8_t> index_bytes(const Index& index) {
  TERSOR_REQUIRE(index.entries.size() <= kMostEntries, Code::bad_call, "a file holds at most ", kMostEntries,
                 " tensors, not ", index.entries.size());
  TERSOR_REQUIRE(index.metadata.size() <= kMostMetadata, Code::bad_call, "a file holds at most ", kMostMetadata,
                 " metadata pairs, not ", index.metadata.size());
  check_entries(index.origin, index.entries, Code::bad_call);
  IndexWriter out;
  out.put(uint32_t(index.origin));
  out.put(uint32_t(index.entries.size()));
  out.put(uint32_t(index.metadata.size()));
  out.put(index.hash.bytes());
  for (const Entry& entry : index.entries) put_entry(out, entry);
  for (const auto& [key, value] : index.metadata) {
    out.text(key, kMostNameBytes, "a metadata key");
    out.text(value, UINT32_MAX, "a metadata value");
  }
  const bool gaps = has_gaps(index.origin) && index.entries.size() > 1;
  out.put(uint32_t(!index.bases.empty()) + uint32_t(gaps));  // extensions
  if (!index.bases.empty()) put_bases(out, index);
  if (gaps) put_gaps(out, index);
  return out.take();
}

Index parse_index(std::span<const uint8_t> bytes, uint64_t chunks_end) {
  ByteReader in(bytes, "index");
  Index index;
  const auto origin = in.take<uint32_t>();
  TERSOR_REQUIRE(origin >= 1 && origin <= kOrigins, Code::bad_data, "index: origin ", origin, ", 1..", kOrigins,
                 " is needed");
  index.origin = Origin(origin);
  const auto entries = in.take<uint32_t>();
  const auto pairs = in.take<uint32_t>();
  TERSOR_REQUIRE(entries <= kMostEntries, Code::bad_data, "index: ", entries, " entries, at most ", kMostEntries,
                 " are allowed");
  TERSOR_REQUIRE(pairs <= kMostMetadata, Code::bad_data, "index: ", pairs, " metadata pairs, at most ", kMostMetadata,
                 " are allowed");
  index.hash = Hash128::of_bytes(in.take(16).first<16>());
  constexpr size_t kLeastEntryBytes = 36;
  TERSOR_REQUIRE(entries <= in.left() / kLeastEntryBytes, Code::bad_data, "index: ", entries,
                 " entries do not fit into ", in.left(), " bytes");
  index.entries.reserve(entries);
  uint64_t offset = kHeaderBytes;
  for (uint32_t i = 0; i < entries; ++i) index.entries.push_back(take_entry(in, offset, chunks_end));
  TERSOR_REQUIRE(offset == chunks_end, Code::bad_data, "the chunks end at byte ", offset, ", the index begins at ",
                 chunks_end);
  for (uint32_t i = 0; i < pairs; ++i) {
    std::string key = take_text(in, kMostNameBytes, "index: a metadata key");
    TERSOR_REQUIRE(index.metadata.empty() || index.metadata.rbegin()->first < key, Code::bad_data,
                   "index: metadata key \"", key, "\" is out of order or twice there");
    std::string value = take_text(in, UINT32_MAX, "index: a metadata value");
    index.metadata.emplace_hint(index.metadata.end(), std::move(key), std::move(value));
  }
  take_extensions(in, index);
  TERSOR_REQUIRE(in.left() == 0, Code::bad_data, "index: ", in.left(), " bytes too many");
  check_entries(index.origin, index.entries, Code::bad_data);
  for (const Entry& entry : index.entries)
    TERSOR_REQUIRE(!needs_base(entry) || !index.bases.empty(), Code::bad_data, entry.title(),
                   " is a difference, and the index names no base");
  if (has_gaps(index.origin)) {
    TERSOR_REQUIRE(index.gaps.size() + 1 == index.entries.size(), Code::bad_data, "index: ", index.gaps.size(),
                   " gaps for ", index.entries.size(), " entries, \"", kGapsExtension, "\" is missing");
    check_gaps(index, Code::bad_data);
  }
  return index;
}

bool is_utf8(std::string_view text) noexcept {
  const auto* at = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = at + text.size();
  while (at < end) {
    if (*at < 0x80) {
      ++at;
      continue;
    }
    // The first continuation byte's range shuts out overlong forms, surrogates and what lies above U+10FFFF.
    const uint8_t lead = *at;
    const int more = lead >= 0xc2 && lead <= 0xdf   ? 1
                     : lead >= 0xe0 && lead <= 0xef ? 2
                     : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                    : 0;
    if (more == 0 || end - at <= more) return false;
    const uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < least || at[1] > most) return false;
    for (int i = 2; i <= more; ++i)
      if (at[i] < 0x80 || at[i] > 0xbf) return false;
    at += more + 1;
  }
  return true;
}

}  // namespace tersor::container
