// Weights most of which are 0: which of them are kept (the support), and the kept ones' values, in order of row and
// column. Page: docs/formats/sparse.md.
//
//   w[n, k] = value of the kept weight, or 0;   value = scale(n, k / group) * (code - 2^(bits - 1)) where it is a code
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bits.h"
#include "formats/grid.h"
#include "formats/parts.h"

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

  NumberKind value_kind = NumberKind::f16;  // f32, f16 or bf16; none: codes
  const uint8_t* values = nullptr;          // [kept], or the codes of all rows as one string of bits, low bits first
  int bits = 0;                             // of a code: 2, 3, 4, 5, 6 or 8
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
  // Of a code, before its group's scale.
  float level(uint8_t code) const noexcept { return float(code) - float(1 << (bits - 1)); }
  // The same values dequantized; `columns_kept` are theirs, as columns_of gives them.
  void values_of(size_t row, const uint32_t* columns_kept, float* out) const noexcept;
  // Columns [first, first + count) of a row, zeros and all.
  void dequantize(size_t row, size_t first, size_t count, float* out) const noexcept;
};

// The numbers of the format.
struct SparseFormat {
  Support support = Support::bitmap;
  size_t keep = 0, span = 1;            // nm: 1..span of 2..256; block: 2..256; bitmap: 0, 1
  NumberKind values = NumberKind::f16;  // f32, f16, bf16, or none: codes
  int bits = 0;                         // of codes, else 0
  size_t group = kChannel;              // of the scales of codes
  NumberKind scale = NumberKind::f16;   // f32, f16, bf16

  bool coded() const noexcept { return values == NumberKind::none; }
  size_t kept_of(size_t columns) const noexcept;  // nm: a row's
};
void check(const SparseFormat& format);  // bad_call for numbers beyond those above

// support, row_starts (but for nm), values or codes and scales; `kept` is how many weights are.
std::vector<PartNeed> parts_of(const SparseFormat& format, size_t rows, size_t columns, size_t kept);

// Reads the parts, which stay alive with the view. Raises bad_call (format, shape) and bad_data (parts; row_starts that
// do not ascend or do not agree with the support and the values; positions out of order or range; unused bits that are
// not 0; values and scales that are not finite).
Sparse sparse_of(const SparseFormat& format, size_t rows, size_t columns, std::span<const Part> parts, int threads);

}  // namespace tersor::formats
