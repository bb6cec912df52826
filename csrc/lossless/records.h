// Chunks of records: a few fields of fixed sizes that follow each other, over and over, as in the blocks of GGUF, or in
// numbers that no dtype names. Page: docs/formats/lossless.md, method 12.
#pragma once
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "lossless/chunk.h"

namespace tersor::lossless {

// Codes what one field has in all records as a chunk of its own, and the inverse.
using EncodeField = size_t(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded);
using DecodeField = void(std::span<const uint8_t> coded, std::span<uint8_t> raw);

// Writes the chunk if raw holds a whole record and `out` has room; says whether it did.
bool encode_records(const Layout& layout, std::span<const uint8_t> raw, int level, EncodeField* encode_field,
                    ByteWriter& out);

// Reads what comes behind the method's byte and moves `data` behind it.
void decode_records(std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodeField* decode_field);

}  // namespace tersor::lossless
