// Chunks of symbols that need no coder, and the lengths of chunks: alike in every stream of 8-bit symbols.
// Pages: docs/formats/rans8.md, docs/formats/huffman.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy {

inline constexpr uint8_t kRawChunk = 0, kConstantChunk = 1;  // the first byte; other kinds are the stream's own

// Whether all symbols are one.
bool is_constant(std::span<const uint8_t> symbols) noexcept;

// Decodes what stands behind the kind of a raw or constant chunk and says whether it was one; raises bad_data for other
// lengths than out needs. what: names the chunk in errors.
bool decode_plain(uint8_t kind, std::span<const uint8_t> data, std::span<uint8_t> out, const char* what);

// Takes a varint for each of `chunks` chunks from the front of `data` and moves `data` behind them: where each chunk
// ends in what is left, 0 first. Raises bad_data unless that is all that is left.
std::vector<uint64_t> take_chunk_ends(std::span<const uint8_t>& data, size_t chunks, const char* what);

}  // namespace tersor::entropy
