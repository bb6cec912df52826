// The Huffman decoder of one span, as a body for a warp: a lane takes a piece. huffman.cu compiles it for the GPU,
// huffman_warp_check.cpp for the host. Page: docs/formats/huffman.md. Reference: huffman_scalar.cpp, equal byte for
// byte where it returns true.
#pragma once
#include "cuda/warp.h"
#include "entropy/huffman_kernels.h"

namespace tersor::entropy::huffman {

// A coded chunk, wherever it lies. table: DecodeTable::single, which a GPU keeps in shared memory.
struct WarpString {
  const uint16_t* table;
  uint32_t index_bits;
  uint32_t log_piece;
  const uint8_t* gaps;  // two to a byte
  const uint8_t* bits;
  size_t bytes;
  uint64_t end;  // bits in the string
  size_t pieces;

  // Where the codes of a piece begin; behind the last piece the string's end.
  TERSOR_HD uint64_t begin_of(size_t piece) const {
    return piece < pieces ? (uint64_t(piece) << log_piece) + (uint32_t(gaps[piece / 2]) >> (piece % 2 * 4) & 15) : end;
  }
  TERSOR_HD uint16_t entry_at(uint64_t at) const {  // symbol << 8 | length
    const size_t byte = size_t(at >> 3);
    uint32_t next = 0;
    for (size_t i = 0; i < 3 && byte + i < bytes; ++i) next |= uint32_t(bits[byte + i]) << (8 * i);
    return table[next >> (at & 7) & ((1u << index_bits) - 1)];
  }
};

// Decodes the span that begins with `first_piece` and holds `symbols`. Returns false, having written nothing, when a
// piece's codes do not end where the next piece's begin, or the symbols are not so many. Every lane returns the same.
template <class Warp>
TERSOR_HD bool decode_span_warp(const Warp& warp, const WarpString& string, size_t first_piece, size_t symbols,
                                uint8_t* out) {
  constexpr uint32_t kCountBits = kMostLogPiece + 1;  // a piece's codes begin in it, one bit each at least
  typename Warp::template reg<uint32_t> count, offset;
  typename Warp::template reg<bool> vote;
  warp.each([&](uint32_t lane) {
    const size_t piece = first_piece + lane;
    const uint64_t stop = string.begin_of(piece + 1);
    uint64_t at = string.begin_of(piece);
    uint32_t codes = 0;
    for (; at < stop && stop <= string.end; ++codes) at += string.entry_at(at) & 255;
    count[lane] = codes, offset[lane] = 0;
    vote[lane] = at == stop && stop <= string.end;
  });
  const bool sound = warp.ballot(vote) == 0xffffffffu;
  // The sums of the lanes before, bit by bit of what is summed.
  uint32_t mask = 0, total = 0;
  for (uint32_t bit = 0; bit < kCountBits; ++bit) {
    warp.each([&](uint32_t lane) {
      if (bit > 0) offset[lane] += warp.rank(mask, lane) << (bit - 1);
      vote[lane] = (count[lane] >> bit & 1) != 0;
    });
    mask = warp.ballot(vote);
    total += warp.count(mask) << bit;
  }
  if (!sound || total != symbols) return false;
  warp.each([&](uint32_t lane) {
    uint8_t* to = out + offset[lane] + (warp.rank(mask, lane) << (kCountBits - 1));
    uint64_t at = string.begin_of(first_piece + lane);
    for (uint32_t left = count[lane]; left > 0; --left) {
      const uint16_t entry = string.entry_at(at);
      *to++ = uint8_t(entry >> 8), at += entry & 255;
    }
  });
  return true;
}

}  // namespace tersor::entropy::huffman
