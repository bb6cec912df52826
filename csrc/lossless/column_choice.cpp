#include "lossless/column_choice.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "entropy/table.h"

namespace tersor::lossless {
namespace {

constexpr size_t kRows = 256, kCells = 32;
constexpr size_t kColumns[] = {2, 3, 4};

// Cost of a sample in 2^-16 bit, with one histogram for all and with one for each column.
struct Costs {
  uint64_t together, apart;
};

template <class U>
Costs costs_of(std::span<const U> values, size_t columns) noexcept {
  using S = std::make_signed_t<U>;
  const size_t rows = values.size() / columns, step = rows / kRows;
  std::array<S, kRows * 4> sample;
  size_t count = 0;
  for (size_t row = 0; row < kRows; ++row) {
    const size_t at = (row * step + (row * 0x9E3779B1u >> 16) % step) * columns;
    for (size_t c = 0; c < columns; ++c) sample[count++] = S(values[at + c]);
  }
  // Cells that hold equally many of all: columns differ where they do not hold equally many of each.
  std::array<S, kRows * 4> order = sample;
  std::sort(order.begin(), order.begin() + long(count));
  std::array<S, kCells - 1> edges;
  for (size_t i = 0; i + 1 < kCells; ++i) edges[i] = order[(i + 1) * count / kCells];
  std::array<std::array<uint32_t, kCells>, 4> cells{};
  for (size_t i = 0; i < count; ++i)
    ++cells[i % columns][size_t(std::upper_bound(edges.begin(), edges.end(), sample[i]) - edges.begin())];
  Costs costs{0, 0};
  for (size_t cell = 0; cell < kCells; ++cell) {
    uint32_t all = 0;
    for (size_t c = 0; c < columns; ++c) {
      all += cells[c][cell];
      if (cells[c][cell]) costs.apart += cells[c][cell] * uint64_t(entropy::cost_q16(cells[c][cell], kRows));
    }
    if (all) costs.together += all * uint64_t(entropy::cost_q16(all, uint32_t(count)));
  }
  return {costs.together / count, costs.apart / count};
}

}  // namespace

template <class U>
size_t find_columns(std::span<const U> values) noexcept {
  constexpr uint64_t kLeastSaving = 1 << 15;  // half a bit a value: what is known of a sample's cells by chance is less
  uint64_t best = kLeastSaving;
  size_t found = 0;
  for (const size_t columns : kColumns) {
    if (values.size() / columns < 4 * kRows) continue;
    const Costs costs = costs_of(values, columns);
    if (costs.apart + best < costs.together) best = costs.together - costs.apart, found = columns;
  }
  return found;
}

#define TERSOR_FOR(U) template size_t find_columns<U>(std::span<const U>) noexcept;
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
