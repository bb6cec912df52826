// One chunk of a tensor, bit for bit: split into planes, each plane coded by the cheapest way measured.
// Page: docs/formats/lossless.md. A chunk stands alone, so chunks are the unit of threads, random access and damage.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/array.h"

namespace tersor::lossless {

inline constexpr size_t kChunkBytes = size_t(1) << 20;  // raw bytes a chunk; the last one of a tensor is shorter
inline constexpr int kLeastLevel = 1, kMostLevel = 9, kDefaultLevel = 4;

// How the raw bytes are cut into planes. Numbers are on disk, inside the chunk.
enum class Element : uint8_t { bytes = 0, bf16 = 1, fp16 = 2, fp32 = 3 };
Element element_of(DType dtype) noexcept;  // bytes for what has no split of its own

// Most bytes that encode_chunk writes.
size_t chunk_bound(size_t raw_bytes) noexcept;

// raw: 1..kChunkBytes bytes (a length that is no multiple of the element is coded as bytes). coded: chunk_bound long.
// Returns the bytes written. Raises bad_call for sizes and levels outside their range.
size_t encode_chunk(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded);

// Fills raw exactly, or raises bad_data. Reads nothing outside `coded`, writes nothing outside `raw`, and allocates
// no more than a fixed amount of scratch whatever the bytes say.
void decode_chunk(std::span<const uint8_t> coded, std::span<uint8_t> raw);

}  // namespace tersor::lossless
