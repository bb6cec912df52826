// One chunk of a tensor as its difference to the same bytes of a base, bit for bit. Page: docs/formats/difference.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lossless/chunk.h"

namespace tersor::lossless {

// Most bytes that encode_difference writes.
size_t difference_bound(size_t raw_bytes) noexcept;

// raw, base: 1..kChunkBytes bytes each, equally many. width: bytes of an element (1, 2, 4 or 8). Codes raw against base
// where a sample says that this is smaller, else as encode_chunk does. coded: difference_bound long. Returns the bytes
// written. Raises bad_call as encode_chunk does, and for other sizes of base and widths.
size_t encode_difference(const Layout& layout, size_t width, std::span<const uint8_t> raw,
                         std::span<const uint8_t> base, int level, std::span<uint8_t> coded);

// Fills raw exactly, or raises bad_data. base: raw.size() bytes; other ones than the encoder's give other raw bytes.
void decode_difference(std::span<const uint8_t> coded, std::span<const uint8_t> base, std::span<uint8_t> raw);

}  // namespace tersor::lossless
