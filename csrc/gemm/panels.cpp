// Columns of a tile of any family but grids, as the driver's kernels read them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "core/arena.h"
#include "gemm/packed.h"

namespace tersor::gemm {
namespace {

// Where a column's step begins: from its piece's place on by counting what words keep.
const uint8_t* step_at(const Kept& kept, size_t tile, size_t column) noexcept {
  const uint64_t start = kept.starts[tile * kept.pieces + column / kPieceColumns];
  const uint8_t* at = kept.codes + std::min<uint64_t>(start, uint64_t(kept.end - kept.codes));
  for (size_t step = column % kPieceColumns / kStepColumns; step != 0; --step) {
    at = std::min(at, kept.end);
    const uint8_t* const masks = at;
    at += kStepMaskBytes;
    for (size_t i = 0; i < kStepWords; ++i) {
      uint64_t word;
      std::memcpy(&word, masks + 8 * i, sizeof word);
      const size_t count = size_t(std::popcount(word));
      at += kept.bits == 8 ? count : kept.bits == 4 ? (count + 1) / 2 : count * kept.number_bytes;
    }
  }
  return at;
}

void number_panel(const Kept& kept, const uint8_t* from, size_t steps, float* out) noexcept {
  std::fill_n(out, steps * kStepColumns * kTileRows, 0.0f);
  for (size_t step = 0; step < steps; ++step, out += kStepColumns * kTileRows) {
    from = std::min(from, kept.end);
    const uint8_t* numbers = from + kStepMaskBytes;
    for (size_t i = 0; i < kStepWords; ++i) {
      uint64_t word;
      std::memcpy(&word, from + 8 * i, sizeof word);
      float* const to = out + i / 2 * 4 * kTileRows + i % 2 * kBlockRows;
      for (; word; word &= word - 1, numbers += kept.number_bytes) {
        const size_t byte = size_t(std::countr_zero(word));
        to[byte % 4 * kTileRows + byte / 4] = number_at(kept.number_kind, numbers, 0);
      }
    }
    from = numbers;
  }
}

// Codewords' sums over stages, in the order of the stages.
void float_panel(const Vectors& from, size_t tile, size_t column, size_t columns, float* out) noexcept {
  std::fill_n(out, columns * kTileRows, 0.0f);
  const size_t d = size_t(from.dimension), mask = from.entries - 1, size = size_t(from.code_bytes);
  for (size_t v = column / d; v < from.count && v * d < column + columns; ++v) {
    const uint8_t* const record = from.at(tile / 2, v) + tile % 2 * kTileRows * size;
    const size_t begin = std::max(column, v * d), end = std::min(column + columns, v * d + d);
    for (size_t row = 0; row < kTileRows; ++row)
      for (size_t s = 0; s < size_t(from.stages); ++s) {
        const uint8_t* const at = record + (s * kPairRows + code_place(row)) * size;
        const size_t code = size == 1 ? *at : size_t(at[0] | at[1] << 8);
        const float* const word = from.floats + (s * from.entries + (code & mask)) * 8;
        for (size_t k = begin; k < end; ++k) out[(k - column) * kTileRows + row] += word[k - v * d];
      }
  }
}

}  // namespace

void Packed::integer_panel(size_t tile, size_t column, size_t columns, uint8_t* out) const noexcept {
  if (head.family == Family::vectors)
    vector_kernels().panel(vectors, tile, column, columns, out);
  else
    sparse_kernels().panel(kept, step_at(kept, tile, column), columns / kStepColumns, out);
}

void Packed::level_panel(size_t tile, size_t column, size_t columns, float* out) const {
  const size_t steps = columns / kStepColumns;
  if (head.family == Family::vectors) return float_panel(vectors, tile, column, columns, out);
  if (head.family == Family::sparse && head.bits == 0)
    return number_panel(kept, step_at(kept, tile, column), steps, out);
  ScratchFrame scratch;
  const auto bytes = scratch.bytes(columns * kTileRows);
  if (head.family == Family::sparse) {
    integer_panel(tile, column, columns, bytes.data());
    return float_kernels().levels(8, tables->levels.exact, bytes.data(), steps, out);
  }
  const int bits = head.bits;
  const size_t entries = size_t(1) << bits;
  const uint8_t* const from = tile_codes(tile) + column * kTileRows / 8 * size_t(bits);
  kernels().integer_panel(bits, nullptr, from, steps, bytes.data());
  const size_t row_table_count = head.tables_a_group ? groups : 1;
  for (size_t k = 0; k < columns; ++k) {
    const size_t table = head.tables_a_group ? (column + k) / size_t(head.group) : 0;
    const float* const levels = row_tables + (tile * row_table_count + table) * kTileRows * entries;
    const uint8_t* const four = bytes.data() + k / 4 * 4 * kTileRows + k % 4;
    for (size_t row = 0; row < kTileRows; ++row) out[k * kTileRows + row] = levels[row * entries + four[4 * row]];
  }
}

}  // namespace tersor::gemm
