// Weights most of which are 0: which of them are kept (the support), and the kept ones' values, in order of row and
// column. Page: docs/formats/sparse.md.
//
//   w[n, k] = value of the kept weight, or 0;   value = scale(n, k / group) * (code - 2^(bits - 1)) where it is a code
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/bits.h"
#include "formats/grid.h"

namespace tersor::formats {

enum class Support : uint8_t {
  bitmap = 0,  // a bit a column
  nm = 1,      // `keep` of every `span` columns, by their positions
  block = 2,   // a bit for every `span` columns, which are kept together
};

struct Sparse {
  size_t rows = 0, columns = 0;
  Support kind = Support::bitmap;
  size_t keep = 0, span = 1;  // the last span of a row may be shorter, and then keeps min(keep, its columns)
  // [rows][support_row_bytes], low bits first, each row starts on a byte. nm: ascending positions within the span, each
  // ceil(log2 span) bits.
  const uint8_t* support = nullptr;
  size_t support_row_bytes = 0;
  const uint8_t* row_starts = nullptr;  // u32 [rows + 1]: how many values are kept before the row; null for nm

  NumberKind value_kind = NumberKind::f16;  // f32, f16, bf16; none: codes
  const uint8_t* values = nullptr;          // [kept], or the codes of all rows as one string of bits, low bits first
  int bits = 0;                             // of a code: 1 (0 is -1, 1 is +1), 2, 3, 4, 5, 6, 8
  size_t group = 1;                         // columns (kept or not) that share a scale
  GroupNumbers scales;                      // of codes

  size_t groups() const noexcept { return columns ? (columns - 1) / group + 1 : 0; }
  size_t spans() const noexcept { return ceil_div(columns, span); }
  size_t kept_a_row() const noexcept;  // nm only, where all rows keep as many
  size_t start(size_t row) const noexcept {
    return row_starts ? load_le<uint32_t>(row_starts + 4 * row) : row * kept_a_row();
  }
  size_t kept(size_t row) const noexcept { return start(row + 1) - start(row); }

  // Columns of a row's kept values, ascending: kept(row) of them.
  void columns_of(size_t row, uint32_t* out) const noexcept;
  // Codes of kept values [first, first + count), counted over all rows: from start(row) on for one. Where there are
  // codes.
  void unpack(size_t first, size_t count, uint8_t* out) const noexcept;
  // The level of a code, times whose group's scale it counts.
  float level(uint8_t code) const noexcept {
    return bits == 1 ? float(2 * code - 1) : float(code) - float(1 << (bits - 1));
  }
  // The same values dequantized; `columns_kept` are theirs, as columns_of gives them.
  void values_of(size_t row, const uint32_t* columns_kept, float* out) const noexcept;
  // Columns [first, first + count) of a row, zeros and all.
  void dequantize(size_t row, size_t first, size_t count, float* out) const noexcept;
};

// Raises bad_data for numbers or sizes of parts that the page does not allow, row_starts that do not ascend or do not
// agree with the support, positions out of order or range, and values and scales that are not finite. What is read
// afterwards lies within the parts.
void check_sparse(const Sparse& view, size_t support_bytes, size_t row_starts_bytes, size_t value_bytes,
                  size_t scale_bytes, int threads);

}  // namespace tersor::formats
