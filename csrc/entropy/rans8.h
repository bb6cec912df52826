// A self-describing stream of 8-bit symbols. Page: docs/formats/rans8.md.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "entropy/table.h"

namespace tersor::entropy::rans8 {

enum class Mode : uint8_t {
  alias,       // decodes fastest, any 256 symbols
  contiguous,  // encodes fastest: the likely symbols from a sampled count, the others by escape
};

inline constexpr size_t kChunkSymbols = size_t(1) << 20;  // the unit of threads and of random access

// Most bytes that encode writes.
size_t encode_bound(size_t symbols) noexcept;

// table: of up to 256 symbols; without one it is made from the symbols and travels in the stream. Raises bad_call where
// a symbol has no frequency in a given table. The bytes do not depend on threads. out: encode_bound long, all of which
// may be written to. Returns the bytes of the stream, which stand in front.
size_t encode(std::span<const uint8_t> symbols, const Table* table, Mode mode, int threads, std::span<uint8_t> out);
std::vector<uint8_t> encode(std::span<const uint8_t> symbols, const Table* table, Mode mode, int threads);

// Symbols in the stream; raises bad_data where its head is damaged or the claim is beyond what its bytes can hold.
uint64_t decoded_size(std::span<const uint8_t> data);

// out: decoded_size(data) symbols. table: as given to encode.
void decode(std::span<const uint8_t> data, const Table* table, std::span<uint8_t> out, int threads);

}  // namespace tersor::entropy::rans8
