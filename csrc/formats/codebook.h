// Weights as vectors of a codebook: a code stands for 2..8 neighboring columns of a row, and the codewords of one or
// more stages add up. Page: docs/formats/codebook.md, which has scalar codebooks as well: those are a Grid.
//
//   w[n, v d + i] = scale(n) * sum over stages s of codebook[s][code(s, n, v)][i], in float32, stages in order
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "formats/grid.h"

namespace tersor::formats {

inline constexpr int kLeastDimension = 2, kMostDimension = 8, kMostStages = 4, kMostCodeBits = 12;
inline constexpr size_t kMostEntries = size_t(1) << kMostCodeBits;

struct VectorCodes {
  size_t rows = 0, columns = 0;
  int dimension = 8;                  // d: columns that a code stands for; a row's last code may stand for fewer
  int stages = 1;                     // 1..4
  size_t entries = 256;               // of a stage, 2..4096
  int bits = 8;                       // of a code: ceil(log2 entries)
  const uint8_t* codes = nullptr;     // [stages][rows][row_bytes], low bits first, each row starts on a byte
  size_t row_bytes = 0;               // ceil(vectors * bits / 8)
  const uint8_t* codebook = nullptr;  // f16 [stages][entries][dimension], perhaps unaligned
  GroupNumbers scales;                // one a row

  size_t vectors() const noexcept { return ceil_div(columns, size_t(dimension)); }  // of a row
  const uint8_t* row(int stage, size_t n) const noexcept { return codes + (size_t(stage) * rows + n) * row_bytes; }
  // Codes of a row's vectors [first, first + count).
  void unpack(int stage, size_t row, size_t first, size_t count, uint16_t* out) const noexcept;
  // Columns [first, first + count) of a row.
  void dequantize(size_t row, size_t first, size_t count, float* out) const noexcept;
};

// Raises bad_data for numbers or sizes of parts that the page does not allow, a code that is no entry's, unused bits
// that are not 0 and entries and scales that are not finite. What is read of `codes` afterwards lies within it.
void check_vector_codes(const VectorCodes& view, size_t code_bytes, size_t codebook_bytes, size_t scale_bytes,
                        int threads);

// Codes of 1..12 bits in rows, each of which starts on a byte: [rows][count] in, rows of ceil(count * bits / 8) bytes
// out. pack raises bad_data for a code above `most`. Sizes fit.
void pack_wide_rows(std::span<const uint16_t> codes, int bits, uint16_t most, size_t rows, size_t count,
                    std::span<uint8_t> packed, int threads);
void unpack_wide_rows(std::span<const uint8_t> packed, int bits, size_t rows, size_t count, std::span<uint16_t> out,
                      int threads);

}  // namespace tersor::formats
