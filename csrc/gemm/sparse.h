// Sparse weights as the driver reads them, whatever their support was: a bit says of a weight whether it is kept.
//
// A step of a tile is 16 words of 64 bits, [vector][block], whose bits are the bytes of a unit of 8-bit codes
// (kernels.h), and behind them what is kept, in the order of the bits: codes of 8 bits, or of 4, two a byte, low bits
// first and each word's from a byte on, or numbers. A tile is one stream. Places of its pieces of 128 columns are on
// record; nothing is read further than a step behind the end, wherever they point.
#pragma once
#include <cstddef>
#include <cstdint>

#include "gemm/kernels.h"

namespace tersor::gemm {

inline constexpr size_t kPieceColumns = 128, kPieceSteps = kPieceColumns / kStepColumns, kStepWords = 16;
inline constexpr size_t kStepMaskBytes = 8 * kStepWords;

struct Kept {
  int bits;                 // of a code: 4 or 8; 0: numbers
  PackedScale number_kind;  // f32, f16, bf16
  size_t number_bytes;
  int center;              // the code of 0
  const uint64_t* starts;  // [tile][piece], of bytes; one more at the end
  size_t pieces;           // of a tile
  const uint8_t *codes, *end;
};

struct SparseKernels {
  // Codes of `steps` steps, weights that are 0 among them, in the layout of 8-bit codes. Gives the next step's place.
  const uint8_t* (*panel)(const Kept& kept, const uint8_t* from, size_t steps, uint8_t* out) noexcept;
  // A tile whose codes are kept ones, as Kernels has it; null: there are panels only.
  void (*tile)(const IntegerTile& tile, const Kept& kept, size_t tokens) noexcept;
};
extern const SparseKernels kScalarSparseKernels, kAvx512VbmiSparseKernels;
const SparseKernels& sparse_kernels() noexcept;  // the active level's

}  // namespace tersor::gemm
