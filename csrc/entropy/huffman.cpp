#include "entropy/huffman.h"

#include <algorithm>
#include <memory>

#include "core/bits.h"
#include "core/isa.h"
#include "core/pool.h"
#include "entropy/bit_io.h"
#include "entropy/plain_chunk.h"

namespace tersor::entropy::huffman {
namespace {

constexpr const char* kWhat = "huffman stream";
constexpr uint8_t kStream = 2, kVersion = 1;  // core/ids.def
enum Kind : uint8_t { kRaw = kRawChunk, kConstant = kConstantChunk, kCoded = 2 };
constexpr int kLogChunk = 20, kLeastLogChunk = 12, kMostLogChunk = 20, kLogPiece = 10;
constexpr size_t kMostHead = 4 + 10 + 3 + 128, kMostLengthBytes = 3;

constexpr Variant<DecodeSpans> kDecodeSpans[] = {{Isa::scalar, decode_spans_scalar},
                                                 TERSOR_X86({Isa::avx2, decode_spans_avx2}, )};
constexpr Variant<EncodeSpans> kEncodeSpans[] = {{Isa::scalar, encode_spans_scalar},
                                                 TERSOR_X86({Isa::avx2, encode_spans_avx2}, )};

size_t present(const ByteCounts& counts) { return 256 - size_t(std::ranges::count(counts, uint64_t(0))); }

uint64_t cost(const ByteCounts& counts, const Lengths& lengths) {
  uint64_t bits = 0;
  for (size_t s = 0; s < 256; ++s) bits += counts[s] * lengths[s];
  return bits;
}

// Lengths of at most 11 bits, unless 12 save a thousandth: a table of 16 KiB leaves room in the L1 cache, and five
// look-ups fit into a refill.
Lengths choose_lengths(const ByteCounts& counts) {
  const Lengths within = limited_lengths(counts, kMostLength - 1), longest = limited_lengths(counts, kMostLength);
  const uint64_t least = cost(counts, longest);
  return cost(counts, within) - least <= least / 1024 ? within : longest;
}

// Where the parts of a coded chunk lie, behind its kind and the number of bits.
struct Plan {
  uint64_t bits;
  size_t pieces, spans;
  size_t starts_bytes() const { return 2 * spans; }
  size_t gaps_bytes() const { return (pieces + 1) / 2; }
  size_t bits_bytes() const { return size_t(ceil_div(bits, 8)); }
  size_t bytes() const { return starts_bytes() + gaps_bytes() + bits_bytes(); }
};

Plan plan_of(uint64_t bits, int log_piece) {
  const size_t pieces = size_t(ceil_div(bits, uint64_t(1) << log_piece));
  return {bits, pieces, size_t(ceil_div(pieces, kSpanPieces))};
}

size_t varint_bytes(uint64_t value) {
  size_t bytes = 1;
  while (value >>= 7) ++bytes;
  return bytes;
}

// What a chunk becomes follows from its counts alone, and so does its size.
struct ChunkPlan {
  Kind kind;
  Plan plan;
  size_t bytes;
};

ChunkPlan plan_chunk(const ByteCounts& counts, size_t symbols, const Lengths& lengths) {
  if (present(counts) == 1) return {kConstant, {}, 2};
  const Plan plan = plan_of(cost(counts, lengths), kLogPiece);
  const size_t bytes = 1 + varint_bytes(plan.bits) + plan.bytes();
  if (bytes > symbols) return {kRaw, {}, 1 + symbols};
  return {kCoded, plan, bytes};
}

void encode_chunk(const ChunkPlan& chunk, const EncodeTable& table, std::span<const uint8_t> symbols,
                  std::span<uint8_t> room) {
  ByteWriter out(room);
  out.put(uint8_t(chunk.kind));
  if (chunk.kind == kConstant) return out.put(symbols[0]);
  if (chunk.kind == kRaw) return out.append(symbols);
  const Plan& plan = chunk.plan;
  put_varint(out, plan.bits);
  const auto starts = out.take(plan.starts_bytes()), gaps = out.take(plan.gaps_bytes());
  const auto bits = out.take(plan.bits_bytes());
  TERSOR_ASSERT(!out.full() && out.left() == 0);
  std::fill(gaps.begin(), gaps.end(), uint8_t(0));
  pick(kEncodeSpans)(table, symbols.data(), symbols.size(), kLogPiece, starts.data(), gaps.data(), bits.data(),
                     bits.size());
}

void decode_coded(const DecodeTable& table, int log_piece, std::span<const uint8_t> data, std::span<uint8_t> out) {
  const uint64_t bits = take_varint(data, kWhat);
  TERSOR_REQUIRE(bits >= out.size() && bits <= out.size() * uint64_t(kMostLength), Code::bad_data, kWhat, ": ", bits,
                 " bits for ", out.size(), " symbols");
  const Plan plan = plan_of(bits, log_piece);
  TERSOR_REQUIRE(data.size() == plan.bytes(), Code::bad_data, kWhat, ": a chunk of ", data.size(), " bytes for ", bits,
                 " bits, ", plan.bytes(), " are needed");
  const auto starts = data.first(plan.starts_bytes()), gaps = data.subspan(starts.size(), plan.gaps_bytes());
  const auto string = data.subspan(starts.size() + gaps.size());
  TERSOR_REQUIRE(plan.pieces % 2 == 0 || gaps.back() < 16, Code::bad_data, kWhat, ": a gap without a piece");
  TERSOR_REQUIRE(bits % 8 == 0 || string.back() >> (bits % 8) == 0, Code::bad_data, kWhat, ": bits behind the last");
  std::vector<Span> spans(plan.spans);
  size_t at = 0;
  for (size_t i = 0; i < plan.spans; ++i) {
    const size_t piece = i * kSpanPieces, symbols = load_le<uint16_t>(starts.data() + 2 * i);
    TERSOR_REQUIRE(symbols <= out.size() - at, Code::bad_data, kWhat, ": spans of more than ", out.size(), " symbols");
    const uint64_t begin = (uint64_t(piece) << log_piece) + (gaps[piece / 2] & 15);
    TERSOR_REQUIRE(begin <= bits, Code::bad_data, kWhat, ": a span from bit ", begin, " of ", bits);
    spans[i] = {begin, bits, out.data() + at, symbols};
    if (i > 0) spans[i - 1].end = begin;
    at += symbols;
  }
  TERSOR_REQUIRE(at == out.size() && spans[0].begin == 0, Code::bad_data, kWhat, ": spans of ", at,
                 " symbols from bit ", spans[0].begin, ", ", out.size(), " from bit 0 are needed");
  TERSOR_REQUIRE(pick(kDecodeSpans)(table, string.data(), string.size(), spans.data(), spans.size()), Code::bad_data,
                 kWhat, ": a span's codes do not end where the next span's begin");
}

void decode_chunk(const DecodeTable* table, int log_piece, std::span<const uint8_t> data, std::span<uint8_t> out) {
  const uint8_t kind = ByteReader(data, kWhat).take<uint8_t>();
  data = data.subspan(1);
  if (decode_plain(kind, data, out, "huffman stream: a chunk")) return;
  TERSOR_REQUIRE(kind == kCoded, Code::bad_data, kWhat, ": a chunk of kind ", int(kind), ", 0..2 are known");
  TERSOR_REQUIRE(table, Code::bad_data, kWhat, ": a coded chunk in a stream without codes");
  decode_coded(*table, log_piece, data, out);
}

void write_lengths(const Lengths& lengths, std::vector<uint8_t>& out) {
  size_t first = 0, last = 255;
  while (lengths[first] == 0) ++first;
  while (lengths[last] == 0) --last;
  out.push_back(uint8_t(first)), out.push_back(uint8_t(last));
  for (size_t s = first; s <= last; s += 2) out.push_back(uint8_t(lengths[s] | (s < last ? lengths[s + 1] << 4 : 0)));
}

Lengths read_lengths(std::span<const uint8_t>& data) {
  ByteReader reader(data, kWhat);
  const size_t first = reader.take<uint8_t>(), last = reader.take<uint8_t>();
  TERSOR_REQUIRE(first < last, Code::bad_data, kWhat, ": codes from symbol ", first, " to ", last);
  const auto nibbles = reader.take((last - first) / 2 + 1);
  Lengths lengths{};
  uint32_t sum = 0;
  for (size_t i = 0; i <= (last - first) / 2 * 2 + 1; ++i) {
    const int length = nibbles[i / 2] >> (i % 2 * 4) & 15;
    TERSOR_REQUIRE(length <= kMostLength, Code::bad_data, kWhat, ": a code of ", length,
                   " bits, at most 12 are allowed");
    TERSOR_REQUIRE(length == 0 || first + i <= last, Code::bad_data, kWhat, ": a code behind the last");
    if (length == 0) continue;
    lengths[first + i] = uint8_t(length), sum += 1u << (kMostLength - length);
  }
  TERSOR_REQUIRE(lengths[first] && lengths[last], Code::bad_data, kWhat, ": the first or the last code is missing");
  TERSOR_REQUIRE(sum == 1u << kMostLength, Code::bad_data, kWhat, ": codes that fill ", sum, " / 4096 of their tree");
  data = reader.take(reader.left());
  return lengths;
}

struct Head {
  size_t chunk;
  int log_piece;
  uint64_t symbols;
  std::span<const uint8_t> rest;
};

Head read_head(std::span<const uint8_t> data) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  const uint8_t log_chunk = reader.take<uint8_t>(), log_piece = reader.take<uint8_t>();
  TERSOR_REQUIRE(log_chunk >= kLeastLogChunk && log_chunk <= kMostLogChunk, Code::bad_data, kWhat, ": chunks of 2^",
                 int(log_chunk), " symbols, 2^12..2^20 are allowed");
  TERSOR_REQUIRE(log_piece >= kLeastLogPiece && log_piece <= kMostLogPiece, Code::bad_data, kWhat, ": pieces of 2^",
                 int(log_piece), " bits, 2^8..2^10 are allowed");
  Head head{size_t(1) << log_chunk, log_piece, 0, reader.take(reader.left())};
  head.symbols = take_varint(head.rest, kWhat);
  // A chunk has a length and at least a kind: a claim beyond that is a lie, told before anything is allocated.
  TERSOR_REQUIRE(ceil_div(head.symbols, head.chunk) <= head.rest.size() / 2, Code::bad_data, kWhat, ": ", head.symbols,
                 " symbols claimed by ", head.rest.size(), " bytes");
  return head;
}

}  // namespace

size_t encode_bound(size_t symbols) noexcept {
  const size_t chunks = size_t(ceil_div(symbols, kChunkSymbols));
  return kMostHead + chunks * kMostLengthBytes + symbols + chunks;
}

size_t encode(std::span<const uint8_t> symbols, int threads, std::span<uint8_t> out) {
  TERSOR_REQUIRE(out.size() >= encode_bound(symbols.size()), Code::bad_call, "a buffer of ", out.size(), " bytes for ",
                 encode_bound(symbols.size()));
  const size_t chunks = size_t(ceil_div(symbols.size(), kChunkSymbols));
  const auto part = [&](size_t i) {
    return symbols.subspan(i * kChunkSymbols, std::min(kChunkSymbols, symbols.size() - i * kChunkSymbols));
  };
  std::vector<ByteCounts> counts(chunks);
  parallel_for(chunks, 1, threads, [&](size_t i, size_t) { count_bytes(part(i), counts[i]); });
  ByteCounts total{};
  for (const ByteCounts& some : counts)
    for (size_t s = 0; s < 256; ++s) total[s] += some[s];
  Lengths lengths{};
  const auto table = std::make_unique<EncodeTable>();
  if (present(total) > 1) {
    lengths = choose_lengths(total);
    prepare_encode(lengths, *table);
  }
  std::vector<uint8_t> told;  // the lengths as they travel
  if (present(total) > 1) write_lengths(lengths, told);
  std::vector<ChunkPlan> plans(chunks);
  size_t gained = 0;
  for (size_t i = 0; i < chunks; ++i) {
    plans[i] = plan_chunk(counts[i], part(i).size(), lengths);
    if (plans[i].kind == kCoded) gained += 1 + part(i).size() - plans[i].bytes;
  }
  const bool coded = gained > told.size();
  for (size_t i = 0; i < chunks && !coded; ++i)
    if (plans[i].kind == kCoded) plans[i] = {kRaw, {}, 1 + part(i).size()};
  std::vector<uint8_t> head = {kStream, kVersion, kLogChunk, kLogPiece};
  put_varint(head, symbols.size());
  head.push_back(coded);
  if (coded) head.insert(head.end(), told.begin(), told.end());
  std::vector<size_t> begin(chunks + 1);
  for (const ChunkPlan& plan : plans) put_varint(head, plan.bytes);
  begin[0] = head.size();
  for (size_t i = 0; i < chunks; ++i) begin[i + 1] = begin[i] + plans[i].bytes;
  TERSOR_ASSERT(begin[chunks] <= out.size());
  std::copy(head.begin(), head.end(), out.begin());
  parallel_for(chunks, 1, threads, [&](size_t i, size_t) {
    encode_chunk(plans[i], *table, part(i), out.subspan(begin[i], plans[i].bytes));
  });
  return begin[chunks];
}

std::vector<uint8_t> encode(std::span<const uint8_t> symbols, int threads) {
  std::vector<uint8_t> out(encode_bound(symbols.size()));
  out.resize(encode(symbols, threads, out));
  return out;
}

uint64_t decoded_size(std::span<const uint8_t> data) { return read_head(data).symbols; }

void decode(std::span<const uint8_t> data, std::span<uint8_t> out, int threads) {
  Head head = read_head(data);
  TERSOR_REQUIRE(head.symbols == out.size(), Code::bad_call, "the stream holds ", head.symbols, " symbols, the buffer ",
                 out.size());
  ByteReader reader(head.rest, kWhat);
  const uint8_t coded = reader.take<uint8_t>();
  TERSOR_REQUIRE(coded < 2, Code::bad_data, kWhat, ": ", int(coded), " tables, 0 or 1 are allowed");
  head.rest = reader.take(reader.left());
  std::unique_ptr<DecodeTable> table;
  if (coded) {
    table = std::make_unique<DecodeTable>();
    prepare_decode(read_lengths(head.rest), *table);
  }
  const size_t chunks = size_t(ceil_div(head.symbols, head.chunk));
  const auto end = take_chunk_ends(head.rest, chunks, kWhat);
  parallel_for(chunks, 1, threads, [&](size_t i, size_t) {
    const size_t begin = i * head.chunk;
    decode_chunk(table.get(), head.log_piece, head.rest.subspan(size_t(end[i]), size_t(end[i + 1] - end[i])),
                 out.subspan(begin, std::min(head.chunk, out.size() - begin)));
  });
}

}  // namespace tersor::entropy::huffman
