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

// What the raw bytes are, which says how they may be cut; a chunk tells it by its method.
enum class Element : uint8_t { bytes, bf16, fp16, fp32, int8, int16, int32, int64, fp64 };
inline constexpr int kElements = 9;
Element element_of(DType dtype) noexcept;  // of complex numbers their parts; bytes for what has no way of its own

// What a chunk's raw bytes are: elements from its first byte on, or records of fields.
struct Field {
  uint16_t bytes;
  Element element;
};
inline constexpr size_t kMostFields = 32, kMostRecordBytes = 4096;
struct Layout {
  Layout(Element each) noexcept : element(each) {}  // NOLINT: most tensors are elements and nothing more
  Layout(std::span<const Field> fields, uint64_t before) noexcept : record(fields), phase(before) {}
  size_t record_bytes() const noexcept;
  Element element = Element::bytes;
  std::span<const Field> record;  // 1..kMostFields that take at most kMostRecordBytes together; empty for elements
  uint64_t phase = 0;             // bytes of the tensor before the chunk, so that records may straddle chunks
};

// Most bytes that encode_chunk writes.
size_t chunk_bound(size_t raw_bytes) noexcept;

// raw: 1..kChunkBytes bytes (a length that is no multiple of the element is coded as bytes). coded: chunk_bound long.
// Returns the bytes written. Raises bad_call for sizes, records and levels outside their range.
size_t encode_chunk(const Layout& layout, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded);

// Fills raw exactly, or raises bad_data. Reads nothing outside `coded`, writes nothing outside `raw`, and allocates
// no more than a fixed amount of scratch whatever the bytes say.
void decode_chunk(std::span<const uint8_t> coded, std::span<uint8_t> raw);

}  // namespace tersor::lossless
