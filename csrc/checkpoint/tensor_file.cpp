#include <algorithm>
#include <cstring>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "checkpoint/decode.h"
#include "checkpoint/files.h"
#include "container/reader.h"
#include "core/arena.h"
#include "core/error.h"
#include "core/pool.h"

namespace tersor::checkpoint {

struct TensorFile::State {
  State(std::span<const uint8_t> bytes, References&& given)
      : reader(bytes), bases(std::move(given)), decoder(reader, bases) {}
  State(InputFile&& input, References&& given, bool partly = false)
      : mapped(std::move(input)), reader(mapped->bytes()), bases(std::move(given)), decoder(reader, bases, partly) {}
  std::optional<InputFile> mapped;
  container::Reader reader;
  References bases;
  PieceDecoder decoder;
};

namespace {

// A part of one chunk that somebody wants.
struct Part {
  size_t entry, chunk;
  size_t skip;  // raw bytes of the chunk before it
  size_t chunk_raw_bytes;
  std::span<uint8_t> out;
};

// Parts of one chunk, which is decoded once.
void read_parts(const PieceDecoder& decoder, std::span<const Part> parts) {
  const Part& first = parts[0];
  if (parts.size() == 1 && first.out.size() == first.chunk_raw_bytes)
    return decoder.piece(first.entry, first.chunk, first.out);
  ScratchFrame frame;
  const auto raw = frame.bytes(first.chunk_raw_bytes);
  decoder.piece(first.entry, first.chunk, raw);
  for (const Part& part : parts) std::memcpy(part.out.data(), raw.data() + part.skip, part.out.size());
}

}  // namespace

TensorFile TensorFile::open(const std::string& path, std::span<const std::string> bases) {
  Pace pace(nullptr, 0);
  auto given = References::open(bases, 0, pace);
  return naming(
      path, [&] { return TensorFile(std::make_shared<const State>(InputFile::open(path, pace), std::move(given))); });
}

TensorFile TensorFile::open_index(const std::string& path) {
  Pace pace(nullptr, 0);
  return naming(
      path, [&] { return TensorFile(std::make_shared<const State>(InputFile::open(path, pace), References(), true)); });
}

TensorFile TensorFile::view(std::span<const uint8_t> bytes, std::span<const std::string> bases) {
  Pace pace(nullptr, 0);
  return TensorFile(std::make_shared<const State>(bytes, References::open(bases, 0, pace)));
}

const std::vector<Entry>& TensorFile::entries() const noexcept { return state_->reader.index().entries; }
const Metadata& TensorFile::metadata() const noexcept { return state_->reader.index().metadata; }
const std::vector<Hash128>& TensorFile::bases() const noexcept { return state_->reader.index().bases; }
Hash128 TensorFile::hash() const noexcept { return state_->reader.index().hash; }
int TensorFile::version() const noexcept { return state_->reader.version(); }
std::string TensorFile::origin() const { return std::string(container::origin_name(state_->reader.index().origin)); }
uint64_t TensorFile::stored_bytes(size_t entry) const noexcept { return entries()[entry].stored_bytes(); }

void TensorFile::read(size_t entry, std::span<uint8_t> out, int threads) const {
  TERSOR_REQUIRE(entry < entries().size(), Code::bad_call, "entry ", entry, " of ", entries().size());
  TERSOR_REQUIRE(out.size() == entries()[entry].raw_bytes, Code::bad_call, entries()[entry].title(), " has ",
                 entries()[entry].raw_bytes, " bytes, the output has ", out.size());
  read_range(entry, 0, out, threads);
}

void TensorFile::read_range(size_t entry, uint64_t begin, std::span<uint8_t> out, int threads) const {
  const Request request{entry, begin, out};
  read_all({&request, 1}, threads);
}

void TensorFile::read_all(std::span<const Request> requests, int threads) const {
  std::vector<Part> parts;
  for (const Request& request : requests) {
    TERSOR_REQUIRE(request.entry < entries().size(), Code::bad_call, "entry ", request.entry, " of ", entries().size());
    const Entry& entry = entries()[request.entry];
    uint64_t begin = request.begin;
    auto out = request.out;
    TERSOR_REQUIRE(begin <= entry.raw_bytes && out.size() <= entry.raw_bytes - begin, Code::bad_call, entry.title(),
                   " has ", entry.raw_bytes, " bytes, ", out.size(), " from byte ", begin, " on were asked");
    while (!out.empty()) {
      const auto chunk = size_t(begin / container::kChunkRawBytes);
      const auto skip = size_t(begin % container::kChunkRawBytes);
      const size_t chunk_raw_bytes = container::chunk_raw_bytes(entry.raw_bytes, chunk);
      const size_t taken = std::min(out.size(), chunk_raw_bytes - skip);
      parts.push_back({request.entry, chunk, skip, chunk_raw_bytes, out.first(taken)});
      begin += taken;
      out = out.subspan(taken);
    }
  }
  std::vector<size_t> begins;  // of the parts that follow one another in one chunk
  uint64_t raw_bytes = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0 && parts[i].entry == parts[i - 1].entry && parts[i].chunk == parts[i - 1].chunk) continue;
    begins.push_back(i);
    raw_bytes += parts[i].chunk_raw_bytes;
  }
  // Small chunks are taken many at once.
  const size_t chunks = begins.size(), average = chunks == 0 ? 1 : 1 + size_t(raw_bytes / chunks);
  begins.push_back(parts.size());
  const size_t grain = std::clamp<size_t>(lossless::kChunkBytes / 4 / average, 1, 1024);
  parallel_for(chunks, grain, threads, [&](size_t first, size_t last) {
    for (size_t i = first; i < last; ++i)
      read_parts(state_->decoder, std::span(parts).subspan(begins[i], begins[i + 1] - begins[i]));
  });
}

}  // namespace tersor::checkpoint
