// A self-describing stream of 8-bit symbols in Huffman codes, made for decoders with many threads. Page:
// docs/formats/huffman.md.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "entropy/histogram.h"
#include "entropy/huffman_kernels.h"

namespace tersor::entropy::huffman {

inline constexpr size_t kChunkSymbols = size_t(1) << 20;  // the unit of threads and of random access
using Lengths = std::array<uint8_t, 256>;                 // of the codes in bits; 0: no code

// The lengths of a prefix code, none above `most`, that cost `counts` least (package-merge; Larmore and Hirschberg,
// 1990). At least two symbols must occur, at most 2^most.
Lengths limited_lengths(const ByteCounts& counts, int most);

// The canonical code of complete lengths, which sum up to 1 in 2^-length.
void prepare_encode(const Lengths& lengths, EncodeTable& out);
void prepare_decode(const Lengths& lengths, DecodeTable& out);

// Most bytes that encode writes.
size_t encode_bound(size_t symbols) noexcept;

// The bytes do not depend on threads. out: encode_bound long. Returns the bytes of the stream, which stand in front.
size_t encode(std::span<const uint8_t> symbols, int threads, std::span<uint8_t> out);
std::vector<uint8_t> encode(std::span<const uint8_t> symbols, int threads);

// The number of symbols in a stream, without decoding it. Raises bad_data.
uint64_t decoded_size(std::span<const uint8_t> data);

// out: decoded_size(data) long, else bad_call. Raises bad_data.
void decode(std::span<const uint8_t> data, std::span<uint8_t> out, int threads);

}  // namespace tersor::entropy::huffman
