// Huffman codes, the reference. Page: docs/formats/huffman.md. The body is huffman_streams.h's.
#define TERSOR_HUFFMAN scalar
#include "entropy/huffman_streams.h"

namespace tersor::entropy::huffman {

bool decode_spans_scalar(const DecodeTable& table, const uint8_t* bits, size_t bytes, const Span* spans,
                         size_t count) noexcept {
  return scalar::decode_all(table, bits, bytes, spans, count);
}

void encode_spans_scalar(const EncodeTable& table, const uint8_t* symbols, size_t count, int log_piece, uint8_t* starts,
                         uint8_t* gaps, uint8_t* bits, size_t bytes) noexcept {
  scalar::encode_all(table, symbols, count, log_piece, starts, gaps, bits, bytes);
}

}  // namespace tersor::entropy::huffman
