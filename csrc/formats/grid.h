// What readers see of a format that gives every weight a code of a few bits: codes, a level a code, a scale and perhaps
// an offset a group of columns. int_group, float_group and scalar codebooks are grids; a reader that takes grids takes
// them all.
//
//   w[n, k] = scale(n, g) * (level[code[n, k]] - zero(n, g)) + minimum(n, g),   g = k / group, in float32
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace tersor::formats {

// How the numbers of groups are stored. Numbers are on disk (descriptors): append only.
enum class NumberKind : uint8_t {
  none = 0,
  f32 = 1,
  f16 = 2,
  bf16 = 3,
  e8m0 = 4,   // 2^(byte - 127); 255 is not a number and is refused
  e4m3 = 5,   // fp8, times `factor`
  super = 6,  // an integer of 6..8 bits in a byte, times an f16 that `supers_span` groups share
  u8 = 7,     // an integer; zeros only
};

// A number a group of columns of each row, row-major.
struct GroupNumbers {
  NumberKind kind = NumberKind::none;
  const uint8_t* data = nullptr;
  size_t row_stride = 0;  // numbers from a row to the next; 0: all rows share one row of them
  float factor = 1;       // each is times this
  const uint8_t* supers = nullptr;
  size_t supers_row_stride = 0, supers_span = 1;

  float at(size_t row, size_t group) const noexcept;  // `none` gives 0
};

struct Grid {
  size_t rows = 0, columns = 0;
  int bits = 8;                    // of a code: 1, 2, 3, 4, 5, 6 or 8
  bool trits = false;              // five codes 0..2 a byte, the first counts once, the next 3, 9, 27, 81; bits is 2
  size_t group = 1;                // columns that share a scale; the last group of a row may be shorter
  const uint8_t* codes = nullptr;  // row-major, low bits first
  size_t row_bytes = 0;            // each row starts on a byte: ceil(columns * bits / 8), or ceil(columns / 5)

  // 2^bits levels (three for trits); strides 0, 0: one table for all. Where it is one, the same as integers, which int8
  // arithmetic reads: level = step * (integer - center), the nearest where `integers_exact` is false.
  const float* levels = nullptr;
  size_t levels_used = 0;  // the first so many, where codes of the others do not occur; 0: all
  size_t level_row_stride = 0, level_group_stride = 0;
  std::array<uint8_t, 256> integers{};
  int center = 0;
  float step = 1;
  bool integers_exact = false;

  GroupNumbers scales, zeros, minimums;            // zeros are of kind u8 or none
  std::shared_ptr<const std::vector<float>> held;  // levels and numbers of groups that lie in no part

  size_t level_count() const noexcept { return levels_used ? levels_used : trits ? 3 : size_t(1) << bits; }
  size_t groups() const noexcept { return columns ? (columns - 1) / group + 1 : 0; }
  // Codes of a row's columns [first, first + count).
  void unpack(size_t row, size_t first, size_t count, uint8_t* out) const noexcept;
  // The same dequantized.
  void dequantize(size_t row, size_t first, size_t count, float* out) const noexcept;
};

}  // namespace tersor::formats
