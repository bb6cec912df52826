// The reference: codewords are added as words of eight bytes and stored as they are.
#include <algorithm>
#include <bit>
#include <cstring>

#include "gemm/vectors.h"

namespace tersor::gemm {
namespace {

// Vectors of one row, each kStride bytes from the one before in both codes and words. kDimension 0: any.
template <class Code, int kDimension>
void panel_of(const Vectors& from, size_t tile, size_t column, size_t columns, uint8_t* out) noexcept {
  const size_t d = kDimension ? size_t(kDimension) : size_t(from.dimension), end = column + columns;
  const size_t mask = from.entries - 1, stage_codes = kPairRows;
  for (size_t v = column / d; v * d < end; ++v) {
    if (v >= from.count) break;
    const uint8_t* const record = from.at(tile / 2, v) + tile % 2 * kTileRows * sizeof(Code);
    const size_t first = v * d;
    for (size_t row = 0; row < kTileRows; ++row) {
      const uint8_t* code_at = record + code_place(row) * sizeof(Code);
      uint64_t word = 0;
      for (size_t s = 0; s < size_t(from.stages); ++s, code_at += stage_codes * sizeof(Code)) {
        Code code;
        std::memcpy(&code, code_at, sizeof code);
        word += from.words[s * from.entries + (code & mask)];
      }
      if constexpr (kDimension == 8 || kDimension == 4) {
        uint8_t* const to = out + (first - column) / 4 * 4 * kTileRows + 4 * row;
        const uint32_t low = uint32_t(word), high = uint32_t(word >> 32);
        std::memcpy(to, &low, 4);
        if (kDimension == 8) std::memcpy(to + 4 * kTileRows, &high, 4);
      } else {
        for (size_t i = 0; i < d; ++i, word >>= 8) {
          const size_t k = first + i - column;  // wraps before the panel
          if (k < columns) out[k / 4 * 4 * kTileRows + 4 * row + k % 4] = uint8_t(word);
        }
      }
    }
  }
}

template <class Code>
void panel_of(const Vectors& from, size_t tile, size_t column, size_t columns, uint8_t* out) noexcept {
  switch (from.dimension) {
    case 8: return panel_of<Code, 8>(from, tile, column, columns, out);
    case 4: return panel_of<Code, 4>(from, tile, column, columns, out);
    default: return panel_of<Code, 0>(from, tile, column, columns, out);
  }
}

// Columns behind the last vector meet activations of 0.
void panel(const Vectors& from, size_t tile, size_t column, size_t columns, uint8_t* out) noexcept {
  if (const size_t held = from.count * size_t(from.dimension); held < column + columns)
    std::memset(out, 0, columns * kTileRows);
  from.code_bytes == 1 ? panel_of<uint8_t>(from, tile, column, columns, out)
                       : panel_of<uint16_t>(from, tile, column, columns, out);
}

}  // namespace

const VectorKernels kScalarVectorKernels = {panel, nullptr};

}  // namespace tersor::gemm
