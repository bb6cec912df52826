#include "solve/column_loop.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/isa.h"
#include "core/pool.h"
#include "solve/fit_rows.h"
#include "solve/move_columns.h"

namespace tersor::solve {
namespace {

using formats::Grid;

constexpr Variant<MoveColumns> kMoves[] = {
    {Isa::scalar, move_columns_scalar},
    TERSOR_X86({Isa::avx2, move_columns_avx2}, {Isa::avx512, move_columns_avx512}, )};

// A table of levels in rising order, and where rounding goes from one to the next.
struct Levels {
  struct Step {
    float from;  // the least value that this level is nearest to
    float level;
    uint8_t code;
  };
  std::vector<Step> steps;
  bool linear = false;  // level = code + lowest

  // What is no number is no level. Halfway goes to the even code, as formats round; of two codes to the upper one,
  // whose sign is that of 0.
  Levels(const float* levels, size_t count) {
    linear = std::fabs(levels[0]) < 0x1p22f && levels[0] == nearest(levels[0]);
    for (size_t c = 0; c < count; ++c) {
      linear = linear && levels[c] == levels[0] + float(c);
      if (std::isfinite(levels[c])) steps.push_back({-INFINITY, levels[c], uint8_t(c)});
    }
    std::ranges::stable_sort(steps, {},
                             [](const Step& step) { return std::pair(step.level, !std::signbit(step.level)); });
    for (size_t i = 1; i < steps.size(); ++i) {
      const float middle = steps[i - 1].level / 2 + steps[i].level / 2;
      const bool up = count == 2 || steps[i].code % 2 == 0;
      steps[i].from = up ? middle : std::nextafter(middle, INFINITY);
    }
  }

  // Of values, to codes and their levels.
  void round(const float* values, uint8_t* codes, float* levels) const noexcept {
    if (linear) {
      const float lowest = steps.front().level, highest = steps.back().level;
      for (size_t r = 0; r < kLoopRows; ++r) {
        levels[r] = nearest(values[r] > lowest ? std::min(values[r], highest) : lowest);  // what is no number: lowest
        codes[r] = uint8_t(int(levels[r] - lowest));
      }
      return;
    }
    uint32_t place[kLoopRows] = {};
    for (size_t i = 1; i < steps.size(); ++i)
      for (size_t r = 0; r < kLoopRows; ++r) place[r] += values[r] >= steps[i].from;
    for (size_t r = 0; r < kLoopRows; ++r) levels[r] = steps[place[r]].level, codes[r] = steps[place[r]].code;
  }
  // Of one value.
  const Step& round(float value) const noexcept {
    size_t i = steps.size() - 1;
    while (i && !(value >= steps[i].from)) --i;  // what is no number: lowest
    return steps[i];
  }
};

// What the loop knows of the matrix and its grid.
struct Loop {
  const Weights& weights;
  const Grid& grid;
  const ColumnOrder& columns;
  std::span<uint8_t> codes;
  MoveColumns* const move = pick(kMoves);
  size_t places = rounded_up(weights.columns);  // of columns, filled up to whole tiles
  bool later;                                   // errors of later columns count too
  std::vector<float> factor;                    // [tile][j][8]
  std::vector<Levels> tables;                   // one, or none: panels have those of their rows

  static size_t rounded_up(size_t count) noexcept { return ceil_div(count, kLoopColumns) * kLoopColumns; }
  size_t column(size_t place) const noexcept { return columns.order.empty() ? place : columns.order[place]; }
  bool one_table() const noexcept { return grid.level_row_stride == 0 && grid.level_group_stride == 0; }
  Levels table_of(size_t row, size_t group) const {
    return {grid.levels + row * grid.level_row_stride + group * grid.level_group_stride, grid.level_count()};
  }
  // Where the factor of a tile of columns begins, whose rows are those of all columns or of those up to its end.
  size_t tile_at(size_t first) const noexcept {
    const size_t tile = first / kLoopColumns;
    return kLoopColumns * (later ? tile * places : kLoopColumns * (tile * (tile + 1) / 2));
  }
  size_t tile_rows(size_t first) const noexcept { return later ? places : first + kLoopColumns; }

  Loop(const Weights& matrix, const Grid& of, const ColumnOrder& in, bool others, std::span<uint8_t> out, int threads)
      : weights(matrix), grid(of), columns(in), codes(out), later(others) {
    require(threads);
    if (one_table()) tables.push_back(table_of(0, 0));
    pack_factor(threads);
  }

  void require(int threads) const {
    require_weights(weights, threads);
    const size_t k = weights.columns;
    TERSOR_REQUIRE(grid.rows == weights.rows && grid.columns == k, Code::bad_call, "the grid is [", grid.rows, ", ",
                   grid.columns, "], the weights are [", weights.rows, ", ", k, "]");
    TERSOR_REQUIRE(codes.size() == weights.rows * k, Code::bad_call, codes.size(), " codes for ", weights.rows * k,
                   " weights");
    TERSOR_REQUIRE(columns.factor.size() == k * k, Code::bad_call, "the factor has ", columns.factor.size(),
                   " elements, ", k * k, " are needed");
    for (size_t i = 0; i < k * k; ++i)
      TERSOR_REQUIRE(std::isfinite(columns.factor[i]), Code::bad_call, "the factor has ", columns.factor[i], " at row ",
                     i / k, ", column ", i % k);
    if (columns.order.empty()) return;
    TERSOR_REQUIRE(columns.order.size() == k, Code::bad_call, "the order has ", columns.order.size(), " columns, ", k,
                   " are needed");
    std::vector<bool> seen(k);
    for (const uint32_t column : columns.order) {
      TERSOR_REQUIRE(column < k && !seen[column], Code::bad_call, "the order is no permutation: column ", column,
                     column < k ? " stands there twice" : " is beyond the matrix");
      seen[column] = true;
    }
  }

  void pack_factor(int threads) {
    const size_t k = weights.columns;
    factor.resize(tile_at(places));
    parallel_for(places / kLoopColumns, 1, threads, [&](size_t begin, size_t end) {
      for (size_t first = begin * kLoopColumns; first < end * kLoopColumns; first += kLoopColumns) {
        float* const to = factor.data() + tile_at(first);
        for (size_t j = 0; j < std::min(tile_rows(first), k); ++j)
          std::copy_n(columns.factor.data() + j * k + first, std::min(kLoopColumns, k - first), to + j * kLoopColumns);
        for (size_t c = 0; c < kLoopColumns; ++c) to[(first + c) * kLoopColumns + c] = 0;  // no column moves itself
      }
    });
  }
};

// Up to 32 rows. Arrays are [place][32], zeros where there are no columns or rows.
struct Panel {
  const Loop& loop;
  size_t row, rows;
  ScratchFrame scratch;
  std::span<float> weights = take(loop.places), errors = take(loop.places);
  std::span<float> scales = take(loop.grid.groups()), zeros = take(loop.grid.groups());
  std::span<float> minimums = take(loop.grid.groups());
  std::vector<Levels> own_tables{};  // [row][group]

  std::span<float> take(size_t count) {
    const auto found = scratch.take<float>(count * kLoopRows);
    std::ranges::fill(found, 0.0f);
    return found;
  }

  Panel(const Loop& of, size_t first) : loop(of), row(first), rows(std::min(kLoopRows, of.weights.rows - first)) {
    const Grid& grid = loop.grid;
    ScratchFrame own;
    const auto values = own.take<float>(grid.columns);
    for (size_t r = 0; r < rows; ++r) {
      loop.weights.row(row + r, values.data());
      for (size_t place = 0; place < grid.columns; ++place) weights[place * kLoopRows + r] = values[loop.column(place)];
      for (size_t g = 0; g < grid.groups(); ++g) {
        scales[g * kLoopRows + r] = grid.scales.at(row + r, g);
        zeros[g * kLoopRows + r] = grid.zeros.at(row + r, g);
        minimums[g * kLoopRows + r] = grid.minimums.at(row + r, g);
        if (!loop.one_table()) own_tables.push_back(loop.table_of(row + r, g));
      }
    }
  }

  const Levels& table(size_t r, size_t group) const noexcept {
    return loop.one_table() ? loop.tables[0] : own_tables[r * loop.grid.groups() + group];
  }

  // Rounds what a column was moved to. Returns how many codes were others before.
  size_t round(size_t place, const float* moved) {
    const size_t column = loop.column(place), group = column / loop.grid.group, at = group * kLoopRows;
    float values[kLoopRows], levels[kLoopRows];
    uint8_t chosen[kLoopRows];
    for (size_t r = 0; r < kLoopRows; ++r) {
      const float scale = scales[at + r], zero = zeros[at + r];
      const float value = (moved[r] - minimums[at + r]) / scale;
      values[r] = scale == 0 ? zero : value + zero;
    }
    if (loop.one_table()) {
      loop.tables[0].round(values, chosen, levels);
    } else {
      for (size_t r = 0; r < kLoopRows; ++r) {
        const auto& step = table(std::min(r, rows - 1), group).round(values[r]);
        chosen[r] = step.code, levels[r] = step.level;
      }
    }
    size_t changed = 0;
    for (size_t r = 0; r < rows; ++r) {
      uint8_t& code = loop.codes[(row + r) * loop.weights.columns + column];
      changed += code != chosen[r], code = chosen[r];
      errors[place * kLoopRows + r] = error_of(place, r, at, levels[r]);
    }
    return changed;
  }
  float error_of(size_t place, size_t r, size_t at, float level) const noexcept {
    const float quantized = scales[at + r] * (level - zeros[at + r]) + minimums[at + r];
    return weights[place * kLoopRows + r] - quantized;
  }

  // What the codes that stand there are off by.
  void start_from_codes() {
    const size_t columns = loop.weights.columns;
    for (size_t place = 0; place < columns; ++place) {
      const size_t column = loop.column(place), group = column / loop.grid.group;
      for (size_t r = 0; r < rows; ++r) {
        const auto& steps = table(r, group).steps;
        const uint8_t code = loop.codes[(row + r) * columns + column];
        const auto found = std::ranges::find(steps, code, &Levels::Step::code);
        TERSOR_REQUIRE(found != steps.end(), Code::bad_call, "code ", int(code), " is none of a grid of ",
                       loop.grid.level_count(), " levels");
        errors[place * kLoopRows + r] = error_of(place, r, group * kLoopRows, found->level);
      }
    }
  }

  size_t pass() {
    size_t changed = 0;
    for (size_t first = 0; first < loop.weights.columns; first += kLoopColumns) {
      alignas(64) float moved[kLoopColumns * kLoopRows];
      std::copy_n(&weights[first * kLoopRows], kLoopColumns * kLoopRows, moved);
      const float* const factor = loop.factor.data() + loop.tile_at(first);
      loop.move(errors.data(), factor, loop.later ? loop.places : first, moved);
      for (size_t c = 0; c < std::min(kLoopColumns, loop.weights.columns - first); ++c) {
        float* const error = &errors[(first + c) * kLoopRows];
        float more[kLoopRows];
        std::copy_n(error, kLoopRows, more);
        changed += round(first + c, moved + c * kLoopRows);
        for (size_t r = 0; r < kLoopRows; ++r) more[r] = error[r] - more[r];
        loop.move(more, factor + (first + c) * kLoopColumns, 1, moved);
      }
    }
    return changed;
  }
};

}  // namespace

void choose_codes(const Weights& weights, const Grid& grid, const ColumnOrder& columns, std::span<uint8_t> codes,
                  int threads) {
  const Loop loop(weights, grid, columns, false, codes, threads);
  parallel_for(size_t(ceil_div(weights.rows, kLoopRows)), 1, threads, [&](size_t begin, size_t end) {
    for (size_t panel = begin; panel < end; ++panel) Panel(loop, panel * kLoopRows).pass();
  });
}

size_t improve_codes(const Weights& weights, const Grid& grid, const ColumnOrder& columns, int passes,
                     std::span<uint8_t> codes, int threads) {
  TERSOR_REQUIRE(passes >= 1, Code::bad_call, "passes are 1 or more, not ", passes);
  const Loop loop(weights, grid, columns, true, codes, threads);
  std::atomic<size_t> changed{0};
  parallel_for(size_t(ceil_div(weights.rows, kLoopRows)), 1, threads, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      Panel panel(loop, index * kLoopRows);
      panel.start_from_codes();
      size_t last = 1;
      for (int pass = 0; pass < passes && last; ++pass) last = panel.pass();
      changed += last;
    }
  });
  return changed;
}

}  // namespace tersor::solve
