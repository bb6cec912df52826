// Huffman codes with BMI2, which comes with AVX2. Page: docs/formats/huffman.md.
// Reference: huffman_scalar.cpp, equal in every byte.
#define TERSOR_HUFFMAN avx2
#include "entropy/huffman_streams.h"

namespace tersor::entropy::huffman {

bool decode_spans_avx2(const DecodeTable& table, const uint8_t* bits, size_t bytes, const Span* spans,
                       size_t count) noexcept {
  return avx2::decode_all(table, bits, bytes, spans, count);
}

void encode_spans_avx2(const EncodeTable& table, const uint8_t* symbols, size_t count, int log_piece, uint8_t* starts,
                       uint8_t* gaps, uint8_t* bits, size_t bytes) noexcept {
  avx2::encode_all(table, symbols, count, log_piece, starts, gaps, bits, bytes);
}

}  // namespace tersor::entropy::huffman
