#include <algorithm>
#include <bit>

#include "core/bits.h"
#include "entropy/indexed_kernels.h"

namespace tersor::entropy {
namespace {

// The symbol of a table that holds the slot, which is `low` or one behind it: mostly near, so in steps that double.
uint32_t search(const TableRow& row, const SymbolEntry* entry, uint32_t low, uint32_t slot) noexcept {
  uint32_t step = 1;
  for (; low + step <= row.count && entry[low + step].start <= slot; step *= 2) low += step;
  uint32_t high = std::min(low + step - 1, row.count);
  while (low < high) {  // the last that starts at or below the slot; those without a slot come before it
    const uint32_t middle = (low + high + 1) / 2;
    if (entry[middle].start <= slot)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// One symbol: `words` must hold one more where kChecked is false. False: it does not.
template <bool kChecked>
[[gnu::always_inline]] inline bool decode_one(const IndexedTables& tables, IndexedTile& tile, size_t i, uint64_t& state,
                                              const uint8_t*& words, const uint8_t* end, int32_t* out) noexcept {
  const uint64_t place = tile.places[i];
  const auto slot = uint32_t(state & (kTableSlots - 1));
  const uint64_t bucket = tables.buckets[(place & 0xffffff) + (slot >> (place >> 24 & 31))];
  auto symbol = uint32_t(bucket >> 48), rest = slot - uint32_t(bucket & 0xffff);
  const auto one = uint32_t(bucket >> 16 & 0xffff);
  // Which of the two it is nobody can foresee: arithmetic, not a branch.
  const uint32_t second = rest >= one;
  uint32_t frequency = uint32_t(bucket >> (16 + 16 * second)) & 0xffff;
  rest -= one & (0u - second), symbol += second;
  if (rest >= frequency) [[unlikely]] {
    uint64_t found = symbol, of_found, rank;
    const uint64_t wide = slot;
    search_indexed(tables, tile, i, 1, &wide, &found, &of_found, &rank);
    symbol = uint32_t(found), frequency = uint32_t(of_found), rest = uint32_t(rank);
  }
  out[i] = int32_t(symbol + uint32_t(place >> 32));
  const uint64_t next = uint64_t(frequency) * (state >> kSlotBits) + rest;
  const uint64_t refill = 0 - uint64_t(next < kStateFloor);
  if (kChecked) {
    if (refill && end - words < 4) return false;
    state = refill ? next << 32 | load_le<uint32_t>(words) : next;
  } else {
    state = next << (refill & 32) | (load_le<uint32_t>(words) & refill);
  }
  words += refill & 4;
  return true;
}

template <size_t kLanes>
size_t decode_rows(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                   LaneStates& states, int32_t* out) noexcept {
  constexpr size_t kBlock = kLanes < 8 ? kLanes : 8;  // what the compiler unrolls
  const uint8_t* words = states.words;
  uint64_t state[kLanes];
  for (size_t k = 0; k < kLanes; ++k) state[k] = states.state[lane + k];
  size_t row = 0;
  for (; row < rows && size_t(states.end - words) >= 4 * kLanes; ++row)
    for (size_t block = 0; block < kLanes; block += kBlock, at += kBlock)
      for (size_t k = 0; k < kBlock; ++k)
        decode_one<false>(tables, tile, at + k, state[block + k], words, states.end, out);
  for (size_t k = 0; k < kLanes; ++k) states.state[lane + k] = state[k];
  states.words = words;
  return row;
}

// x / f for x below f * 2^47, so that the quotient fits a double's mantissa. The inverse and all roundings make the
// estimate too small by less than 1 in all, so one comparison mends it: the result is exact on every machine.
[[gnu::always_inline]] inline void encode_one(const SymbolEntry& entry, uint64_t& state, uint32_t*& top) noexcept {
  const uint64_t f = entry.frequency;
  const uint64_t over = 0 - uint64_t(state >> 47 >= f);
  top[-1] = uint32_t(state);
  top -= over & 1;
  const uint64_t x = state >> (over & 32);
  auto quotient = uint64_t(int64_t(double(int64_t(x)) * entry.inverse));
  const uint64_t rest = x - quotient * f;
  quotient += rest >= f;
  state = x + quotient * (kTableSlots - f) + entry.start;
}

template <size_t kLanes>
uint32_t* encode_rows(const SymbolEntry* entries, const uint32_t* ids, size_t rows, uint64_t* states,
                      uint32_t* top) noexcept {
  constexpr size_t kBlock = kLanes < 8 ? kLanes : 8;
  uint64_t state[kLanes];
  for (size_t k = 0; k < kLanes; ++k) state[k] = states[k];
  for (const uint32_t* id = ids + rows * kLanes; id != ids;)
    for (size_t block = kLanes; block > 0; block -= kBlock) {
      id -= kBlock;
      for (size_t k = kBlock; k-- > 0;) encode_one(entries[id[k]], state[block - kBlock + k], top);
    }
  for (size_t k = 0; k < kLanes; ++k) states[k] = state[k];
  return top;
}

}  // namespace

void search_indexed(const IndexedTables& tables, IndexedTile& tile, size_t at, uint32_t missed, const uint64_t* slot,
                    uint64_t* symbol, uint64_t* frequency, uint64_t* rest) noexcept {
  for (; missed; missed &= missed - 1) {
    const auto k = size_t(std::countr_zero(missed));
    const TableRow& row = tables.rows[tile.tables[at + k]];
    const SymbolEntry* entry = tables.entries + row.entry;
    // What is given may be the second of its bucket, which can lie one behind the escape.
    const uint32_t found = search(row, entry, uint32_t(symbol[k]) - (symbol[k] > 0), uint32_t(slot[k]));
    symbol[k] = found, frequency[k] = entry[found].frequency, rest[k] = slot[k] - entry[found].start;
    if (found == row.count) tile.escaped[tile.escapes++] = uint16_t(at + k);
  }
}

bool decode_indexed_some(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t count, size_t lane,
                         size_t lanes, LaneStates& states, int32_t* out) noexcept {
  for (size_t i = 0; i < count; ++i, ++lane)
    if (!decode_one<true>(tables, tile, at + i, states.state[lane & (lanes - 1)], states.words, states.end, out))
      return false;
  return true;
}

size_t decode_indexed_rows_scalar(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                                  size_t lanes, LaneStates& states, int32_t* out) noexcept {
  switch (lanes) {
    case 1: return decode_rows<1>(tables, tile, at, rows, lane, states, out);
    case 2: return decode_rows<2>(tables, tile, at, rows, lane, states, out);
    case 4: return decode_rows<4>(tables, tile, at, rows, lane, states, out);
    case 8: return decode_rows<8>(tables, tile, at, rows, lane, states, out);
    case 16: return decode_rows<16>(tables, tile, at, rows, lane, states, out);
    default: return decode_rows<32>(tables, tile, at, rows, lane, states, out);
  }
}

uint32_t* encode_indexed_some(const SymbolEntry* entries, const uint32_t* ids, size_t count, size_t lane, size_t lanes,
                              uint64_t* states, uint32_t* top) noexcept {
  for (size_t i = count; i-- > 0;) encode_one(entries[ids[i]], states[(lane + i) & (lanes - 1)], top);
  return top;
}

uint32_t* encode_indexed_rows_scalar(const SymbolEntry* entries, const uint32_t* ids, size_t rows, size_t lanes,
                                     uint64_t* states, uint32_t* top) noexcept {
  switch (lanes) {
    case 1: return encode_rows<1>(entries, ids, rows, states, top);
    case 2: return encode_rows<2>(entries, ids, rows, states, top);
    case 4: return encode_rows<4>(entries, ids, rows, states, top);
    case 8: return encode_rows<8>(entries, ids, rows, states, top);
    case 16: return encode_rows<16>(entries, ids, rows, states, top);
    default: return encode_rows<32>(entries, ids, rows, states, top);
  }
}

}  // namespace tersor::entropy
