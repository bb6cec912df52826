// Where the sections of a packed matrix lie (packed.h). What packed.cpp and the packers of families share.
#pragma once
#include <cstdint>
#include <span>

#include "gemm/packed.h"

namespace tersor::gemm {

inline constexpr const char* kPackedWhat = "packed matrix";
inline constexpr uint64_t kSectionAlign = 64;
inline constexpr int kMostVectorBits = formats::kMostCodeBits;
// Behind kept codes: what a step that begins at their end would read, and a register more.
inline constexpr uint64_t kKeptSlack = kStepMaskBytes + kStepColumns * kTileRows * sizeof(float) + 64;

constexpr uint64_t rounded_up(uint64_t value, uint64_t to) noexcept { return (value + to - 1) / to * to; }

// Of the tables of vectors: offsets of each and of their end.
struct VectorTables {
  uint64_t words, floats, planes, fours, bytes;
  bool looked_up;  // there are planes and fours
  explicit VectorTables(const PackedHead& head) noexcept;
};

// Offsets of the sections and what follows from the head, whose numbers are in their ranges.
struct Layout {
  uint64_t tables, codes, scales, zeros, minimums, bytes;  // of codes and numbers: the first tile's
  uint64_t code_stride;                                    // from a tile to the next; 0: the family has its own
  uint64_t number_stride;                                  // of scales, zeros and minimums
  uint64_t padded_columns, tiles, groups;
  uint64_t pieces;      // of a tile of sparse weights
  uint64_t vectors;     // of a row
  uint64_t row_tables;  // of a row
  explicit Layout(const PackedHead& head);
  // Writes the head, which learns its bytes, and clears the tables. Raises bad_call for room of another size.
  void begin(PackedHead& head, std::span<uint8_t> out) const;
  // A tile's numbers of a section of `out`, whose bytes that only fill up are cleared.
  uint8_t* numbers(std::span<uint8_t> out, uint64_t section, size_t tile) const noexcept;

 private:
  uint64_t number_bytes;  // of a tile
};

void fill_tables(uint8_t* at, const uint8_t* integers, const float* levels, size_t codes, int bits) noexcept;
PackedHead head_of(Family family, size_t rows, size_t columns, size_t group);  // bad_call
PackedScale packed_kind(formats::NumberKind kind);                             // bad_call: none
size_t bytes_of(PackedScale kind) noexcept;

}  // namespace tersor::gemm
