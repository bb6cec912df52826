// A side term of any format: single weights that are added after dequantizing, in CSR. Page: docs/formats/outliers.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bits.h"
#include "formats/grid.h"
#include "formats/parts.h"

namespace tersor::formats {

inline constexpr size_t kNarrowColumns = size_t(1) << 16;  // up to so many: column numbers have 16 bits, else 32

struct Outliers {
  size_t rows = 0, columns = 0;
  const uint8_t* row_starts = nullptr;      // u32 [rows + 1]: how many outliers are before the row
  const uint8_t* places = nullptr;          // u16 or u32 [count]: columns, ascending within a row
  NumberKind value_kind = NumberKind::f16;  // or bf16, f32
  const uint8_t* values = nullptr;          // [count]

  size_t start(size_t row) const noexcept { return load_le<uint32_t>(row_starts + 4 * row); }
  size_t column(size_t i) const noexcept {
    return columns <= kNarrowColumns ? load_le<uint16_t>(places + 2 * i) : load_le<uint32_t>(places + 4 * i);
  }
  float value(size_t i) const noexcept;
  // To columns [first, first + count) of a row.
  void add(size_t row, size_t first, size_t count, float* out) const noexcept;
};

// row_starts, columns, values, for so many outliers.
std::vector<PartNeed> outliers_parts(NumberKind values, size_t rows, size_t columns, size_t count);

// Reads the parts, which stay alive with the view. Raises bad_call (kind of values, shape) and bad_data (parts;
// row_starts that do not ascend; columns out of order or range; values that are not finite).
Outliers outliers_of(NumberKind values, size_t rows, size_t columns, std::span<const Part> parts, int threads);

}  // namespace tersor::formats
