// Weights as integers of a few bits with a scale, and perhaps a zero or a minimum, a group of columns. Page:
// docs/formats/int_group.md.
#pragma once
#include "formats/code_rows.h"
#include "formats/parts.h"

namespace tersor::formats {

struct IntGroup {
  enum class Mode {
    symmetric,  // level = code - 2^(bits - 1); one bit: -1 and 1; trits: -1, 0, 1
    zero,       // level = code - zero
    minimum,    // level = code, and the minimum is added
  };
  int bits = 4;          // 1, 2, 3, 4, 5, 6 or 8
  bool ternary = false;  // trits; bits is 2
  size_t group = 128;    // or kChannel, kTensor
  Mode mode = Mode::symmetric;
  NumberKind scale = NumberKind::f16;  // f32, f16, bf16 or super
  int super_bits = 0;                  // 6..8 where scale is super; group is then 16 or 32

  CodeWidth width() const noexcept { return {bits, ternary}; }
  bool super() const noexcept { return scale == NumberKind::super; }
  bool has_zeros() const noexcept { return mode == Mode::zero; }
  bool has_minimums() const noexcept { return mode == Mode::minimum; }
  int lowest() const noexcept;                            // the level of code 0 in symmetric mode, 0 in the others
  int span() const noexcept { return 256 / int(group); }  // groups that share a super-scale
};

void check(const IntGroup& format);  // bad_call for numbers that are none of the above

// codes, scales, zeros, minimums, super_scales, super_minimums, as far as there are such.
std::vector<PartNeed> parts_of(const IntGroup& format, size_t rows, size_t columns);

// Reads the parts, which stay alive with the grid. Raises bad_call (format, shape) and bad_data (parts and numbers).
Grid grid_of(const IntGroup& format, size_t rows, size_t columns, std::span<const Part> parts, int threads);

}  // namespace tersor::formats
