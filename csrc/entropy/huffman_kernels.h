// What the Huffman kernels share: tables, spans and signatures. Plain data only, so that ISA files may include it.
//
// A chunk is one bit string, low bits first, cut every 2^log_piece bits into pieces, 32 of which are a span. How many
// bits of a piece belong to a code begun before it, its gap, and how many codes begin in a span are told beside it. So
// a GPU has a thread for every piece: it counts, a warp sums, it decodes again and writes. A CPU decodes a few spans at
// a time, each a bit stream of its own, which hides the latency of one stream's look-ups behind the others'.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tersor::entropy::huffman {

inline constexpr int kMostLength = 12;  // bits of a code
inline constexpr int kSpanPieces = 32, kLeastLogPiece = 8, kMostLogPiece = 10;
inline constexpr int kMostSeveral = 4;

struct EncodeTable {
  alignas(64) uint64_t code[256];  // its bits at the top, the first lowest; the length in the low byte
};

struct DecodeTable {
  int index_bits;   // the longest code's length
  bool one_by_one;  // codes are so long that hardly an index holds two
  // By the next index_bits bits: symbol << 8 | length, and symbols << 32 | how many of them << 8 | their length.
  alignas(64) uint16_t single[1 << kMostLength];
  alignas(64) uint64_t several[1 << kMostLength];
};

struct Span {
  uint64_t begin, end;  // bits; where its first code begins, and where the code behind its last does
  uint8_t* out;
  size_t symbols;
};

// Decodes spans of one bit string of `bytes` bytes; nothing else is read. Returns false, having written nothing but
// symbols of the spans, when one does not end where it should.
using DecodeSpans = bool(const DecodeTable& table, const uint8_t* bits, size_t bytes, const Span* spans,
                         size_t count) noexcept;
DecodeSpans decode_spans_scalar, decode_spans_avx2;

// Writes the bit string of symbols that have codes: exactly `bytes` bytes. gaps, one byte for two pieces, hold zeros;
// starts: one for each span, how many codes begin in it.
using EncodeSpans = void(const EncodeTable& table, const uint8_t* symbols, size_t count, int log_piece, uint8_t* starts,
                         uint8_t* gaps, uint8_t* bits, size_t bytes) noexcept;
EncodeSpans encode_spans_scalar, encode_spans_avx2;

}  // namespace tersor::entropy::huffman
