// Chunks of numbers that are more than bytes: smooth, sorted, few-valued, repeated, mostly zero, or small.
// Page: docs/formats/lossless.md, methods 5 to 11.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "lossless/chunk.h"
#include "lossless/plane.h"

namespace tersor::lossless {

// On disk, the chunk's first byte. chunk.cpp codes 0, 1, 3 and 4, records.cpp 12, the others are here.
enum Method : uint8_t {
  kStored = 0,
  kConstant = 1,
  kBytes = 2,
  kFloat16 = 3,
  kFloat32 = 4,
  kSeries = 5,
  kRanks = 6,
  kPacked = 7,
  kSparse = 8,
  kRuns = 9,
  kPlanes = 10,
  kScaled = 11,
  kRecords = 12,
};

// A chunk may hold chunks, its parts, and these parts of their own: so deep at most.
inline constexpr int kMostDepth = 3;

struct NumbersOptions {
  int level;
  PlaneOptions bytes;
  Element element;
  bool floats;  // the words are floats: sign, exponent, mantissa
  int depth;    // of parts that this chunk may hold
};

// Codes part of a chunk as a chunk of its own, and the inverse. depth: of parts that the part may hold.
using EncodePart = size_t(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded,
                          int depth);
using DecodePart = void(std::span<const uint8_t> coded, std::span<uint8_t> raw, int depth);

// Whether words of floats have something in them that planes of bits do not see: repeats, zeros, smoothness. Looks at
// a few hundred of them. width: 2, 4 or 8.
bool has_pattern(std::span<const uint8_t> raw, size_t width) noexcept;

// Whether words of floats are decimals, which planes cannot be cheaper for.
bool has_decimals(std::span<const uint8_t> raw, size_t width) noexcept;

// Writes the chunk by the cheapest of the methods above, if it takes less than `rival` bytes; says whether it did.
// raw: words of `width` (1, 2, 4 or 8) bytes.
bool encode_numbers(std::span<const uint8_t> raw, size_t width, const NumbersOptions& options, size_t rival,
                    EncodePart* encode_part, ByteWriter& out);

// Reads what comes behind the method's byte and moves `data` behind it. depth: of parts that the chunk
// may hold.
void decode_numbers(uint8_t method, std::span<const uint8_t>& data, std::span<uint8_t> raw, DecodePart* decode_part,
                    int depth);

}  // namespace tersor::lossless
