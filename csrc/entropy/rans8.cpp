#include "entropy/rans8.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/arena.h"
#include "core/bits.h"
#include "core/isa.h"
#include "core/pool.h"
#include "entropy/bit_io.h"
#include "entropy/escape.h"
#include "entropy/histogram.h"
#include "entropy/plain_chunk.h"
#include "entropy/rans.h"
#include "entropy/rans_tables.h"

namespace tersor::entropy::rans8 {
namespace {

constexpr const char* kWhat = "rans8 stream";
constexpr uint8_t kStream = 1, kVersion = 1;  // core/ids.def
enum Flag : uint8_t { kHasTable = 1, kContiguous = 2, kNamed = 4 };
enum Kind : uint8_t { kRaw = kRawChunk, kConstant = kConstantChunk, kAlias = 2, kNames = 3 };
constexpr int kLogChunk = 20, kLeastLogChunk = 12, kMostLogChunk = 20;
constexpr size_t kTile = 16384;  // names decoded at a time: they stay in the L1 cache until they are symbols
constexpr size_t kSampleStride = 8;
constexpr size_t kMostHead = 1024, kMostLength = 3;  // bytes; a symbol's frequency takes at most 26 bits

// The tables of one stream, made once and shared by the chunks.
struct Model {
  std::optional<Table> table;
  DirectAlphabet direct;
  NameMap names{};
  bool contiguous = false;
  bool named = false;  // alias layout over the names of at most 32 symbols that lie further apart
};

void name_symbols(const DirectAlphabet& direct, NameMap& map) {
  map.escape = direct.escape ? uint8_t(direct.direct) : 255;
  std::fill(std::begin(map.name_of), std::end(map.name_of), map.escape);
  for (int name = 0; name < direct.direct; ++name) {
    map.name_of[direct.symbol[size_t(name)]] = uint8_t(name);
    map.symbol_of[name] = direct.symbol[size_t(name)];
  }
}

// Symbols of `table` renamed to 0, 1, ... in ascending order, so that tables in registers hold them.
Table name_table(const Table& table, NameMap& map) {
  std::vector<uint32_t> frequencies;
  map.escape = 255;
  std::fill(std::begin(map.name_of), std::end(map.name_of), map.escape);
  for (size_t s = table.first(); s <= table.last(); ++s) {
    if (table.frequencies()[s] == 0) continue;
    map.name_of[s] = uint8_t(frequencies.size()), map.symbol_of[frequencies.size()] = uint8_t(s);
    frequencies.push_back(table.frequencies()[s]);
  }
  return Table::from_frequencies(std::move(frequencies), table.precision());
}

size_t present(const Table& table) {
  return table.frequencies().size() - size_t(std::ranges::count(table.frequencies(), 0u));
}

// A table and its block, for what is too short or too odd for the stream's own table.
void encode_with_table(std::span<const uint8_t> symbols, ByteWriter& out) {
  if (is_constant(symbols)) return out.put(uint8_t(kConstant)), out.put(symbols[0]);
  const ByteWriter before = out;
  ByteCounts counts{};
  count_bytes(symbols, counts);
  const Table table = Table::from_counts(counts);
  ScratchFrame frame;
  const auto tables = std::make_unique<EncodeTables>();
  prepare_encode(table, *tables, frame.take<uint16_t>(slot_entries(table)));
  out.put(uint8_t(kAlias));
  std::vector<uint8_t> bytes;
  table.serialize(bytes);
  out.append(bytes);
  const Run run{tables.get(), symbols.size()};
  encode_block({&run, 1}, symbols.data(), out);
  if (!out.full() && out.size() - before.size() <= symbols.size()) return;
  out = before;
  out.put(uint8_t(kRaw));
  out.append(symbols);
}

void decode_with_table(std::span<const uint8_t> data, std::span<uint8_t> out) {
  const uint8_t kind = ByteReader(data, kWhat).take<uint8_t>();
  data = data.subspan(1);
  if (decode_plain(kind, data, out, "rans8 stream: escapes")) return;
  TERSOR_REQUIRE(kind == kAlias, Code::bad_data, kWhat, ": escapes of kind ", int(kind), ", 0, 1 or 2 are allowed");
  const Table table = Table::parse(data);
  TERSOR_REQUIRE(!table.has_escape() && table.last() < 256 && !table.single(), Code::bad_data, kWhat,
                 ": the escapes' table does not have 2..256 symbols");
  const auto tables = std::make_unique<DecodeTables>();
  prepare_decode(table, *tables);
  BlockDecoder block(data, out.size());
  block.read(*tables, out);
  block.finish();
}

// Returns the chunk's bytes; room: one more than there are symbols.
size_t encode_chunk(const Model& model, const EncodeTables& tables, std::span<const uint8_t> symbols,
                    std::span<uint8_t> room) {
  ByteWriter out(room.first(symbols.size()));  // what does not fit there goes raw
  const Run run{&tables, symbols.size()};
  if (is_constant(symbols)) {
    room[0] = kConstant, room[1] = symbols[0];
    return 2;
  }
  ScratchFrame frame;
  if (!model.contiguous) {
    const uint8_t* coded = symbols.data();
    if (model.named) {
      const auto names = frame.bytes(symbols.size()), none = frame.bytes(64);
      split_escapes(model.names, symbols, names.data(), none.data());
      coded = names.data();
    }
    out.put(uint8_t(kAlias));
    encode_block({&run, 1}, coded, out);
  } else {
    const auto names = frame.bytes(symbols.size()), escaped = frame.bytes(symbols.size() + 64);
    const size_t escapes = split_escapes(model.names, symbols, names.data(), escaped.data());
    ByteWriter block(frame.bytes(symbols.size()));
    encode_block({&run, 1}, names.data(), block);
    out.put(uint8_t(kNames));
    put_varint(out, block.size());
    out.append(block.written());
    put_varint(out, escapes);
    if (escapes) encode_with_table(escaped.first(escapes), out);
    if (block.full()) out.take(out.left() + 1);
  }
  if (!out.full()) return out.size();
  room[0] = kRaw;
  std::copy(symbols.begin(), symbols.end(), room.begin() + 1);
  return symbols.size() + 1;
}

void decode_chunk(const Model& model, const DecodeTables* tables, std::span<const uint8_t> data,
                  std::span<uint8_t> out) {
  const uint8_t kind = ByteReader(data, kWhat).take<uint8_t>();
  data = data.subspan(1);
  if (decode_plain(kind, data, out, "rans8 stream: a chunk")) return;
  switch (kind) {
    case kAlias: {
      TERSOR_REQUIRE(tables && !model.contiguous, Code::bad_data, kWhat, ": an alias chunk without an alias table");
      BlockDecoder block(data, out.size());
      block.read(*tables, out);
      return block.finish();
    }
    case kNames: {
      TERSOR_REQUIRE(tables && model.contiguous, Code::bad_data, kWhat,
                     ": a chunk of names without a contiguous table");
      const uint64_t bytes = take_varint(data, kWhat);
      ByteReader reader(data, kWhat);
      BlockDecoder block(reader.take(bytes), out.size());
      data = reader.take(reader.left());
      const uint64_t escapes = take_varint(data, kWhat);
      TERSOR_REQUIRE(escapes <= out.size(), Code::bad_data, kWhat, ": ", escapes, " escapes in ", out.size(),
                     " symbols");
      ScratchFrame frame;
      const auto escaped = frame.bytes(size_t(escapes));
      if (escapes)
        decode_with_table(data, escaped);
      else
        TERSOR_REQUIRE(data.empty(), Code::bad_data, kWhat, ": ", data.size(), " bytes too many");
      std::span<const uint8_t> left = escaped;
      for (size_t at = 0; at < out.size(); at += kTile) {
        const auto tile = out.subspan(at, std::min(kTile, out.size() - at));
        block.read(*tables, tile);
        TERSOR_REQUIRE(merge_escapes(model.names, tile, left), Code::bad_data, kWhat, ": more than ", escapes,
                       " escapes");
      }
      block.finish();
      TERSOR_REQUIRE(left.empty(), Code::bad_data, kWhat, ": ", left.size(), " escapes are left");
      return;
    }
    default: fail(Code::bad_data, kWhat, ": a chunk of kind ", int(kind), ", 0..3 are known");
  }
}

void check_symbols(std::span<const uint8_t> symbols, const Table& table) {
  ByteCounts counts{};
  count_bytes(symbols, counts);
  const auto frequencies = table.frequencies();
  for (size_t s = 0; s < 256; ++s)
    TERSOR_REQUIRE(counts[s] == 0 || (s < frequencies.size() && frequencies[s] > 0), Code::bad_call, "symbol ", s,
                   " occurs ", counts[s], " times and has no frequency in the given table");
}

void check_table(const Table& table) {
  TERSOR_REQUIRE(table.last() < 256 && !table.has_escape(), Code::bad_call,
                 "a table of 8-bit symbols is needed, this one goes to ", table.last(),
                 table.has_escape() ? " and has an escape" : "");
}

// The alphabet of a given table: derived the same way by both sides.
bool derive_direct(const Table& table, Model& model) {
  ByteCounts counts{};
  const auto frequencies = table.frequencies();
  std::copy(frequencies.begin(), frequencies.begin() + long(std::min<size_t>(256, frequencies.size())), counts.begin());
  return choose_direct(counts, true, model.direct);
}

struct Head {
  bool has_table, contiguous, named;
  size_t chunk;
  uint64_t symbols;
  std::span<const uint8_t> rest;
};

Head read_head(std::span<const uint8_t> data) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  const uint8_t flags = reader.take<uint8_t>();
  const uint8_t log_chunk = reader.take<uint8_t>();
  TERSOR_REQUIRE(flags < 8 && (flags & 6) != 6, Code::bad_data, kWhat, ": unknown flags ", int(flags));
  TERSOR_REQUIRE(log_chunk >= kLeastLogChunk && log_chunk <= kMostLogChunk, Code::bad_data, kWhat, ": chunks of 2^",
                 int(log_chunk), " symbols, 2^12..2^20 are allowed");
  Head head{bool(flags & kHasTable),   bool(flags & kContiguous), bool(flags & kNamed), size_t(1) << log_chunk, 0,
            reader.take(reader.left())};
  head.symbols = take_varint(head.rest, kWhat);
  // A chunk has a length and at least a kind: a claim beyond that is a lie, told before anything is allocated.
  TERSOR_REQUIRE(ceil_div(head.symbols, head.chunk) <= head.rest.size() / 2, Code::bad_data, kWhat, ": ", head.symbols,
                 " symbols claimed by ", head.rest.size(), " bytes");
  return head;
}

}  // namespace

size_t encode_bound(size_t symbols) noexcept {
  const size_t chunks = size_t(ceil_div(symbols, kChunkSymbols));
  return kMostHead + chunks * kMostLength + symbols + chunks;
}

size_t encode(std::span<const uint8_t> symbols, const Table* table, Mode mode, int threads, std::span<uint8_t> out) {
  TERSOR_REQUIRE(out.size() >= encode_bound(symbols.size()), Code::bad_call, "a buffer of ", out.size(), " bytes for ",
                 encode_bound(symbols.size()));
  Model model;
  std::vector<uint8_t> head = {kStream, kVersion, 0, kLogChunk};
  put_varint(head, symbols.size());
  const size_t bare_head = head.size();
  if (table) {
    check_table(*table);
    check_symbols(symbols, *table);
    model.table = *table;
    model.contiguous = mode == Mode::contiguous && derive_direct(*table, model);
  } else if (!symbols.empty()) {
    ByteCounts counts{};
    if (mode == Mode::contiguous) {
      sample_bytes(symbols, kSampleStride, counts);
      model.contiguous = choose_direct(counts, true, model.direct, 1);
      if (!model.contiguous) counts = {};
    }
    if (model.contiguous) {
      head[2] |= kHasTable;
      model.direct.table.serialize(head);
      head.insert(head.end(), model.direct.symbol.begin(), model.direct.symbol.begin() + model.direct.direct);
    } else {
      count_bytes(symbols, counts);
      // From a million symbols on the table's bytes do not matter, and its making does.
      model.table = Table::from_counts(counts, symbols.size() >= kChunkSymbols ? kMostPrecision : 0);
      if (!model.table->single()) head[2] |= kHasTable, model.table->serialize(head);
    }
  }
  TERSOR_ASSERT(head.size() <= kMostHead);
  if (model.contiguous) head[2] |= kContiguous, name_symbols(model.direct, model.names);
  if (!model.contiguous && model.table && !model.table->single() && model.table->last() - model.table->first() >= 32 &&
      present(*model.table) <= 32) {
    model.named = true;
    head[2] |= kNamed;
    model.table = name_table(*model.table, model.names);
  }
  ScratchFrame frame;
  const auto tables = std::make_unique<EncodeTables>();
  if (model.contiguous)
    prepare_encode(model.direct, *tables);
  else if (model.table && !model.table->single())
    prepare_encode(*model.table, *tables, frame.take<uint16_t>(slot_entries(*model.table)));
  // Every chunk is coded where the worst lengths of all before it would put it, then moved up.
  const size_t chunks = size_t(ceil_div(symbols.size(), kChunkSymbols));
  const size_t first = kMostHead + chunks * kMostLength;
  const auto place = [&](size_t i) { return out.data() + first + i * (kChunkSymbols + 1); };
  std::vector<size_t> lengths(chunks);
  parallel_for(chunks, 1, threads, [&](size_t i, size_t) {
    const auto part = symbols.subspan(i * kChunkSymbols, std::min(kChunkSymbols, symbols.size() - i * kChunkSymbols));
    lengths[i] = encode_chunk(model, *tables, part, {place(i), part.size() + 1});
  });
  bool coded = false;
  for (size_t i = 0; i < chunks; ++i) coded |= *place(i) != kRaw && *place(i) != kConstant;
  if (!coded) head.resize(bare_head), head[2] = 0;  // nobody would read the table
  for (const size_t length : lengths) put_varint(head, length);
  std::copy(head.begin(), head.end(), out.begin());
  size_t size = head.size();
  for (size_t i = 0; i < chunks; size += lengths[i++]) std::memmove(out.data() + size, place(i), lengths[i]);
  return size;
}

std::vector<uint8_t> encode(std::span<const uint8_t> symbols, const Table* table, Mode mode, int threads) {
  std::vector<uint8_t> out(encode_bound(symbols.size()));
  out.resize(encode(symbols, table, mode, threads, out));
  return out;
}

uint64_t decoded_size(std::span<const uint8_t> data) { return read_head(data).symbols; }

void decode(std::span<const uint8_t> data, const Table* table, std::span<uint8_t> out, int threads) {
  Head head = read_head(data);
  TERSOR_REQUIRE(head.symbols == out.size(), Code::bad_call, "the stream holds ", head.symbols, " symbols, the buffer ",
                 out.size());
  Model model;
  model.contiguous = head.contiguous;
  const auto tables = std::make_unique<DecodeTables>();
  bool coded = false;
  if (head.contiguous) {
    if (head.has_table) {
      model.direct.table = Table::parse(head.rest);
      const Table& t = model.direct.table;
      TERSOR_REQUIRE(t.precision() == kMostPrecision && t.frequencies().size() <= 32 && !t.has_escape() && !t.single(),
                     Code::bad_data, kWhat, ": a contiguous table of ", t.frequencies().size(), " names, precision ",
                     t.precision(), "; 2..32 and 16 are needed");
      model.direct.direct = int(t.frequencies().size()) - 1;
      model.direct.escape = true;
      ByteReader reader(head.rest, kWhat);
      const auto named = reader.take(uint64_t(model.direct.direct));
      std::copy(named.begin(), named.end(), model.direct.symbol.begin());
      head.rest = reader.take(reader.left());
    } else {
      TERSOR_REQUIRE(table, Code::bad_call, "this stream was coded with a table of the caller's: give it again");
      check_table(*table);
      TERSOR_REQUIRE(derive_direct(*table, model), Code::bad_call, "the given table has no contiguous form");
    }
    name_symbols(model.direct, model.names);
    prepare_decode(model.direct, *tables);
    coded = true;
  } else if (head.has_table || table) {
    if (head.has_table) {
      model.table = Table::parse(head.rest);
      TERSOR_REQUIRE(model.table->last() < 256 && !model.table->has_escape() && !model.table->single(), Code::bad_data,
                     kWhat, ": the table does not have 2..256 symbols");
    } else {
      check_table(*table);
      model.table = *table;
    }
    coded = !model.table->single();
    if (head.named) {
      const size_t symbols = present(*model.table);
      TERSOR_REQUIRE(symbols >= 2 && symbols <= 32, Code::bad_data, kWhat, ": names for ", symbols,
                     " symbols, 2..32 are needed");
      model.named = true;
      model.table = name_table(*model.table, model.names);
    }
    if (coded && model.named)
      prepare_decode(*model.table, model.names.symbol_of, *tables);
    else if (coded)
      prepare_decode(*model.table, *tables);
  }
  const size_t chunks = size_t(ceil_div(head.symbols, head.chunk));
  const auto end = take_chunk_ends(head.rest, chunks, kWhat);
  parallel_for(chunks, 1, threads, [&](size_t i, size_t) {
    const size_t begin = i * head.chunk;
    decode_chunk(model, coded ? tables.get() : nullptr, head.rest.subspan(size_t(end[i]), size_t(end[i + 1] - end[i])),
                 out.subspan(begin, std::min(head.chunk, out.size() - begin)));
  });
}

}  // namespace tersor::entropy::rans8
