// Vector codebooks as the driver reads them: a code of a tile's row stands for 2..8 columns, stages add up.
//
// 8-bit activations take codewords as bytes with one step for all stages: an entry of stage s is rounded to a whole
// number of steps, less the least of its stage. Sums over stages fit in a byte, so that codewords are words of eight
// bytes, which are added as they are: one addition a stage.
//
// Codes are bytes, or pairs of bytes where a stage has more than 256 entries:
//   [16 vectors of a row][64 rows][vector][stage][row, in the order of code_place]
// so that what one token's tables serve lies in one piece for all rows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "gemm/kernels.h"

namespace tersor::gemm {

inline constexpr size_t kPairRows = 64, kChunkVectors = 16, kWordBytes = 8;

// Where a tile's row stands among 32 codes: four rows of a 128-bit lane become neighbors when bytes are interleaved.
constexpr size_t code_place(size_t row) noexcept { return row / 4 % 2 * 16 + row / 8 * 4 + row % 4; }

struct Vectors {
  int dimension, stages, code_bytes;
  size_t entries;         // of a stage, a power of two: those that no code names are 0
  size_t count, pairs;    // vectors of a row; 64s of rows
  const uint64_t* words;  // [stage][entry]: bytes of a codeword, the first column's lowest
  const float* floats;    // [stage][entry][8]
  const uint8_t* planes;  // where all codes are bytes of eight columns, else null: [stage][8][256]
  const uint32_t* fours;  // likewise, columns 0..3 and 4..7 of the words: [stage][2][256]
  const uint8_t* codes;

  // Inlined everywhere: files of several levels include this, which must not share code.
  [[gnu::always_inline]] size_t record() const noexcept {
    return size_t(stages) * kPairRows * size_t(code_bytes);
  }  // bytes of a vector
  [[gnu::always_inline]] size_t chunk_vectors(size_t vector) const noexcept {
    const size_t left = count - vector / kChunkVectors * kChunkVectors;
    return left < kChunkVectors ? left : kChunkVectors;
  }
  // Codes of a vector of 64 rows.
  [[gnu::always_inline]] const uint8_t* at(size_t pair, size_t vector) const noexcept {
    const size_t first = vector / kChunkVectors * kChunkVectors;
    return codes + (first * pairs + pair * chunk_vectors(vector) + vector - first) * record();
  }
};

// One token's sums of the rows of tiles [first, end) by tables of its products with all codewords.
struct LookUps {
  const Vectors* vectors;
  size_t first_tile, end_tile;  // first: even
  int center;
  PackedScale scale_kind;
  const uint8_t* scales;  // [tile][32], from the first tile of the matrix on
  size_t scale_tile_bytes;
  const int8_t* x;  // columns up to a multiple of 32
  size_t columns, group_columns;
  const int32_t* sums;    // of x, [group]
  const float* x_scales;  // [group], or null
  float* y;               // of the first tile's rows
  size_t y_stride;        // from a tile to the next
  uint8_t* room;          // 64-byte aligned
};

// Tables of a token's products with all codewords of the vectors of a chunk: three bytes of each, plane by plane.
inline constexpr size_t kTableBytes = 3 * 256;
constexpr size_t look_up_room(int stages, size_t tiles) noexcept {
  return kChunkVectors * size_t(stages) * kTableBytes + (tiles + 1) / 2 * kPairRows * sizeof(int32_t);
}

// A level's functions, all of which give the same bits.
struct VectorKernels {
  // Columns of a tile, whole steps, in the layout of 8-bit codes.
  void (*panel)(const Vectors& vectors, size_t tile, size_t column, size_t columns, uint8_t* out) noexcept;
  // Null: panels serve one token too. Needs planes.
  void (*look_up)(const LookUps& task) noexcept;
};
extern const VectorKernels kScalarVectorKernels, kAvx512VbmiVectorKernels;
const VectorKernels& vector_kernels() noexcept;  // the active level's

}  // namespace tersor::gemm
