// Inner loops of the indexed stream. Page: docs/formats/indexed.md. indexed_scalar.cpp defines their results.
// A state lies in [2^31, 2^63); symbol i of a chunk belongs to lane i modulo the number of lanes, and the words that
// the lanes take stand in the order in which they are taken.
#pragma once
#include <cstddef>
#include <cstdint>

#include "entropy/symbol_entry.h"

namespace tersor::entropy {

inline constexpr size_t kMostIndexedLanes = 32;
inline constexpr uint64_t kStateFloor = uint64_t(1) << 31;

struct IndexedTables {
  const uint64_t* buckets;
  const SymbolEntry* entries;
  const TableRow* rows;
};

struct LaneStates {
  alignas(64) uint64_t state[kMostIndexedLanes];
  const uint8_t* words;  // the next one, not aligned
  const uint8_t* end;
};

// What is decoded at once: few enough symbols that all of this stays in the L1 cache.
inline constexpr size_t kIndexedTile = 1024;
struct IndexedTile {
  alignas(64) uint64_t places[kIndexedTile];  // the tables' rows of TableSet::places, low and mean added up
  uint16_t tables[kIndexedTile];
  uint16_t escaped[kIndexedTile];  // where escapes came, ascending: `out` holds what the escape's own number gives
  size_t escapes;
};

// Decodes rows of `lanes` symbols from symbol `at` of the tile on; lane `lane` is the first symbol's of each row. Stops
// before a row for which fewer than `lanes` words are left. Returns the rows decoded.
using DecodeIndexedRows = size_t(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                                 size_t lanes, LaneStates& states, int32_t* out) noexcept;
DecodeIndexedRows decode_indexed_rows_scalar, decode_indexed_rows_avx2, decode_indexed_rows_avx512;

// The same for any symbols, lane `lane` being the first one's, every word checked. False: the words end too early.
bool decode_indexed_some(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t count, size_t lane,
                         size_t lanes, LaneStates& states, int32_t* out) noexcept;

// For each lane of `missed`, whose slots a bucket's two symbols do not cover: the symbol, its frequency and the slot's
// rank, by searching from the symbol that is given on. Vector kernels call it with their registers laid down.
void search_indexed(const IndexedTables& tables, IndexedTile& tile, size_t at, uint32_t missed, const uint64_t* slot,
                    uint64_t* symbol, uint64_t* frequency, uint64_t* rest) noexcept;

// Encodes whole rows backward: `entries[ids[i]]` for i from rows * lanes - 1 down to 0. Words go below `top`, eight
// words below the last one may be written to. Returns the new top.
using EncodeIndexedRows = uint32_t*(const SymbolEntry* entries, const uint32_t* ids, size_t rows, size_t lanes,
                                    uint64_t* states, uint32_t* top) noexcept;
EncodeIndexedRows encode_indexed_rows_scalar, encode_indexed_rows_avx512;

// The same for any symbols, lane `lane` being the first one's.
uint32_t* encode_indexed_some(const SymbolEntry* entries, const uint32_t* ids, size_t count, size_t lane, size_t lanes,
                              uint64_t* states, uint32_t* top) noexcept;

}  // namespace tersor::entropy
