// The layout that kernels.h tells of, written one code at a time, beside what packs whole words.
#include "gemm/pack.h"

#include <bit>
#include <cstring>

#include "check.h"
#include "gemm/grids.h"

using namespace tersor;
using namespace tersor::gemm;
using formats::NumberKind;
using gemm::check::Made;

namespace {

// Codes of 32 rows, filled up with 0.
std::vector<uint8_t> one_by_one(const formats::Grid& grid, size_t first_row) {
  const size_t steps = (grid.columns + 31) / 32, step_bytes = 128 * size_t(grid.bits);
  std::vector<uint8_t> out(steps * step_bytes), codes(grid.columns);
  for (size_t row = 0; row < 32 && first_row + row < grid.rows; ++row) {
    grid.unpack(first_row + row, 0, grid.columns, codes.data());
    for (size_t column = 0; column < grid.columns; ++column) {
      uint8_t* plane = out.data() + column / 32 * step_bytes;
      int low = 0;
      for (const int width : {8, 4, 2, 1}) {
        if (!(grid.bits & width)) continue;
        const size_t unit = column % 32 / size_t(32 / width), within = column % size_t(32 / width);
        const int field = codes[column] >> low & ((1 << width) - 1);
        plane[128 * unit + 4 * row + within % 4] |= uint8_t(field << (within / 4 * size_t(width)));
        low += width, plane += 128 * width;
      }
    }
  }
  return out;
}

// Rows of their own memory, so that a sanitizer sees what is read behind them.
void make_codes(size_t rows, size_t columns, int bits, bool trits, Made& made, uint32_t seed) {
  gemm::check::make({rows, columns, columns, bits}, made, seed);
  if (!trits) return;
  std::mt19937 random(seed);
  const formats::CodeWidth width{2, true};
  made.grid.trits = true, made.grid.row_bytes = width.row_bytes(columns);
  made.codes.assign(rows * made.grid.row_bytes, 0);
  std::vector<uint8_t> row(columns);
  for (size_t n = 0; n < rows; ++n) {
    for (auto& code : row) code = uint8_t(random() % 3);
    formats::pack_codes(row.data(), width, columns, made.codes.data() + n * made.grid.row_bytes);
  }
  made.grid.codes = made.codes.data();
}

}  // namespace

TEST_CASE("gemm pack: codes of every width lie where the layout has them, for any rows and columns") {
  struct Width {
    int bits;
    bool trits;
  };
  for (const Width width :
       {Width{1, false}, {2, false}, {2, true}, {3, false}, {4, false}, {5, false}, {6, false}, {8, false}})
    for (const size_t rows : {1, 2, 32, 65})
      for (const size_t columns : {1, 31, 32, 33, 159, 160, 639, 640, 641, 672, 1300}) {
        Made made;
        make_codes(rows, columns, width.bits, width.trits, made, uint32_t(rows * columns));
        for (size_t first = 0; first < rows; first += 32) {
          const auto want = one_by_one(made.grid, first);
          std::vector<uint8_t> got(want.size(), 0xaa);
          pack_codes(made.grid, first, got.data());
          CHECK(got == want);
        }
      }
}

TEST_CASE("gemm pack: numbers of groups are those of the grid, rows side by side") {
  const size_t rows = 40, present = 13, groups = 14;
  std::mt19937 random(1);
  std::vector<uint8_t> data(rows * present * 4), supers(rows * 4 * 2);
  for (auto& byte : data) byte = uint8_t(random() & 0x3f);  // finite in every kind
  for (auto& byte : supers) byte = uint8_t(random() & 0x3f);
  const auto float_at = [](PackedScale kind, const uint8_t* at) {
    float whole;
    uint16_t half;
    std::memcpy(&whole, at, kind == PackedScale::f32 ? 4 : 0), std::memcpy(&half, at, 2);
    switch (kind) {
      case PackedScale::f16: return formats::f32_of_f16(half);
      case PackedScale::bf16: return formats::f32_of_bf16(half);
      case PackedScale::e8m0: return formats::f32_of_e8m0(*at);
      default: std::memcpy(&whole, at, 4); return whole;
    }
  };
  struct Kind {
    NumberKind stored;
    PackedScale packed;
    size_t bytes;
  };
  for (const Kind kind : {Kind{NumberKind::f32, PackedScale::f32, 4},
                          {NumberKind::f16, PackedScale::f16, 2},
                          {NumberKind::bf16, PackedScale::bf16, 2},
                          {NumberKind::e8m0, PackedScale::e8m0, 1},
                          {NumberKind::e4m3, PackedScale::bf16, 2},
                          {NumberKind::super, PackedScale::f32, 4}})
    for (const size_t row_stride : {present, size_t(0)}) {
      formats::GroupNumbers numbers;
      numbers.kind = kind.stored, numbers.data = data.data(), numbers.row_stride = row_stride;
      numbers.supers = supers.data(), numbers.supers_row_stride = 4, numbers.supers_span = 4;
      if (kind.stored == NumberKind::super) numbers.factor = 0.75f;
      for (const size_t first : {size_t(0), size_t(32)}) {
        const size_t here = std::min<size_t>(32, rows - first);
        std::vector<uint8_t> out(groups * 32 * kind.bytes, 0xaa);
        pack_numbers(numbers, kind.packed, first, here, groups, present, out.data());
        for (size_t g = 0; g < groups; ++g)
          for (size_t r = 0; r < 32; ++r) {
            const uint8_t* const at = out.data() + (g * 32 + r) * kind.bytes;
            if (g < present && r < here)
              CHECK(float_at(kind.packed, at) == numbers.at(first + r, g));
            else
              CHECK(std::count(at, at + kind.bytes, uint8_t(0)) == std::ptrdiff_t(kind.bytes));
          }
      }
    }
  formats::GroupNumbers zeros;
  zeros.kind = NumberKind::u8, zeros.data = data.data(), zeros.row_stride = present;
  std::vector<uint8_t> out(groups * 32, 0xaa);
  pack_zeros(zeros, 32, 8, groups, present, out.data());
  for (size_t g = 0; g < groups; ++g)
    for (size_t r = 0; r < 32; ++r) CHECK(out[g * 32 + r] == (g < present && r < 8 ? data[(32 + r) * present + g] : 0));
}
