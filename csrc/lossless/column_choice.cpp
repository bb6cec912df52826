#include "lossless/column_choice.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "entropy/table.h"

namespace tersor::lossless {
namespace {

constexpr size_t kRows = 256, kCells = 32;
constexpr size_t kColumns[] = {2, 3, 4};

template <class U>
using Edges = std::array<std::make_signed_t<U>, kCells - 1>;

// Cells that hold about equally many of all values: columns differ where they do not hold equally many of each.
template <class U>
Edges<U> edges_of(std::span<const U> values) noexcept {
  using S = std::make_signed_t<U>;
  std::array<S, kRows> sample;
  const size_t step = values.size() / kRows;
  for (size_t i = 0; i < kRows; ++i) sample[i] = S(values[i * step + (i * 0x9E3779B1u >> 16) % step]);
  std::sort(sample.begin(), sample.end());
  Edges<U> edges;
  for (size_t i = 0; i + 1 < kCells; ++i) edges[i] = sample[(i + 1) * kRows / kCells];
  return edges;
}

// What a value's cell costs less, in 2^-16 bit, with a histogram for each column than with one for all.
template <class U>
uint64_t saving(std::span<const U> values, const Edges<U>& edges, size_t columns) noexcept {
  using S = std::make_signed_t<U>;
  const size_t step = values.size() / columns / kRows;
  std::array<std::array<uint32_t, kCells>, 4> cells{};
  for (size_t row = 0; row < kRows; ++row) {
    const size_t at = (row * step + (row * 0x9E3779B1u >> 16) % step) * columns;
    for (size_t c = 0; c < columns; ++c) {
      size_t cell = 0;
      for (size_t half = kCells / 2; half > 0; half /= 2)
        if (edges[cell + half - 1] <= S(values[at + c])) cell += half;
      ++cells[c][cell];
    }
  }
  uint64_t together = 0, apart = 0;
  for (size_t cell = 0; cell < kCells; ++cell) {
    uint32_t all = 0;
    for (size_t c = 0; c < columns; ++c) {
      all += cells[c][cell];
      if (cells[c][cell]) apart += cells[c][cell] * uint64_t(entropy::cost_q16(cells[c][cell], kRows));
    }
    if (all) together += all * uint64_t(entropy::cost_q16(all, uint32_t(columns * kRows)));
  }
  return together > apart ? (together - apart) / (columns * kRows) : 0;
}

}  // namespace

template <class U>
ColumnChoice find_columns(std::span<const U> values) noexcept {
  constexpr uint64_t kLeastSaving = 1 << 15;  // half a bit a value: what is known of a sample's cells by chance is less
  ColumnChoice best{0, kLeastSaving};
  if (values.size() < 16 * kRows) return best;
  const Edges<U> edges = edges_of(values);
  for (const size_t columns : kColumns)
    if (const uint64_t saved = saving(values, edges, columns); saved > best.saving) best = {columns, saved};
  return best;
}

#define TERSOR_FOR(U) template ColumnChoice find_columns<U>(std::span<const U>) noexcept;
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
