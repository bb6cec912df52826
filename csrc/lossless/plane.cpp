#include "lossless/plane.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/bits.h"
#include "entropy/bit_io.h"
#include "entropy/histogram.h"
#include "entropy/plain_chunk.h"
#include "entropy/rans_tables.h"

namespace tersor::lossless {
namespace {

using namespace entropy;
constexpr const char* kWhat = "lossless plane";
enum Kind : uint8_t { kRaw = 0, kConstant = 1, kRans = 2 };
constexpr size_t kSampleStride = 32, kLeastSampled = 1 << 17, kMostRuns = 64;  // fewer are counted, not sampled

struct Segment {
  size_t values;
  Table table;
  uint64_t cost;  // of what was counted, in 2^-16 bit
};

// What `values` like those counted cost at least.
uint64_t entropy_bytes(const ByteCounts& counts, size_t values) noexcept {
  uint64_t total = 0, cost = 0;
  for (const uint64_t count : counts) total += count;
  for (const uint64_t count : counts)
    if (count) cost += count * cost_q16(uint32_t(count), uint32_t(total));
  return (cost >> 19) * values / total;
}

std::vector<uint8_t> bytes_of(const Table& table) {
  std::vector<uint8_t> bytes;
  table.serialize(bytes);
  return bytes;
}

uint64_t table_bits_q16(const Table& table) { return uint64_t(bytes_of(table).size() + 2) << 19; }

// Cuts the plane where a table of its own pays for itself. Every table knows all values that may come, so that it can
// serve what follows; what a segment lacks gets one slot.
std::vector<Segment> cut(std::span<const uint8_t> values, int limit, const PlaneOptions& options) {
  std::vector<ByteCounts> counts;
  std::vector<size_t> sizes;
  ByteCounts all{};
  for (size_t at = 0; at < values.size(); at += sizes.back()) {
    size_t size = std::min(options.segment, values.size() - at);
    if (values.size() - at - size < options.segment / 2) size = values.size() - at;  // no short last one
    counts.emplace_back();
    sample_bytes(values.subspan(at, size), size_t(options.stride), counts.back());
    sizes.push_back(size);
    for (size_t s = 0; s < 256; ++s) all[s] += counts.back()[s];
  }
  if (options.stride > 1)  // a sample proves no absence
    for (size_t s = 0; s < size_t(limit); ++s) all[s] += all[s] == 0;
  const auto table_for = [&](ByteCounts known) {
    for (size_t s = 0; s < 256; ++s)
      if (all[s] && !known[s]) known[s] = 1;
    return Table::from_counts(known, options.precision);
  };
  Segment whole{values.size(), table_for(all), 0};
  whole.cost = whole.table.cost_q16(all) + table_bits_q16(whole.table) / uint64_t(options.stride);
  std::vector<Segment> segments;
  uint64_t sum = 0;
  for (size_t i = 0; i < sizes.size() && sizes.size() > 1; ++i) {
    Table own = table_for(counts[i]);
    const uint64_t own_cost = own.cost_q16(counts[i]) + table_bits_q16(own) / uint64_t(options.stride);
    const uint64_t shared_cost = segments.empty() ? ~uint64_t(0) : segments.back().table.cost_q16(counts[i]);
    if (shared_cost <= own_cost || segments.size() == kMostRuns)
      segments.back().values += sizes[i], segments.back().cost += shared_cost;
    else
      segments.push_back({sizes[i], std::move(own), own_cost});
    sum += std::min(shared_cost, own_cost);
  }
  if (segments.empty() || whole.cost <= sum) segments.assign(1, std::move(whole));
  return segments;
}

}  // namespace

bool encode_plane_below(std::span<const uint8_t> values, int limit, const PlaneOptions& options, size_t rival,
                        ByteWriter& out) {
  TERSOR_ASSERT(!values.empty() && options.segment % kMostLanes == 0);
  if (is_constant(values)) {
    out.put(uint8_t(kConstant)), out.put(values[0]);
    return true;
  }
  const ByteWriter before = out;
  const size_t most = worth(rival, options.least_saving);
  if (limit > 32 && values.size() >= kLeastSampled) {
    // Most planes of mantissas look random: one value in 32 tells, unless parts differ from each other.
    ByteCounts some{};
    sample_bytes(values, kSampleStride, some);
    if (entropy_bytes(some, values.size()) >= most) return false;
  }
  const std::vector<Segment> segments = cut(values, limit, options);
  uint64_t cost = 0;
  for (const Segment& segment : segments) cost += segment.cost;
  if (limit > 32 && cost >> 19 >= most) return false;
  out.put(uint8_t(kRans));
  put_varint(out, segments.size());
  ScratchFrame frame;
  const auto tables = frame.take<EncodeTables>(segments.size());
  std::vector<entropy::Run> runs;
  for (size_t i = 0; i < segments.size(); ++i) {
    put_varint(out, segments[i].values / kMostLanes);  // the last run takes the remainder
    out.append(bytes_of(segments[i].table));
    prepare_encode(segments[i].table, tables[i], frame.take<uint16_t>(slot_entries(segments[i].table)));
    runs.push_back({&tables[i], segments[i].values});
  }
  // The block's length stands before it in four bytes, so that it can be written in place.
  const auto length = out.take(4);
  const size_t block = out.size();
  const bool few_bits = (cost >> 16) * uint64_t(options.stride) * 4 < values.size();  // below a quarter a value
  encode_block(runs, values.data(), out, few_bits ? Lanes::half : options.quick ? Lanes::many : Lanes::few);
  if (!length.empty()) store_le(length.data(), uint32_t(out.size() - block));
  if (limit <= 32 || (!out.full() && out.size() - before.size() < most)) return true;
  out = before;
  return false;
}

void encode_plane(std::span<const uint8_t> values, int limit, const PlaneOptions& options, ByteWriter& out) {
  if (encode_plane_below(values, limit, options, values.size(), out)) return;
  out.put(uint8_t(kRaw));
  out.append(values);
}

PlaneDecoder::PlaneDecoder(std::span<const uint8_t>& data, size_t values, int limit) {
  ByteReader reader(data, kWhat);
  const uint8_t kind = reader.take<uint8_t>();
  switch (kind) {
    case kRaw:
      TERSOR_REQUIRE(limit > 32, Code::bad_data, kWhat, ": names are not stored raw");
      raw_ = reader.take(values);
      break;
    case kConstant:
      constant_ = reader.take<uint8_t>();
      TERSOR_REQUIRE(constant_ < limit, Code::bad_data, kWhat, ": value ", constant_, ", below ", limit, " is needed");
      break;
    case kRans: {
      std::span<const uint8_t> rest = reader.take(reader.left());
      const uint64_t runs = take_varint(rest, kWhat);
      TERSOR_REQUIRE(runs >= 1 && runs <= kMostRuns, Code::bad_data, kWhat, ": ", runs, " runs, 1..64 are allowed");
      size_t left = values;
      for (uint64_t i = 0; i < runs; ++i) {
        const uint64_t rows = take_varint(rest, kWhat);
        const bool last = i + 1 == runs;
        TERSOR_REQUIRE(rows <= left / kMostLanes && (last ? rows == left / kMostLanes : rows > 0), Code::bad_data,
                       kWhat, ": a run of ", rows, " * 256 values, ", left, " are left");
        const size_t size = last ? left : size_t(rows) * kMostLanes;
        left -= size;
        runs_.push_back({size, Table::parse(rest)});
        const Table& table = runs_.back().table;
        TERSOR_REQUIRE(table.last() < size_t(limit) && !table.has_escape() && !table.single(), Code::bad_data, kWhat,
                       ": a table up to ", table.last(), ", two values below ", limit, " are needed");
        TERSOR_REQUIRE(table.frequencies().size() <= 256, Code::bad_data, kWhat, ": a table of ",
                       table.frequencies().size(), " frequencies, at most 256 are allowed");
      }
      ByteReader block(rest, kWhat);
      const uint32_t bytes = block.take<uint32_t>();
      block_.emplace(block.take(bytes), values);
      data = block.take(block.left());
      tables_ = std::make_unique<DecodeTables>();
      left_ = runs_[0].values;
      prepare_decode(runs_[0].table, *tables_);
      return;
    }
    default: fail(Code::bad_data, kWhat, ": kind ", int(kind), ", 0..2 are known");
  }
  data = reader.take(reader.left());
}

const uint8_t* PlaneDecoder::next(size_t count, uint8_t* scratch) {
  if (constant_ >= 0) {
    std::memset(scratch, constant_, count);
    return scratch;
  }
  if (!block_) {
    const uint8_t* at = raw_.data();
    raw_ = raw_.subspan(count);
    return at;
  }
  for (size_t done = 0; done < count;) {
    if (left_ == 0) {
      left_ = runs_[++run_].values;
      prepare_decode(runs_[run_].table, *tables_);
    }
    const size_t part = std::min(left_, count - done);
    block_->read(*tables_, {scratch + done, part});
    left_ -= part, done += part;
  }
  return scratch;
}

void PlaneDecoder::finish() const {
  if (block_) block_->finish();
}

}  // namespace tersor::lossless
