// Grids of every width with random codes and numbers, for the checks of the driver.
#pragma once
#include <cstdint>
#include <random>
#include <vector>

#include "formats/code_rows.h"
#include "formats/grid.h"
#include "formats/small_float.h"

namespace tersor::gemm::check {

struct Made {
  formats::Grid grid;
  std::vector<uint8_t> codes, scales, zeros, minimums;
  std::vector<float> levels;
};

struct Wanted {
  size_t rows, columns, group;
  int bits = 4;
  formats::NumberKind scale = formats::NumberKind::f16;
  bool zeros = false, minimums = false, looked_up = false;
  bool odd = false;  // levels only: the upper half are the lower half's negatives
};

inline void make(const Wanted& wanted, Made& made, uint32_t seed) {
  std::mt19937 random(seed);
  formats::Grid& grid = made.grid;
  grid = {};
  grid.rows = wanted.rows, grid.columns = wanted.columns, grid.group = wanted.group, grid.bits = wanted.bits;
  const formats::CodeWidth width{wanted.bits, false};
  grid.row_bytes = width.row_bytes(wanted.columns);
  made.codes.assign(grid.row_bytes * wanted.rows, 0);
  std::vector<uint8_t> row(wanted.columns);
  for (size_t n = 0; n < wanted.rows; ++n) {
    for (auto& code : row) code = uint8_t(random() % width.codes());
    formats::pack_codes(row.data(), width, row.size(), made.codes.data() + n * grid.row_bytes);
  }
  grid.codes = made.codes.data();
  const size_t codes = width.codes();
  made.levels.resize(codes);
  grid.center = wanted.zeros || wanted.minimums ? 0 : int(codes / 2);
  grid.step = wanted.looked_up ? 0.5f : 1;
  grid.integers_exact = true;
  for (size_t c = 0; c < codes; ++c) {
    grid.integers[c] = uint8_t(wanted.looked_up ? (c * 37 + 11) % 251 : c);
    made.levels[c] = grid.step * float(int(grid.integers[c]) - grid.center);
  }
  for (size_t c = 0; wanted.odd && c < codes; ++c)
    made.levels[c] = float(c < codes / 2 ? 1 : -1) * float(c % (codes / 2) * 5 % 128) / 8;
  if (wanted.odd) grid.step = 0;
  grid.levels = made.levels.data();
  const auto numbers = [&](std::vector<uint8_t>& bytes, float least, float most) {
    const size_t count = wanted.rows * grid.groups();
    bytes.clear();
    for (size_t i = 0; i < count; ++i) {
      const float value = least + (most - least) * float(random() % 1000) / 1000;
      const auto put = [&](auto number) {
        const auto* at = reinterpret_cast<const uint8_t*>(&number);
        bytes.insert(bytes.end(), at, at + sizeof number);
      };
      if (wanted.scale == formats::NumberKind::f32) put(value);
      if (wanted.scale == formats::NumberKind::f16) put(formats::f16_of_f32(value));
      if (wanted.scale == formats::NumberKind::bf16) put(formats::bf16_of_f32(value));
      if (wanted.scale == formats::NumberKind::e8m0) put(uint8_t(random() % 20 + 110));
    }
    formats::GroupNumbers found;
    found.kind = wanted.scale, found.data = bytes.data(), found.row_stride = grid.groups();
    return found;
  };
  grid.scales = numbers(made.scales, -0.02f, 0.02f);
  if (wanted.minimums) grid.minimums = numbers(made.minimums, -0.1f, 0.0f);
  if (wanted.zeros) {
    made.zeros.resize(wanted.rows * grid.groups());
    for (auto& zero : made.zeros) zero = uint8_t(random() % codes);
    grid.zeros.kind = formats::NumberKind::u8, grid.zeros.data = made.zeros.data();
    grid.zeros.row_stride = grid.groups();
  }
}

}  // namespace tersor::gemm::check
