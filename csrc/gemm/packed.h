// A matrix in the layout of the kernels (kernels.h): one blob that lives in memory only and is made from the stored
// parts when a model is loaded. One layout for every ISA level and for integer and exact arithmetic, so that a matrix
// stands once in memory; unpacking gives the parts back, bit for bit.
//
//   head | tables | [tile]: scales [group][32] | zeros | minimums | codes [step][unit][block] | extras
//
// A tile's numbers stand before its codes, so that memory gives one stream; they and the codes begin at multiples of 64
// bytes. Rows are filled up to 32, columns too, with code 0; rows that only fill up have scale 0. Vectors and sparse
// weights have tables and codes of their own (vectors.h, sparse.h), and behind them the numbers of all tiles.
#pragma once
#include <cstdint>
#include <span>

#include "formats/codebook.h"
#include "formats/grid.h"
#include "formats/sparse.h"
#include "gemm/extras.h"
#include "gemm/kernels.h"
#include "gemm/sparse.h"
#include "gemm/vectors.h"

namespace tersor::gemm {

enum class Family : uint8_t {
  grid,     // a code a weight, one table of levels
  tables,   // the same, a table a row, or a row and group: f32 [tile][group][32][2^bits]
  vectors,  // vectors.h
  sparse,   // sparse.h
};

struct PackedHead {
  uint32_t magic, version;
  Family family;
  uint8_t bits;          // of a code: 1, 2, 3, 4, 5, 6 or 8; of vectors 1..12; of sparse weights 4, 8, 0: none
  uint8_t looked_up;     // the integer of a code stands in a table; otherwise it is the code
  uint8_t has_integers;  // int8 arithmetic reads it
  uint8_t has_zeros, has_minimums;
  PackedScale scale_kind, number_kind;  // number_kind: of sparse weights that are no codes
  uint8_t dimension, stages;            // of vectors
  uint8_t tables_a_group;               // and not a row
  uint16_t center;
  float factor;  // scales are times this; 1 where there are minimums
  float step;    // of the integers; 0 where there are none
  uint64_t rows, columns;
  uint64_t group;       // columns that share a scale: a power of two from 16 to 512; 0: all of a row
  uint64_t kept_bytes;  // of sparse weights' codes
  uint64_t bytes;       // of the blob without extras, which take what is left of it
};

struct Tables {
  alignas(64) uint8_t integers[256];
  Levels levels;
};

// The blob taken apart. Its sections' places follow from the head.
struct Packed {
  PackedHead head;
  const Tables* tables;  // of grids and sparse weights
  const float* row_tables;
  Vectors vectors;
  Kept kept;
  const uint8_t *codes, *scales, *zeros, *minimums;  // the first tile's; null where there are none
  size_t code_stride, number_stride;                 // bytes from a tile to the next
  size_t padded_columns, tiles, groups;              // groups: of the padded columns
  Extras extras;

  // Raises bad_data: a blob that is none, or shorter or longer than its head says. data is 64-byte aligned, else
  // bad_call.
  static Packed parse(std::span<const uint8_t> data);

  const uint8_t* tile_codes(size_t tile) const noexcept { return codes + tile * code_stride; }
  size_t number_bytes() const noexcept;  // of a scale, a minimum
  // Of families other than grid: columns of a tile, whole steps, as integers in the layout of 8-bit codes (where there
  // are integers), and as levels [column][32].
  void integer_panel(size_t tile, size_t column, size_t columns, uint8_t* out) const noexcept;
  void level_panel(size_t tile, size_t column, size_t columns, float* out) const;
};

float number_at(PackedScale kind, const uint8_t* numbers, size_t index) noexcept;

// Bytes of the blob without extras. Raises bad_call for what the kernels do not take: groups of other sizes.
uint64_t packed_bytes(const formats::Grid& grid);
uint64_t packed_bytes(const formats::VectorCodes& codes);
uint64_t packed_bytes(const formats::Sparse& sparse, int threads);
// out: packed_bytes long and 64-byte aligned. What is packed has been checked by its format.
void pack(const formats::Grid& grid, std::span<uint8_t> out, int threads);
void pack(const formats::VectorCodes& codes, std::span<uint8_t> out, int threads);
void pack(const formats::Sparse& sparse, std::span<uint8_t> out, int threads);

}  // namespace tersor::gemm
