#include <algorithm>
#include <atomic>
#include <bit>
#include <utility>

#include "core/arena.h"
#include "core/bits.h"
#include "core/pool.h"
#include "entropy/bit_io.h"
#include "entropy/golomb.h"
#include "entropy/plain_chunk.h"

namespace tersor::entropy::gap {
namespace {

using golomb::kChunk;

constexpr const char* kWhat = "gap stream";
constexpr uint8_t kStream = 8, kVersion = 1;  // core/ids.def
enum Kind : uint8_t { kPositions = 0, kOthers = 1, kBitmap = 2 };
constexpr int kLogMostPositions = 16;  // a byte of a stream stands for 2^16 positions at most

struct Stream {
  golomb::Head head;
  uint64_t size, count;
  uint64_t coded() const { return head.kind == kOthers ? size - count : count; }
};

Stream open(std::span<const uint8_t> data) {
  Stream stream{golomb::read_head(data, kStream, kBitmap, kWhat), 0, 0};
  auto& rest = stream.head.rest;
  stream.size = take_varint(rest, kWhat), stream.count = take_varint(rest, kWhat);
  TERSOR_REQUIRE(stream.size <= kMostSize && stream.count <= stream.size, Code::bad_data, kWhat, ": ", stream.count,
                 " positions below ", stream.size);
  if (stream.head.kind == kBitmap)
    TERSOR_REQUIRE(rest.size() == ceil_div(stream.size, 8), Code::bad_data, kWhat, ": a bitmap of ", rest.size(),
                   " bytes for ", stream.size, " bits");
  else
    golomb::require_bits(stream.coded(), rest.size(), kWhat);
  TERSOR_REQUIRE(ceil_div(stream.count, uint64_t(1) << kLogMostPositions) <= data.size(), Code::bad_data, kWhat, ": ",
                 stream.count, " positions in ", data.size(), " bytes, at most 2^16 for each are allowed");
  return stream;
}

template <class T>
uint64_t wide(T position) {  // below 0: above every size
  return uint64_t(int64_t(position));
}
template <>
uint64_t wide(uint32_t position) {
  return position;
}

// The gaps of positions the first of which is `least` or more; false where they do not increase below size.
template <class T>
bool take_gaps(std::span<const T> positions, uint64_t least, uint64_t size, uint64_t* gaps) {
  bool wrong = false;
  for (size_t i = 0; i < positions.size(); ++i) {
    const uint64_t position = wide(positions[i]);
    wrong |= position < least;
    wrong |= position >= size;
    gaps[i] = position - least;
    least = position + 1;
  }
  return !wrong;
}

template <class T>
[[noreturn]] void fail_at_first(std::span<const T> positions, uint64_t size) {
  uint64_t least = 0;
  for (size_t i = 0;; least = wide(positions[i++]) + 1) {
    TERSOR_REQUIRE(wide(positions[i]) < size, Code::bad_call, "position ", positions[i], " at place ", i,
                   " is not below the size of ", size);
    TERSOR_REQUIRE(wide(positions[i]) >= least, Code::bad_call, "position ", positions[i], " at place ", i,
                   " is not above the ", least - 1, " before it");
  }
}

struct Coded {
  std::vector<uint64_t> advances;  // of a chunk: its last index - that of the chunk before, which is -1 at first
  std::vector<std::vector<uint8_t>> chunks;
  explicit Coded(uint64_t count) : advances(size_t(ceil_div(count, kChunk))), chunks(advances.size()) {}
};

// Calls f(i, gaps, advance) for every chunk i. Raises bad_call for positions that do not increase below size.
template <class T, class F>
void each_chunk(std::span<const T> positions, uint64_t size, int threads, const F& f) {
  std::atomic<bool> wrong = false;
  parallel_for(size_t(ceil_div(positions.size(), kChunk)), 1, threads, [&](size_t i, size_t) {
    const size_t first = i * kChunk, count = std::min(kChunk, positions.size() - first);
    const uint64_t least = i == 0 ? 0 : wide(positions[first - 1]) + 1;
    ScratchFrame frame;
    const auto gaps = frame.take<uint64_t>(count);
    if (take_gaps(positions.subspan(first, count), least, size, gaps.data()))
      f(i, gaps, wide(positions[first + count - 1]) + 1 - least);
    else
      wrong = true;
  });
  if (wrong) fail_at_first(positions, size);  // from the front, whatever a thread has met first
}

template <class T>
void code_positions(std::span<const T> positions, uint64_t size, int threads, Coded& coded) {
  each_chunk(positions, size, threads, [&](size_t i, std::span<const uint64_t> gaps, uint64_t advance) {
    coded.advances[i] = advance, coded.chunks[i] = golomb::encode_chunk(gaps, 0);
  });
}

// The indexes below size that are not among the positions, one after the other.
template <class T>
void code_others(std::span<const T> positions, uint64_t size, Coded& coded) {
  ScratchFrame frame;
  const auto gaps = frame.take<uint64_t>(kChunk);
  uint64_t left = size - positions.size(), begin = 0, least = 0, next = 0;
  size_t chunk = 0, held = 0;
  const auto take_until = [&](uint64_t end) {
    for (; next < end; ++next) {
      gaps[held++] = next - least, least = next + 1;
      if (held < std::min<uint64_t>(kChunk, left)) continue;
      coded.advances[chunk] = least - begin, begin = least;
      coded.chunks[chunk++] = golomb::encode_chunk(gaps.first(held), 0);
      left -= held, held = 0;
    }
  };
  for (const T position : positions) take_until(wide(position)), ++next;
  take_until(size);
}

template <class T>
void put_bitmap(std::span<const T> positions, std::span<uint8_t> bitmap) {
  for (const T position : positions) bitmap[size_t(position) / 8] |= uint8_t(1 << (position & 7));
}

// Where each chunk's indexes begin and end, and its bytes.
struct Chunks {
  std::vector<uint64_t> edges, ends;
  std::span<const uint8_t> data;
  std::span<const uint8_t> operator[](size_t i) const {
    return data.subspan(size_t(ends[i]), size_t(ends[i + 1] - ends[i]));
  }
};

Chunks take_chunks(const Stream& stream) {
  auto rest = stream.head.rest;
  const size_t count = size_t(ceil_div(stream.coded(), uint64_t(1) << stream.head.log_chunk));
  Chunks chunks{std::vector<uint64_t>(count + 1), {}, {}};
  for (size_t i = 0; i < count; ++i) {
    const uint64_t advance = take_varint(rest, kWhat);
    chunks.edges[i + 1] = checked_add(chunks.edges[i], advance, kWhat);
    TERSOR_REQUIRE(chunks.edges[i + 1] <= stream.size, Code::bad_data, kWhat, ": an index of ", chunks.edges[i + 1] - 1,
                   ", below ", stream.size, " is needed");
  }
  chunks.ends = take_chunk_ends(rest, count, kWhat);
  chunks.data = rest;
  return chunks;
}

// Gaps become indexes: from `at` on, the last one `end` - 1. Raises bad_data.
template <class Store>
void sum_gaps(std::span<const uint64_t> gaps, uint64_t at, uint64_t end, const Store& store) {
  bool wrong = false;
  for (const uint64_t gap : gaps) {
    wrong |= gap >= end;  // so that the sum cannot wrap; behind the first that is wrong it does not matter
    at += gap;
    wrong |= at >= end;
    store(at++);
  }
  TERSOR_REQUIRE(!wrong && at == end, Code::bad_data, kWhat, ": a chunk's gaps do not lead to ", end);
}

template <class T>
void decode_positions(const Stream& stream, std::span<T> out, int threads) {
  const Chunks chunks = take_chunks(stream);
  const size_t chunk = size_t(1) << stream.head.log_chunk;
  parallel_for(chunks.edges.size() - 1, 1, threads, [&](size_t i, size_t) {
    ScratchFrame frame;
    const auto gaps = frame.take<uint64_t>(std::min(chunk, out.size() - i * chunk));
    golomb::decode_chunk(chunks[i], gaps, kWhat);
    T* to = out.data() + i * chunk;
    sum_gaps(gaps, chunks.edges[i], chunks.edges[i + 1], [&](uint64_t index) { *to++ = T(index); });
  });
}

template <class T>
void decode_others(const Stream& stream, std::span<T> out, int threads) {
  const Chunks chunks = take_chunks(stream);
  const size_t chunk = size_t(1) << stream.head.log_chunk, count = chunks.edges.size() - 1;
  const uint64_t others = stream.coded();
  for (size_t i = 0; i < count; ++i)
    TERSOR_REQUIRE(chunks.edges[i + 1] - chunks.edges[i] >= std::min<uint64_t>(chunk, others - i * chunk),
                   Code::bad_data, kWhat, ": a chunk that advances by less than the indexes it holds");
  // What follows the last of the others is one more part.
  parallel_for(count + 1, 1, threads, [&](size_t i, size_t) {
    ScratchFrame frame;
    const auto before = std::min<uint64_t>(others, i * chunk);
    uint64_t next = chunks.edges[i];
    T* to = out.data() + (next - before);
    if (i == count) {
      for (; next < stream.size; ++next) *to++ = T(next);
      return;
    }
    const auto gaps = frame.take<uint64_t>(size_t(std::min<uint64_t>(chunk, others - before)));
    golomb::decode_chunk(chunks[i], gaps, kWhat);
    sum_gaps(gaps, next, chunks.edges[i + 1], [](uint64_t) {});
    for (const uint64_t gap : gaps) {
      for (const uint64_t end = next + gap; next < end; ++next) *to++ = T(next);
      ++next;
    }
  });
}

template <class T>
void decode_bitmap(const Stream& stream, std::span<T> out) {
  const auto bitmap = stream.head.rest;
  uint64_t ones = 0;
  const auto word_at = [&](size_t byte) {
    uint64_t word = 0;
    std::memcpy(&word, bitmap.data() + byte, std::min<size_t>(8, bitmap.size() - byte));
    return word;
  };
  for (size_t byte = 0; byte < bitmap.size(); byte += 8) ones += uint64_t(std::popcount(word_at(byte)));
  TERSOR_REQUIRE(ones == stream.count && (stream.size % 8 == 0 || bitmap.back() >> (stream.size % 8) == 0),
                 Code::bad_data, kWhat, ": a bitmap of ", ones, " bits for ", stream.count, " positions below ",
                 stream.size);
  T* to = out.data();
  for (size_t byte = 0; byte < bitmap.size(); byte += 8)
    for (uint64_t word = word_at(byte); word; word &= word - 1) *to++ = T(8 * byte + unsigned(std::countr_zero(word)));
}

std::vector<uint8_t> head_of(Kind kind, uint64_t size, uint64_t count) {
  std::vector<uint8_t> out = {kStream, kVersion, golomb::kLogChunk, kind};
  put_varint(out, size), put_varint(out, count);
  return out;
}

}  // namespace

template <class T>
std::vector<uint8_t> encode(std::span<const T> positions, uint64_t size, int threads) {
  TERSOR_REQUIRE(size <= kMostSize, Code::bad_call, "a size of ", size, ", at most 2^63 is allowed");
  const uint64_t count = positions.size();
  const bool dense = count > size / 2;
  if (dense) each_chunk(positions, size, threads, [](size_t, std::span<const uint64_t>, uint64_t) {});
  Coded coded(dense ? size - count : count);
  if (dense)
    code_others(positions, size, coded);
  else
    code_positions(positions, size, threads, coded);
  auto out = head_of(dense ? kOthers : kPositions, size, count);
  for (const uint64_t advance : coded.advances) put_varint(out, advance);
  golomb::append_chunks(out, coded.chunks);
  auto plain = head_of(kBitmap, size, count);
  const uint64_t bitmap = ceil_div(size, 8);
  if (plain.size() + bitmap >= out.size() && ceil_div(count, uint64_t(1) << kLogMostPositions) <= out.size())
    return out;
  plain.resize(plain.size() + size_t(bitmap));
  put_bitmap(positions, std::span(plain).last(size_t(bitmap)));
  return plain;
}

Told told(std::span<const uint8_t> data) {
  const Stream stream = open(data);
  return {stream.size, stream.count};
}

template <class T>
void decode(std::span<const uint8_t> data, std::span<T> out, int threads) {
  const Stream stream = open(data);
  TERSOR_REQUIRE(stream.count == out.size(), Code::bad_call, "the stream holds ", stream.count,
                 " positions, the buffer ", out.size());
  TERSOR_REQUIRE(stream.size == 0 || std::in_range<T>(stream.size - 1), Code::bad_call, "positions below ", stream.size,
                 " do not fit ", 8 * sizeof(T), std::is_signed_v<T> ? " signed" : " unsigned", " bits");
  if (stream.head.kind == kPositions) return decode_positions(stream, out, threads);
  if (stream.head.kind == kOthers) return decode_others(stream, out, threads);
  decode_bitmap(stream, out);
}

#define TERSOR_GAP(T)                                                         \
  template std::vector<uint8_t> encode<T>(std::span<const T>, uint64_t, int); \
  template void decode<T>(std::span<const uint8_t>, std::span<T>, int);
TERSOR_GAP(uint32_t)
TERSOR_GAP(int32_t)
TERSOR_GAP(uint64_t)
TERSOR_GAP(int64_t)
#undef TERSOR_GAP

}  // namespace tersor::entropy::gap
