// Chunks of records: a few fields of fixed sizes that follow each other, over and over, as in the blocks of GGUF, in
// points of a few coordinates, or in numbers that no dtype names. Page: docs/formats/lossless.md, method 12.
#pragma once
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "lossless/numbers.h"

namespace tersor::lossless {

// Writes the chunk if raw holds a whole record and `out` has room; says whether it did. depth: of parts that what a
// field has in all records, which is a part, may hold.
bool encode_records(const Layout& layout, std::span<const uint8_t> raw, int level, EncodePart* encode_part, int depth,
                    ByteWriter& out);

// Reads what comes behind the method's byte and moves `data` behind it. depth: of parts that the chunk may hold.
void decode_records(std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodePart* decode_part, int depth);

}  // namespace tersor::lossless
