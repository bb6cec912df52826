#include "entropy/indexed.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "core/arena.h"
#include "core/bits.h"
#include "core/pool.h"
#include "entropy/indexed_chunk.h"

namespace tersor::entropy::indexed {
namespace {

constexpr uint8_t kStream = 3, kVersion = 1;  // core/ids.def
enum Layout : uint8_t { kLogLanes = 7, kChunks = 8, kEscapes = 16 };
constexpr int kLogChunk = 18, kLeastLogChunk = 12, kMostLogChunk = 22;
constexpr size_t kChunkBytes = size_t(1) << 16;  // what a chunk should have at least
constexpr size_t kFewSymbols = 4096;             // of which the side information has to be small
constexpr size_t kSamples = 1024;
constexpr uint64_t kMostCount = uint64_t(1) << 48;

void check_call(size_t symbols, const Indexes& indexes, Means means) {
  TERSOR_REQUIRE(indexes.count == symbols, Code::bad_call, indexes.count, " indexes for ", symbols, " symbols");
  TERSOR_REQUIRE(means.empty() || means.size() == symbols, Code::bad_call, means.size(), " means for ", symbols,
                 " symbols");
}

void check_cdfs(std::span<const uint16_t> cdfs, size_t length, size_t symbols) {
  TERSOR_REQUIRE(length >= 2 && length <= size_t(INT16_MAX) + 2 && cdfs.size() == length * symbols, Code::bad_call,
                 cdfs.size(), " values of cdfs of ", length, " for ", symbols, " symbols");
}

// ---- the choice of a layout ---------------------------------------------------------------------------------------

struct Shape {
  size_t lanes;
  int log_chunk;
};

// From what the symbols will take: side information grows with the lanes, speed too.
Shape choose_shape(size_t symbols, uint64_t bytes) {
  int log_chunk = kLogChunk;
  const auto chunk_bytes = [&](int log) {
    return symbols >> log ? uint64_t(static_cast<unsigned __int128>(bytes) * (size_t(1) << log) / symbols) : bytes;
  };
  while (log_chunk < kMostLogChunk && chunk_bytes(log_chunk) < kChunkBytes) ++log_chunk;
  const uint64_t chunk = chunk_bytes(log_chunk);
  size_t lanes = chunk < 512 ? 1 : chunk < 4096 ? 2 : chunk < 16384 ? 4 : chunk < 49152 ? 8 : 32;
  if (symbols < kFewSymbols) lanes = std::min<size_t>(lanes, 2);
  return {lanes, log_chunk};
}

// Bytes that `count` symbols will take, from the frequencies of some of them; a rough logarithm is enough.
template <class FrequencyAt>
uint64_t estimate_bytes(size_t count, const FrequencyAt& frequency_at) {
  const size_t step = std::max<size_t>(1, count / kSamples);
  uint64_t eighths = 0, samples = 0;  // of a bit
  for (size_t i = 0; i < count; i += step, ++samples) {
    const uint32_t f = frequency_at(i);
    const int spare = kSlotBits + 1 - std::bit_width(f);
    eighths += uint64_t(8 * spare) - ((uint64_t(f) << spare >> (kSlotBits - 3)) & 7);
  }
  return samples ? eighths * count / samples / 64 : 0;
}

// ---- head ---------------------------------------------------------------------------------------------------------

struct Coded {  // a chunk
  std::vector<uint8_t> body, escapes;
};

std::vector<uint8_t> join(size_t symbols, const Shape& shape, std::vector<Coded>& chunks) {
  const bool many = chunks.size() > 1;
  const bool escapes = std::ranges::any_of(chunks, [](const Coded& chunk) { return !chunk.escapes.empty(); });
  std::vector<uint8_t> out;
  const int layout = std::countr_zero(shape.lanes) | (many ? kChunks : 0) | (escapes ? kEscapes : 0);
  for (const int byte : {int(kStream), int(kVersion), chunks.empty() ? 0 : layout}) out.push_back(uint8_t(byte));
  put_varint(out, symbols);
  if (many) out.push_back(uint8_t(shape.log_chunk));
  std::vector<std::vector<uint8_t>> fronts(chunks.size());
  size_t size = out.size();
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (escapes) put_varint(fronts[i], chunks[i].escapes.size());
    const size_t bytes = fronts[i].size() + chunks[i].body.size() + chunks[i].escapes.size();
    if (many) put_varint(out, bytes);
    size += bytes + 5;
  }
  out.reserve(size);
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (const auto* part : {&fronts[i], &chunks[i].body, &chunks[i].escapes})
      out.insert(out.end(), part->begin(), part->end());
    chunks[i] = {};
  }
  return out;
}

struct Head {
  size_t lanes = 1;
  bool escapes = false;
  uint64_t symbols = 0;
  int log_chunk = 62;  // one chunk
  std::vector<uint64_t> ends = {0};
  std::span<const uint8_t> payload;

  uint64_t chunk_symbols() const noexcept { return uint64_t(1) << log_chunk; }
  size_t chunks() const noexcept { return ends.size() - 1; }
  std::span<const uint8_t> chunk(size_t i) const noexcept {
    return payload.subspan(size_t(ends[i]), size_t(ends[i + 1] - ends[i]));
  }
  size_t symbols_of(size_t i) const noexcept {
    return size_t(std::min(chunk_symbols(), symbols - (uint64_t(i) << log_chunk)));
  }
};

Head read_head(std::span<const uint8_t> data) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  const uint8_t layout = reader.take<uint8_t>();
  TERSOR_REQUIRE(layout < 32 && (layout & kLogLanes) <= 5, Code::bad_data, kWhat, ": unknown layout ", int(layout));
  Head head;
  head.lanes = size_t(1) << (layout & kLogLanes);
  head.escapes = layout & kEscapes;
  head.payload = reader.take(reader.left());
  head.symbols = take_varint(head.payload, kWhat);
  TERSOR_REQUIRE(head.symbols <= kMostCount, Code::bad_data, kWhat, ": ", head.symbols, " symbols, at most 2^48");
  if (layout & kChunks) {
    ByteReader rest(head.payload, kWhat);
    head.log_chunk = rest.take<uint8_t>();
    head.payload = rest.take(rest.left());
    TERSOR_REQUIRE(head.log_chunk >= kLeastLogChunk && head.log_chunk <= kMostLogChunk, Code::bad_data, kWhat,
                   ": chunks of 2^", head.log_chunk, " symbols, 2^12..2^22 are allowed");
    const uint64_t chunks = ceil_div(head.symbols, head.chunk_symbols());
    // A chunk has a length and a state: a claim beyond that is a lie, told before anything is allocated.
    TERSOR_REQUIRE(chunks >= 2 && chunks <= head.payload.size() / 6, Code::bad_data, kWhat, ": ", chunks, " chunks in ",
                   head.payload.size(), " bytes");
    for (uint64_t i = 0; i < chunks; ++i)
      head.ends.push_back(checked_add(head.ends.back(), take_varint(head.payload, kWhat), kWhat));
  } else if (head.symbols > 0) {
    head.ends.push_back(head.payload.size());
  } else {
    TERSOR_REQUIRE(layout == 0, Code::bad_data, kWhat, ": layout ", int(layout), " without a symbol");
  }
  TERSOR_REQUIRE(head.ends.back() == head.payload.size(), Code::bad_data, kWhat, ": its chunks end at ",
                 head.ends.back(), " of ", head.payload.size(), " bytes");
  return head;
}

}  // namespace

// ---- whole streams ------------------------------------------------------------------------------------------------

std::vector<uint8_t> encode(std::span<const int32_t> symbols, Indexes indexes, const TableSet& tables, Means means,
                            int threads) {
  check_call(symbols.size(), indexes, means);
  const auto means_from = [&](size_t i) { return means.empty() ? means : means.subspan(i); };
  std::vector<Escape> unused;
  const auto frequency_at = [&](size_t i) {
    uint16_t table;
    uint32_t id;
    tables_of(indexes, tables, means, i, 1, &table);
    resolve(symbols.subspan(i, 1), &table, tables, means_from(i), 0, &id, unused);
    return tables.entries()[id].frequency;
  };
  const Shape shape = choose_shape(symbols.size(), estimate_bytes(symbols.size(), frequency_at));
  const size_t chunk = size_t(1) << shape.log_chunk;
  std::vector<Coded> chunks(size_t(ceil_div(symbols.size(), chunk)));
  parallel_for(chunks.size(), 1, threads, [&](size_t c, size_t) {
    ScratchFrame frame;
    const size_t begin = c * chunk, many = std::min(chunk, symbols.size() - begin);
    const auto ids = frame.take<uint32_t>(many);
    uint16_t tile[kIndexedTile];
    std::vector<Escape> escapes;
    for (size_t done = 0; done < many; done += kIndexedTile) {
      const size_t size = std::min(kIndexedTile, many - done), at = begin + done;
      tables_of(indexes, tables, means, at, size, tile);
      resolve(symbols.subspan(at, size), tile, tables, means_from(at), 0, &ids[done], escapes);
    }
    BitWriter bits(chunks[c].escapes);
    for (const Escape& escape : escapes) put_escape(bits, escape);
    bits.finish();
    const Run run{tables.entries().data(), ids.data(), many};
    encode_chunk({&run, 1}, many, shape.lanes, chunks[c].body);
  });
  return join(symbols.size(), shape, chunks);
}

uint64_t decoded_size(std::span<const uint8_t> data) { return read_head(data).symbols; }

void decode(std::span<const uint8_t> data, Indexes indexes, const TableSet& tables, Means means, std::span<int32_t> out,
            int threads) {
  check_call(out.size(), indexes, means);
  const Head head = read_head(data);
  TERSOR_REQUIRE(head.symbols == out.size(), Code::bad_call, "the stream holds ", head.symbols,
                 " symbols, the indexes are ", out.size());
  parallel_for(head.chunks(), 1, threads, [&](size_t c, size_t) {
    ChunkReader reader(head.chunk(c), head.lanes, head.escapes);
    const size_t begin = c << head.log_chunk, many = head.symbols_of(c);
    reader.read(indexes, tables, means, begin, 0, out.subspan(begin, many));
    reader.finish();
  });
}

// ---- call by call -------------------------------------------------------------------------------------------------

void Encoder::append_blocks(size_t symbols) {
  while (blocks_.size() * kBlock < symbols_ + symbols)
    blocks_.push_back(std::make_unique_for_overwrite<uint32_t[]>(kBlock));
}

void Encoder::write(std::span<const int32_t> symbols, Indexes indexes, std::shared_ptr<const TableSet> tables,
                    Means means) {
  check_call(symbols.size(), indexes, means);
  append_blocks(symbols.size());
  const size_t escapes = escapes_.size();
  try {
    uint16_t tile[kIndexedTile];
    for (size_t at = 0; at < symbols.size();) {
      const size_t to = symbols_ + at;
      const size_t size = std::min({kIndexedTile, symbols.size() - at, kBlock - to % kBlock});
      tables_of(indexes, *tables, means, at, size, tile);
      resolve(symbols.subspan(at, size), tile, *tables, means.empty() ? means : means.subspan(at), to, id_at(to),
              escapes_);
      at += size;
    }
    if (pieces_.empty() || pieces_.back().tables != tables) pieces_.push_back({std::move(tables), nullptr, symbols_});
  } catch (...) {  // a call that fails has written nothing
    escapes_.resize(escapes);
    throw;
  }
  symbols_ += symbols.size();
}

void Encoder::write_cdfs(std::span<const uint16_t> cdfs, size_t length, std::span<const int16_t> symbols) {
  check_cdfs(cdfs, length, symbols.size());
  auto own = std::make_shared<std::vector<SymbolEntry>>(symbols.size());
  for (size_t i = 0; i < symbols.size(); ++i) {
    const auto symbol = size_t(symbols[i]);  // a negative one is beyond all
    TERSOR_REQUIRE(symbol < length - 1, Code::bad_call, "symbol ", i, " is ", symbols[i], ", its cdf has ", length - 1);
    const uint16_t* interval = &cdfs[i * length + symbol];
    const uint32_t start = interval[0], end = symbol == length - 2 ? kTableSlots : interval[1];
    TERSOR_REQUIRE(start < end, Code::bad_call, "symbol ", i, " is ", symbols[i],
                   ", which has no slot: its cdf goes from ", start, " to ", end);
    (*own)[i] = symbol_entry(start, end - start);
  }
  append_blocks(symbols.size());
  for (size_t i = 0; i < symbols.size(); ++i) *id_at(symbols_ + i) = uint32_t(i);
  pieces_.push_back({nullptr, std::move(own), symbols_});
  symbols_ += symbols.size();
}

std::vector<uint8_t> Encoder::finish(int threads) {
  const auto entries_of = [](const Piece& piece) {
    return piece.tables ? piece.tables->entries().data() : piece.own->data();
  };
  const auto end_of = [&](size_t p) { return p + 1 < pieces_.size() ? pieces_[p + 1].begin : symbols_; };
  const auto piece_at = [&](size_t symbol) {
    const auto behind = std::ranges::upper_bound(pieces_, symbol, {}, &Piece::begin);
    return size_t(behind - pieces_.begin()) - 1;
  };
  const Shape shape = choose_shape(symbols_, estimate_bytes(symbols_, [&](size_t i) {
                                     return entries_of(pieces_[piece_at(i)])[*id_at(i)].frequency;
                                   }));
  const size_t chunk = size_t(1) << shape.log_chunk;
  std::vector<Coded> chunks(size_t(ceil_div(symbols_, chunk)));
  parallel_for(chunks.size(), 1, threads, [&](size_t c, size_t) {
    const size_t begin = c * chunk, end = std::min(begin + chunk, symbols_);
    std::vector<Run> runs;
    for (size_t p = piece_at(begin), at = begin; at < end; ++p)
      for (; at < std::min(end, end_of(p)); at += runs.back().count)
        runs.push_back(
            {entries_of(pieces_[p]), id_at(at), std::min({end, end_of(p), (at / kBlock + 1) * kBlock}) - at});
    encode_chunk(runs, end - begin, shape.lanes, chunks[c].body);
    BitWriter bits(chunks[c].escapes);
    for (auto e = std::ranges::lower_bound(escapes_, begin, {}, &Escape::symbol);
         e != escapes_.end() && e->symbol < end; ++e)
      put_escape(bits, *e);
    bits.finish();
  });
  std::vector<uint8_t> out = join(symbols_, shape, chunks);
  *this = Encoder();
  return out;
}

struct Decoder::State {
  Head head;
  uint64_t position = 0;
  std::optional<ChunkReader> chunk;  // the one that position lies in, once something of it is read
  bool damaged = false;

  // Calls part(at, position in the chunk, count) for the pieces of a call that lie in one chunk each.
  template <class Part>
  void read(size_t count, const Part& part) {
    TERSOR_REQUIRE(!damaged, Code::bad_data, kWhat, ": it was found to be damaged before");
    TERSOR_REQUIRE(count <= head.symbols - position, Code::bad_call, "reads ", count, " symbols, ",
                   head.symbols - position, " are left");
    damaged = true;  // unless the end is reached
    for (size_t at = 0; at < count;) {
      const auto number = size_t(position >> head.log_chunk);
      const auto within = size_t(position & (head.chunk_symbols() - 1));
      if (!chunk) chunk.emplace(head.chunk(number), head.lanes, head.escapes);
      const size_t many = std::min(count - at, head.symbols_of(number) - within);
      part(*chunk, at, within, many);
      at += many, position += many;
      if (within + many < head.symbols_of(number)) continue;
      chunk->finish();
      chunk.reset();
    }
    damaged = false;
  }
};

Decoder::Decoder(std::span<const uint8_t> data) : state_(new State{read_head(data), 0, {}, false}) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

void Decoder::read(Indexes indexes, const TableSet& tables, Means means, std::span<int32_t> out) {
  check_call(out.size(), indexes, means);
  uint16_t tile[kIndexedTile];  // a wrong index is told of before anything is decoded
  for (size_t at = 0; at < out.size(); at += kIndexedTile)
    tables_of(indexes, tables, {}, at, std::min(kIndexedTile, out.size() - at), tile);
  state_->read(out.size(), [&](ChunkReader& chunk, size_t at, size_t within, size_t many) {
    chunk.read(indexes, tables, means, at, within, out.subspan(at, many));
  });
}

void Decoder::read_cdfs(std::span<const uint16_t> cdfs, size_t length, std::span<int16_t> out) {
  check_cdfs(cdfs, length, out.size());
  state_->read(out.size(), [&](ChunkReader& chunk, size_t at, size_t within, size_t many) {
    chunk.read_cdfs(cdfs.subspan(at * length), length, within, out.subspan(at, many));
  });
}

uint64_t Decoder::symbols() const noexcept { return state_->head.symbols; }
uint64_t Decoder::position() const noexcept { return state_->position; }
uint64_t Decoder::chunk() const noexcept { return std::clamp<uint64_t>(symbols(), 1, state_->head.chunk_symbols()); }

void Decoder::seek(uint64_t symbol) {
  TERSOR_REQUIRE(symbol == symbols() || (symbol < symbols() && symbol % state_->head.chunk_symbols() == 0),
                 Code::bad_call, "a decoder of ", symbols(), " symbols goes to multiples of ", chunk(), ", not to ",
                 symbol);
  state_->position = symbol;
  state_->chunk.reset();
  state_->damaged = false;
}

}  // namespace tersor::entropy::indexed
