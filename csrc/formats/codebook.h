// Weights as vectors of a codebook: a code stands for 2..8 neighboring columns of a row, and the codewords of one or
// more stages add up. Scalar codebooks are a Grid. Page: docs/formats/codebook.md.
//
//   w[n, v d + i] = scale(n) * sum over stages s of codebook[s][code(s, n, v)][i], in float32, stages in order
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bits.h"
#include "formats/code_rows.h"
#include "formats/grid.h"
#include "formats/parts.h"

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

// The numbers of the format.
struct VectorCodebook {
  int dimension = 8, stages = 1;
  size_t entries = 256;

  int bits() const noexcept { return int(std::bit_width(entries - 1)); }
};
void check(const VectorCodebook& format);  // bad_call for numbers beyond those above

// codes, codebook, scales.
std::vector<PartNeed> parts_of(const VectorCodebook& format, size_t rows, size_t columns);

// Reads the parts, which stay alive with the view. Raises bad_call (format, shape) and bad_data (parts; a code that is
// no entry's, unused bits that are not 0, entries and scales that are not finite).
VectorCodes vector_codes_of(const VectorCodebook& format, size_t rows, size_t columns, std::span<const Part> parts,
                            int threads);

// Codes of 1..12 bits in rows, each of which starts on a byte: [rows][count] in, rows of ceil(count * bits / 8) bytes
// out. pack raises bad_data for a code that is not below `limit`. Sizes fit.
void pack_wide_rows(std::span<const uint16_t> codes, int bits, size_t limit, size_t rows, size_t count,
                    std::span<uint8_t> packed, int threads);
void unpack_wide_rows(std::span<const uint8_t> packed, int bits, size_t rows, size_t count, std::span<uint16_t> out,
                      int threads);

// ---- scalar codebooks: a level a weight, from a table that all share, or a row, or a group of columns
// ------------------
enum class Scope : uint8_t { fixed = 0, tensor = 1, channel = 2, group = 3 };  // fixed: a table known by its name

// NF4's levels (Dettmers et al., NeurIPS 2023, QLoRA), ascending.
extern const std::array<float, 16> kNf4;

struct ScalarCodebook {
  Scope scope = Scope::tensor;
  size_t levels = 16;                  // 4..256; of kNf4 where the scope is fixed
  size_t group = kChannel;             // columns that share a scale, and a table where the scope is group
  NumberKind scale = NumberKind::f16;  // f32, f16, bf16, or none: all are 1
  NumberKind table = NumberKind::f16;  // f32 or f16: how levels are stored

  int bits() const noexcept;  // 2, 3, 4, 5, 6 or 8
  CodeWidth width() const noexcept { return {bits()}; }
  size_t tables(size_t rows, size_t columns) const;  // that are stored
};
void check(const ScalarCodebook& format);

// codes, codebook (but where the scope is fixed), scales (where there are such).
std::vector<PartNeed> parts_of(const ScalarCodebook& format, size_t rows, size_t columns);

// Raises as vector_codes_of does.
Grid grid_of(const ScalarCodebook& format, size_t rows, size_t columns, std::span<const Part> parts, int threads);

}  // namespace tersor::formats
