#include "lossless/difference.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/arena.h"
#include "core/bits.h"
#include "lossless/numbers.h"
#include "lossless/plane.h"
#include "transform/difference.h"

namespace tersor::lossless {
namespace {

using transform::kMostWidth;
constexpr const char* kWhat = "difference chunk";
enum Way : uint8_t { kAlone = 0, kEqual = 1, kDifferences = 2 };
constexpr size_t kSampleRuns = 8, kSampleBytes = 8192;  // of a run; a multiple of every width

// Differences of neighbors that a training step moves alike keep their statistics for long, so few tables do.
PlaneOptions options_of(int level) {
  PlaneOptions options{level < 6 ? kChunkBytes : size_t(1) << 16, 14, 0, 1};
  options.least_saving = level < 6 ? 100 : 20;
  return options;
}

bool known(size_t width) noexcept { return width == 1 || width == 2 || width == 4 || width == 8; }

void encode_planes(size_t width, std::span<const uint8_t> raw, std::span<const uint8_t> base, int level,
                   ByteWriter& out) {
  ScratchFrame frame;
  uint8_t* planes[kMostWidth];
  const size_t count = raw.size() / width;
  for (size_t i = 0; i < width; ++i) planes[i] = frame.bytes(count).data();
  transform::subtract_to_planes(width, raw, base, planes);
  out.put(uint8_t(kDifferences)), out.put(uint8_t(width));
  for (size_t i = 0; i < width; ++i) encode_plane({planes[i], count}, 256, options_of(level), out);
}

// Runs of bytes from all over the chunk, one behind the other.
std::span<const uint8_t> sampled(std::span<const uint8_t> data, ScratchFrame& frame) {
  const auto sample = frame.bytes(kSampleRuns * kSampleBytes);
  const size_t step = (data.size() - kSampleBytes) / (kSampleRuns - 1) / kMostWidth * kMostWidth;
  for (size_t i = 0; i < kSampleRuns; ++i)
    std::memcpy(sample.data() + i * kSampleBytes, data.data() + i * step, kSampleBytes);
  return sample;
}

// Whether the difference is the smaller of the two. What a table costs is a chunk's affair and not a sample's.
bool worth_it(const Layout& layout, size_t width, std::span<const uint8_t> raw, std::span<const uint8_t> base) {
  ScratchFrame frame;
  constexpr size_t kSample = kSampleRuns * kSampleBytes;
  if (raw.size() > 2 * kSample) {
    if (layout.record.empty())
      raw = sampled(raw, frame), base = sampled(base, frame);
    else  // cut into runs they would be records no more
      raw = raw.first(kSample), base = base.first(kSample);
  }
  constexpr int kQuick = 1;
  ByteWriter planes(frame.bytes(raw.size()));
  encode_planes(width, raw, base, kQuick, planes);
  // Floats without repeats, zeros or smoothness never take so little by themselves.
  const bool floats = layout.record.empty() && (layout.element == Element::bf16 || layout.element == Element::fp16 ||
                                                layout.element == Element::fp32);
  if (floats && !planes.full() && planes.size() < raw.size() / 16 &&
      !has_pattern(raw, layout.element == Element::fp32 ? 4 : 2))
    return true;
  return !planes.full() && planes.size() < encode_chunk(layout, raw, kQuick, frame.bytes(chunk_bound(raw.size())));
}

}  // namespace

size_t difference_bound(size_t raw_bytes) noexcept { return chunk_bound(raw_bytes) + 1; }

size_t encode_difference(const Layout& layout, size_t width, std::span<const uint8_t> raw,
                         std::span<const uint8_t> base, int level, std::span<uint8_t> coded) {
  TERSOR_REQUIRE(raw.size() == base.size(), Code::bad_call, "a base of ", base.size(), " bytes for ", raw.size());
  TERSOR_REQUIRE(level >= kLeastLevel && level <= kMostLevel, Code::bad_call, "level is in 1..9, not ", level);
  TERSOR_REQUIRE(!raw.empty() && raw.size() <= kChunkBytes, Code::bad_call, "a chunk has 1..", kChunkBytes,
                 " bytes, not ", raw.size());
  TERSOR_REQUIRE(known(width), Code::bad_call, "elements of ", width, " bytes, 1, 2, 4 or 8 are known");
  TERSOR_REQUIRE(coded.size() >= difference_bound(raw.size()), Code::bad_call, "a buffer of ", coded.size(),
                 " bytes for ", difference_bound(raw.size()));
  if (std::memcmp(raw.data(), base.data(), raw.size()) == 0) {
    coded[0] = kEqual;
    return 1;
  }
  if (raw.size() % width) width = 1;
  ByteWriter out(coded.first(raw.size()));
  if (worth_it(layout, width, raw, base)) {
    encode_planes(width, raw, base, level, out);
    if (!out.full()) return out.size();
  }
  coded[0] = kAlone;
  return 1 + encode_chunk(layout, raw, level, coded.subspan(1));
}

void decode_difference(std::span<const uint8_t> coded, std::span<const uint8_t> base, std::span<uint8_t> raw) {
  TERSOR_ASSERT(base.size() == raw.size());
  ByteReader reader(coded, kWhat);
  const uint8_t way = reader.take<uint8_t>();
  switch (way) {
    case kAlone: return decode_chunk(reader.take(reader.left()), raw);
    case kEqual:
      TERSOR_REQUIRE(reader.left() == 0, Code::bad_data, kWhat, ": ", reader.left(), " bytes too many");
      if (!raw.empty()) std::memcpy(raw.data(), base.data(), raw.size());
      return;
    case kDifferences: break;
    default: fail(Code::bad_data, kWhat, ": way ", int(way), ", 0..2 are known");
  }
  const size_t width = reader.take<uint8_t>();
  TERSOR_REQUIRE(known(width) && !raw.empty() && raw.size() % width == 0 && raw.size() <= kChunkBytes, Code::bad_data,
                 kWhat, ": ", raw.size(), " bytes in elements of ", width);
  const size_t count = raw.size() / width;
  std::span<const uint8_t> data = reader.take(reader.left());
  std::optional<PlaneDecoder> planes[kMostWidth];
  ScratchFrame frame;
  uint8_t* scratch[kMostWidth];
  for (size_t i = 0; i < width; ++i) planes[i].emplace(data, count, 256), scratch[i] = frame.bytes(kTile).data();
  TERSOR_REQUIRE(data.empty(), Code::bad_data, kWhat, ": ", data.size(), " bytes too many");
  for (size_t at = 0; at < count; at += kTile) {
    const size_t some = std::min(kTile, count - at);
    const uint8_t* bytes[kMostWidth];
    for (size_t i = 0; i < width; ++i) bytes[i] = planes[i]->next(some, scratch[i]);
    transform::add_from_planes(width, bytes, base.subspan(at * width, some * width),
                               raw.subspan(at * width, some * width));
  }
  for (size_t i = 0; i < width; ++i) planes[i]->finish();
}

}  // namespace tersor::lossless
