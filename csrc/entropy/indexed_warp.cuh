// Rows of a wide chunk of the indexed stream, as a body for a warp that owns the chunk. rans.cu compiles it for the
// GPU, indexed_warp_check.cpp for the host. Page: docs/formats/indexed.md. Reference: indexed_scalar.cpp, equal bit for
// bit.
#pragma once
#include "cuda/warp.h"
#include "entropy/indexed_kernels.h"

namespace tersor::entropy {

// Decodes `rows` rows of 32 symbols: lane l has the chunk's state l and symbols l, l + 32, ... `symbols` gets the
// number of each in its table, its escape's for those that have to be looked up among the escapes; low and means are
// added where those are. The words are aligned to 4 bytes. Returns false when they would end too early; none beyond
// `end` is read, nothing outside the rows is written. Every lane returns the same.
template <class Warp>
TERSOR_HD bool decode_indexed_warp(const Warp& warp, const uint64_t* places, const uint64_t* buckets,
                                   const TableRow* tables, const SymbolEntry* entries, const uint16_t* table_of,
                                   size_t rows, uint64_t* states, const uint32_t** words, const uint32_t* end,
                                   uint32_t* symbols) {
  typename Warp::template reg<uint64_t> state;
  typename Warp::template reg<bool> needs;
  warp.each([&](uint32_t lane) { state[lane] = states[lane]; });
  const uint32_t* word = *words;
  bool sound = word <= end;
  for (size_t row = 0; row < rows && sound; ++row, table_of += cuda::kWarpLanes, symbols += cuda::kWarpLanes) {
    warp.each([&](uint32_t lane) {
      const uint32_t table = table_of[lane];
      const uint64_t place = places[table];
      const auto slot = uint32_t(state[lane] & (kTableSlots - 1));
      const uint64_t bucket = buckets[(place & 0xffffff) + (slot >> (place >> 24 & 31))];
      auto symbol = uint32_t(bucket >> 48), rest = slot - uint32_t(bucket & 0xffff);
      const auto one = uint32_t(bucket >> 16 & 0xffff);
      const uint32_t second = rest >= one;
      uint32_t frequency = uint32_t(bucket >> (16 + 16 * second)) & 0xffff;
      rest -= second ? one : 0, symbol += second;
      if (rest >= frequency) {  // by halving, see search in indexed_scalar.cpp
        const TableRow& shape = tables[table];
        uint32_t low = 0, high = shape.count;
        while (low < high) {
          const uint32_t middle = (low + high + 1) / 2;
          if (entries[shape.entry + middle].start <= slot)
            low = middle;
          else
            high = middle - 1;
        }
        symbol = low;
        frequency = entries[shape.entry + low].frequency, rest = slot - entries[shape.entry + low].start;
      }
      symbols[lane] = symbol;
      state[lane] = uint64_t(frequency) * (state[lane] >> kSlotBits) + rest;
      needs[lane] = state[lane] < kStateFloor;
    });
    const uint32_t mask = warp.ballot(needs);
    const uint32_t taken = warp.count(mask);
    sound = size_t(end - word) >= taken;
    warp.each([&](uint32_t lane) {
      if (sound && needs[lane]) state[lane] = state[lane] << 32 | word[warp.rank(mask, lane)];
    });
    word += sound ? taken : 0;
  }
  warp.each([&](uint32_t lane) { states[lane] = state[lane]; });
  *words = word;
  return sound;
}

}  // namespace tersor::entropy
