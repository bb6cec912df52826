// The rANS decoder of one lane group, as a body for a warp. rans.cu compiles it for the GPU, rans_warp_check.cpp for
// the host. Page: docs/formats/rans8.md. Reference: rans_scalar.cpp, equal byte for byte where it returns true.
#pragma once
#include "cuda/warp.h"
#include "entropy/rans_kernels.h"

namespace tersor::entropy {

// The part of DecodeTables that the reference reads, wherever it lies: a GPU keeps it in shared memory.
struct WarpTables {
  const uint32_t* until;
  const uint64_t* side;
  uint32_t log_width;  // of a bucket, in slots
};

TERSOR_HD uint32_t bucket_log_width(Layout layout) {
  return layout == Layout::alias32 ? 11 : layout == Layout::alias256 ? 8 : 10;
}

// Decodes `rows` rows of one group: its 32 symbols of row r go to out + r * stride. low, high and words are the group's
// part of DecodeStates and are moved on. Returns false when the words would run below `floor`; none below it is read,
// nothing outside the rows is written. Every lane returns the same.
template <class Warp>
TERSOR_HD bool decode_group_warp(const Warp& warp, const WarpTables& tables, uint16_t* low, uint16_t* high,
                                 const uint8_t** words, const uint8_t* floor, size_t rows, uint8_t* out,
                                 size_t stride) {
  typename Warp::template reg<uint32_t> state;
  typename Warp::template reg<bool> needs;
  warp.each([&](uint32_t lane) { state[lane] = uint32_t(high[lane]) << 16 | low[lane]; });
  const uint8_t* end = *words;
  bool sound = end >= floor;
  for (size_t row = 0; row < rows && sound; ++row, out += stride) {
    warp.each([&](uint32_t lane) {
      const uint32_t slot = state[lane] & 0xffff, bucket = slot >> tables.log_width;
      const uint64_t side = tables.side[2 * bucket + uint32_t(slot < tables.until[bucket])];
      out[lane] = uint8_t(side);
      state[lane] = (uint32_t(side) >> 16) * (state[lane] >> 16) + slot + uint32_t(side >> 32);
      needs[lane] = state[lane] < kSlots;
    });
    const uint32_t mask = warp.ballot(needs);
    const uint32_t taken = warp.count(mask);
    sound = size_t(end - floor) >= 2 * size_t(taken);
    warp.each([&](uint32_t lane) {
      if (!sound || !needs[lane]) return;
      const uint8_t* word = end - 2 * (taken - warp.rank(mask, lane));  // the first lane's word lies lowest
      state[lane] = state[lane] << 16 | uint32_t(word[1]) << 8 | word[0];
    });
    end -= sound ? 2 * taken : 0;
  }
  warp.each([&](uint32_t lane) {
    low[lane] = uint16_t(state[lane]);
    high[lane] = uint16_t(state[lane] >> 16);
  });
  *words = end;
  return sound;
}

}  // namespace tersor::entropy
