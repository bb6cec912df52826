// The kernels of the driver (linear.cpp), one set an ISA level. Plain data only: files of several levels include this.
//
// A packed matrix is cut into tiles of 32 rows, which are two blocks of 16, and steps of 32 columns: [tile][step][unit]
// [block]. A tile is one stream that is read from front to back, because memory gives several at once more slowly. A
// step of a block has 64 bytes for every bit of a code, in planes of 4, 2 and 1 bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2;
// 8 is one plane): a unit of 64 bytes holds byte 4 row + j, so that a 32-bit lane is an output row, and in it columns
// 4 i + j by bits, i rising:
//   8 bits: 8 units of 4 columns    4 bits: 4 units of 8    2 bits: 2 units of 16    1 bit: 1 unit of 32
// Vector v of a step is its columns 4v..4v+3 as bytes: what VPDPBUSD takes beside four activations in every lane.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/isa.h"

namespace tersor::gemm {

inline constexpr size_t kBlockRows = 16, kStepColumns = 32, kTileRows = 2 * kBlockRows;
// Columns of a panel of decoded weights. It is a multiple of the most columns that are summed before they are scaled,
// so that what a tile gives does not depend on how it was cut.
inline constexpr size_t kPanelColumns = 512, kMostGroupColumns = 512;
inline constexpr size_t kMostTokens = 4;  // rows of x in a tile

enum class PackedScale : uint8_t { f32, f16, bf16, e8m0 };

// Levels of the codes. In bfloat16 they are rounded; those of 5 bits and fewer stand there again and again.
struct Levels {
  alignas(64) float exact[256];
  alignas(64) uint16_t rounded[64];         // where codes have 6 bits or fewer
  alignas(64) uint8_t low[256], high[256];  // where they have 8: the bytes of the rounded ones
  uint8_t linear;                           // a level is its code less a number, `from`
  uint8_t odd;                              // the upper half of the rounded ones are the lower half's negatives
  float from;
};

// One number a group and row: [group][32] of a tile.
struct Numbers {
  const uint8_t* at;    // the first group's; null: there are none
  size_t group_stride;  // bytes to the next group's; 0: one for the whole row
};

// Groups of columns of a tile: `group_halves` times 16 of them are summed before they are scaled, and as many groups
// have one scale.
struct TileGroups {
  size_t steps, group_halves, groups_a_scale;
  PackedScale scale_kind;
  Numbers scales, zeros, minimums;  // zeros are bytes, minimums of the scales' kind

  // Memory's prefetchers follow what is loaded in order, and lose a stream that skips: a tile begins by loading its
  // numbers, which lie before a grid's codes; to prefetch them would not do. kBytesAhead: how far before its codes a
  // kernel prefetches; 0: it does not. Inlined everywhere, because files of several levels include this.
  template <int kBytesAhead>
  [[gnu::always_inline]] inline void load_numbers() const noexcept {
    const size_t halves = group_halves * groups_a_scale, groups = (2 * steps + halves - 1) / halves;
    const Numbers all[] = {scales, zeros, minimums};
#pragma GCC unroll 3
    for (const Numbers& numbers : all)
      if (numbers.at != nullptr)
        for (size_t at = 0; at < groups * numbers.group_stride; at += 64) {
          if constexpr (kBytesAhead > 0) __builtin_prefetch(numbers.at + at + kBytesAhead, 0, 2);
          static_cast<void>(*static_cast<const volatile uint8_t*>(numbers.at + at));
        }
  }
};

// y[token][0..31] (+)= sum over groups of scale * (sum of x * (integer - center - zero)) + minimum * sum of x.
struct IntegerTile : TileGroups {
  int bits;
  const uint8_t* lookup;  // 2^bits integers of the codes, a multiple of 64 bytes; null: a code is its integer
  int center;
  const uint8_t* codes;
  const int8_t* x;
  size_t x_stride;        // bytes from a token to the next
  const int32_t* sums;    // of x over a group: [token][group], one group more than there are
  const float* x_scales;  // [token][group]; null: one a token, which is the driver's business
  size_t sums_stride;     // of both
  float* y;               // [token][32]
  bool first;             // y is written, not added to
  bool panel;             // codes are read again, for other tokens
};

// The same with levels in place of integers, x and sums in floating point.
struct FloatTile : TileGroups {
  int bits;              // of a code; 0: codes is a panel
  const Levels* levels;  // of codes
  const uint8_t* codes;
  const uint8_t* x;   // float, or bfloat16 in pairs (bf16_pairs)
  size_t x_stride;    // bytes
  const float* sums;  // as above
  size_t sums_stride;
  float* y;
  bool first;
};

// A level's functions, all of which give the same bits.
struct Kernels {
  // Bit b: integer_tile takes codes of b bits as they lie, without a lookup and with one. All take 8 bits without.
  uint16_t widths, looked_up_widths;
  // tokens: 1..kMostTokens. What a token's row gives does not depend on how many there are.
  void (*integer_tile)(const IntegerTile& tile, size_t tokens) noexcept;
  // Codes of `steps` steps of one tile as integers, 8 bits each, in the layout of 8-bit codes.
  void (*integer_panel)(int bits, const uint8_t* lookup, const uint8_t* codes, size_t steps, uint8_t* out) noexcept;
  // out[i] = x[i] / scale to the nearest integer, ties to even, -127..127; zeros behind, up to `padded`. Gives the
  // scale, the largest |x| / 127: 0 where all are 0, not a number, with zeros in out, where one is none or infinite.
  float (*quantize)(const float* x, size_t columns, size_t padded, int8_t* out) noexcept;
  // out[g] = sum of x over columns [g * group, (g + 1) * group); columns: a multiple of 16, as is group.
  void (*sum_groups)(const int8_t* x, size_t columns, size_t group, int32_t* out) noexcept;
};

// Levels in float32: of a panel, [column][32]. All levels give the same bits.
struct FloatKernels {
  void (*tile)(const FloatTile& tile, size_t tokens) noexcept;
  // Of what integer_panel gives of codes without a lookup.
  void (*levels)(int bits, const float* table, const uint8_t* bytes, size_t steps, float* out) noexcept;
};

// On units that multiply pairs of bfloat16. x holds of every four columns the first and the third, then the others: so
// are the codes of two columns of a row in the two words of a 32-bit lane.
struct Bf16Kernels {
  void (*tile)(const FloatTile& tile, size_t tokens) noexcept;  // of codes or a panel, [vector][pair][block][row]
  void (*panel)(int bits, const Levels& levels, const uint8_t* codes, size_t steps, uint16_t* out) noexcept;
};

extern const Kernels kScalarKernels, kAvx2Kernels, kAvx2VnniKernels, kAvx2Avx512VnniKernels, kAvx512Kernels,
    kAvx512VnniKernels, kAvx512VbmiKernels;
// What levels share.
float quantize_avx512(const float* x, size_t columns, size_t padded, int8_t* out) noexcept;
void sum_groups_avx2(const int8_t* x, size_t columns, size_t group, int32_t* out) noexcept;

// Slowest first. A level may have several rows, of which all but its first need an instruction of their own.
struct KernelRow {
  const char* name;
  Isa level;
  bool (*runs)() noexcept;  // null: wherever the level does
  const Kernels* kernels;
};
extern const KernelRow kKernelRows[];
extern const size_t kKernelRowCount;
const Kernels& kernels() noexcept;  // the last row's that runs at the active level

extern const FloatKernels kScalarFloatKernels, kAvx2FloatKernels, kAvx512FloatKernels;
extern const Bf16Kernels kAvx512Bf16Kernels;
const FloatKernels& float_kernels() noexcept;  // the active level's
const Bf16Kernels* bf16_kernels() noexcept;    // null where it has no such units

}  // namespace tersor::gemm
