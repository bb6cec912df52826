#include "entropy/indexed_chunk.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/arena.h"
#include "core/bits.h"
#include "core/isa.h"

namespace tersor::entropy::indexed {
namespace {

constexpr Variant<DecodeIndexedRows> kDecodeRows[] = {
    {Isa::scalar, decode_indexed_rows_scalar},
    TERSOR_X86({Isa::avx2, decode_indexed_rows_avx2}, {Isa::avx512, decode_indexed_rows_avx512}, )};
constexpr Variant<EncodeIndexedRows> kEncodeRows[] = {{Isa::scalar, encode_indexed_rows_scalar},
                                                      TERSOR_X86({Isa::avx512, encode_indexed_rows_avx512}, )};

template <class T>
void take_tables(const T* indexes, size_t count, size_t groups, size_t from, uint16_t* out) {
  // Maxima of unsigned numbers, comparisons of signed ones: what the least of machines does sixteen bytes at a time.
  const auto last = int32_t(groups - 1);
  bool wrong;
  if constexpr (sizeof(T) < 4) {
    T most = 0;
    for (size_t i = 0; i < count; ++i) most = std::max(most, indexes[i]), out[i] = indexes[i];
    wrong = most > last;
  } else {
    int32_t beyond = 0;
    for (size_t i = 0; i < count; ++i) {
      beyond |= -int32_t(indexes[i] > last) | indexes[i];
      out[i] = uint16_t(indexes[i]);
    }
    wrong = beyond < 0;
  }
  if (!wrong) [[likely]]
    return;
  size_t i = 0;
  while (i + 1 < count && indexes[i] >= 0 && int32_t(indexes[i]) <= last) ++i;
  fail(Code::bad_call, "index ", int32_t(indexes[i]), " at symbol ", from + i, ": the set has ", groups, " tables");
}

// Everything that decoding a tile asks of its symbols' tables.
void describe(const Indexes& indexes, const TableSet& set, Means means, size_t at, size_t count, IndexedTile& tile) {
  tables_of(indexes, set, means, at, count, tile.tables);
  const uint64_t* places = set.places().data();
  for (size_t i = 0; i < count; ++i) tile.places[i] = places[tile.tables[i]];
  const int bits = set.fraction_bits();
  if (!means.empty())
    for (size_t i = 0; i < count; ++i) tile.places[i] += uint64_t(uint32_t(means[at + i] >> bits)) << 32;
  tile.escapes = 0;
}

uint32_t take_escape(BitReader& bits, const TableRow& row) {
  if (row.direct == 0 && bits.take(1)) {
    const uint32_t distance = bits.take(std::bit_width(row.count - 1));
    TERSOR_REQUIRE(distance < row.count, Code::bad_data, kWhat, ": an escape to symbol ", distance, " of ", row.count);
    return distance;
  }
  const int order = TableSet::escape_order(row.count);
  const bool below = bits.take(1);
  const uint32_t octaves = (bits.take_gamma(31) - 1) << order;
  const uint32_t beyond = octaves | bits.take(order);
  return below ? ~beyond : beyond + row.count;
}

int state_bytes(uint64_t state) { return int(std::bit_width(state) + 7) / 8; }  // 4..8

}  // namespace

void tables_of(const Indexes& indexes, const TableSet& set, Means means, size_t at, size_t count, uint16_t* out) {
  switch (indexes.bytes) {
    case 1: take_tables(static_cast<const uint8_t*>(indexes.data) + at, count, set.groups(), at, out); break;
    case 2: take_tables(static_cast<const uint16_t*>(indexes.data) + at, count, set.groups(), at, out); break;
    default: take_tables(static_cast<const int32_t*>(indexes.data) + at, count, set.groups(), at, out);
  }
  const int bits = set.fraction_bits();
  if (bits == 0) return;
  const uint32_t mask = (1u << bits) - 1;
  for (size_t i = 0; i < count; ++i)
    out[i] = uint16_t(out[i] << bits | (means.empty() ? 0 : uint32_t(means[at + i]) & mask));
}

void put_escape(BitWriter& bits, const Escape& escape) {
  const auto [symbol, distance, count, direct] = escape;
  const bool inside = distance < count;
  if (!direct) bits.put(inside, 1);
  if (inside) return bits.put(distance, std::bit_width(count - 1));
  const bool below = distance >> 31;
  const uint32_t beyond = below ? ~distance : distance - count;
  const int order = TableSet::escape_order(count);
  bits.put(below, 1);
  bits.put_gamma((beyond >> order) + 1);
  bits.put(beyond & ((1u << order) - 1), order);
}

void resolve(std::span<const int32_t> symbols, const uint16_t* tables, const TableSet& set, Means means, size_t first,
             uint32_t* ids, std::vector<Escape>& escapes) {
  const TableRow* rows = set.rows().data();
  const int bits = set.fraction_bits();
  for (size_t i = 0; i < symbols.size(); ++i) {
    const TableRow& row = rows[tables[i]];
    uint32_t distance = uint32_t(symbols[i]) - uint32_t(row.low);
    if (!means.empty()) distance -= uint32_t(means[i] >> bits);
    uint32_t symbol = distance;
    if (distance >= row.direct) [[unlikely]] {
      const bool coded = distance < row.count && set.entries()[row.entry + distance].frequency != 0;
      if (!coded) {
        symbol = row.count;
        escapes.push_back({first + i, distance, row.count, row.direct != 0});
      }
    }
    ids[i] = row.entry + symbol;
  }
}

void encode_chunk(std::span<const Run> runs, size_t symbols, size_t lanes, std::vector<uint8_t>& out) {
  ScratchFrame frame;
  // A symbol takes at most 16 bits; a vector kernel writes eight words below the last.
  const auto room = frame.take<uint32_t>(symbols / 2 + kMostIndexedLanes + 16);
  uint32_t *const bottom = room.data(), *const end_of_words = bottom + room.size();
  uint32_t* top = end_of_words;
  uint64_t states[kMostIndexedLanes];
  std::fill_n(states, lanes, kStateFloor);
  const auto encode_rows = pick(kEncodeRows);
  size_t end = symbols;
  for (size_t r = runs.size(); r-- > 0;) {
    const Run& run = runs[r];
    const size_t begin = end - run.count;
    const size_t rows_begin = std::min(end, (begin + lanes - 1) / lanes * lanes);
    const size_t rows_end = std::max(rows_begin, end / lanes * lanes);
    const auto some = [&](size_t from, size_t to) {
      top = encode_indexed_some(run.entries, run.ids + (from - begin), to - from, from % lanes, lanes, states, top);
    };
    some(rows_end, end);
    top = encode_rows(run.entries, run.ids + (rows_begin - begin), (rows_end - rows_begin) / lanes, lanes, states, top);
    some(begin, rows_begin);
    end = begin;
  }
  TERSOR_ASSERT(end == 0 && top >= bottom + 8);
  BitWriter lengths(out);
  for (size_t k = 0; k < lanes; ++k) lengths.put(uint32_t(state_bytes(states[k]) - 4), 3);
  lengths.finish();
  for (size_t k = 0; k < lanes; ++k)
    for (int i = 0; i < state_bytes(states[k]); ++i) out.push_back(uint8_t(states[k] >> (8 * i)));
  const size_t before = out.size(), bytes = 4 * size_t(end_of_words - top);
  out.resize(before + bytes);
  std::memcpy(out.data() + before, top, bytes);
}

ChunkReader::ChunkReader(std::span<const uint8_t> data, size_t lanes, bool has_escapes) : lanes_(lanes) {
  const uint64_t escape_bytes = has_escapes ? take_varint(data, kWhat) : 0;
  ByteReader reader(data, kWhat);
  BitReader lengths(reader.take((3 * lanes + 7) / 8), kWhat);
  for (size_t k = 0; k < lanes; ++k) {
    const uint32_t bytes = 4 + lengths.take(3);
    TERSOR_REQUIRE(bytes <= 8, Code::bad_data, kWhat, ": a state of ", bytes, " bytes, at most 8 are allowed");
    const auto from = reader.take(bytes);
    uint64_t state = 0;
    std::memcpy(&state, from.data(), bytes);
    TERSOR_REQUIRE(state >= kStateFloor && state >> 63 == 0 && state >> (8 * bytes - 8), Code::bad_data, kWhat,
                   ": a state of ", state, " in ", bytes, " bytes");
    states_.state[k] = state;
  }
  TERSOR_REQUIRE(lengths.padding_is_zero(), Code::bad_data, kWhat, ": padding bits are not 0");
  TERSOR_REQUIRE(escape_bytes <= reader.left() && (reader.left() - escape_bytes) % 4 == 0, Code::bad_data, kWhat, ": ",
                 reader.left(), " bytes of words and escapes, ", escape_bytes, " of them escapes");
  const auto words = reader.take(reader.left() - escape_bytes);
  states_.words = words.data(), states_.end = words.data() + words.size();
  escapes_.emplace(reader.take(escape_bytes), kWhat);
  escape_bytes_ = size_t(escape_bytes);
}

void ChunkReader::read(const Indexes& indexes, const TableSet& set, Means means, size_t at, size_t position,
                       std::span<int32_t> out) {
  const IndexedTables tables{set.buckets().data(), set.entries().data(), set.rows().data()};
  const auto decode_rows = pick(kDecodeRows);
  IndexedTile tile;
  for (size_t done = 0; done < out.size();) {
    const size_t count = std::min(kIndexedTile, out.size() - done);
    describe(indexes, set, means, at + done, count, tile);
    // Whole rows at once; of rows that a call or a tile cuts, whole registers of eight lanes.
    const size_t few = std::min<size_t>(lanes_, 8);
    int32_t* to = out.data() + done;
    size_t at_symbol = 0, lane = position % lanes_;
    while (at_symbol < count) {
      const size_t left = count - at_symbol;
      const size_t width = lane == 0 && left >= lanes_ ? lanes_ : lane % few == 0 && left >= few ? few : 0;
      size_t many = width == lanes_ ? left / width * width : width;
      many = width ? width * decode_rows(tables, tile, at_symbol, many / width, lane, width, states_, to) : 0;
      if (many == 0) {  // a symbol at a time, to the next register's
        many = std::min(left, few - lane % few);
        TERSOR_REQUIRE(decode_indexed_some(tables, tile, at_symbol, many, lane, lanes_, states_, to), Code::bad_data,
                       kWhat, ": its words end before its symbols");
      }
      at_symbol += many, lane = (lane + many) % lanes_;
    }
    for (size_t e = 0; e < tile.escapes; ++e) {
      const size_t i = tile.escaped[e];
      to[i] = int32_t(take_escape(*escapes_, set.rows()[tile.tables[i]]) + uint32_t(tile.places[i] >> 32));
    }
    done += count, position += count;
  }
}

void ChunkReader::read_cdfs(std::span<const uint16_t> cdfs, size_t length, size_t position, std::span<int16_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const uint16_t* cdf = cdfs.data() + i * length;
    uint64_t& state = states_.state[(position + i) % lanes_];
    const auto slot = uint32_t(state & (kTableSlots - 1));
    const auto symbol = size_t(std::upper_bound(cdf, cdf + length - 1, slot) - cdf);
    TERSOR_REQUIRE(symbol > 0, Code::bad_call, "the cdf of symbol ", i, " begins with ", cdf[0], ", 0 is needed");
    const uint32_t start = cdf[symbol - 1], end = symbol == length - 1 ? kTableSlots : cdf[symbol];
    TERSOR_REQUIRE(start <= slot && slot < end, Code::bad_call, "the cdf of symbol ", i, " does not rise");
    out[i] = int16_t(symbol - 1);
    state = uint64_t(end - start) * (state >> kSlotBits) + slot - start;
    if (state >= kStateFloor) continue;
    TERSOR_REQUIRE(states_.end - states_.words >= 4, Code::bad_data, kWhat, ": its words end before its symbols");
    state = state << 32 | load_le<uint32_t>(states_.words);
    states_.words += 4;
  }
}

void ChunkReader::finish() const {
  bool whole = states_.words == states_.end && escapes_->used() == escape_bytes_ && escapes_->padding_is_zero();
  for (size_t k = 0; k < lanes_; ++k) whole &= states_.state[k] == kStateFloor;
  TERSOR_REQUIRE(whole, Code::bad_data, kWhat,
                 ": it does not end where its symbols do: the data is damaged, or the tables, indexes or means are not "
                 "those that it was coded with");
}

}  // namespace tersor::entropy::indexed
