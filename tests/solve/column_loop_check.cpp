// Columns one after the other: as plain loops in double precision choose them, the same on every level and number of
// threads, never worse by a pass, and nearest where columns do not move each other.
#include "solve/column_loop.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "solve/move_columns.h"

using namespace tersor;
using namespace tersor::solve;

namespace {

struct Case {
  size_t rows, columns, group;
  std::vector<float> weights, factor, scales, levels;
  std::vector<uint8_t> zeros;
  std::vector<uint32_t> order;
  formats::Grid grid;

  Case(size_t n, size_t k, size_t g, int bits, bool linear, bool with_zeros, uint32_t seed)
      : rows(n), columns(k), group(g) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    weights.resize(rows * columns), factor.resize(columns * columns);
    for (float& w : weights) w = normal(random);
    for (float& f : factor) f = 0.2f * normal(random);
    const size_t count = size_t(1) << bits, groups = (columns - 1) / group + 1;
    for (size_t c = 0; c < count; ++c)
      levels.push_back(linear ? float(int(c) - (with_zeros ? 0 : int(count / 2))) : normal(random) * float(count) / 4);
    for (size_t i = 0; i < rows * groups; ++i) {
      scales.push_back(i % 7 == 3 ? 0 : (0.5f + std::fabs(normal(random))) * 4 / float(count));
      zeros.push_back(uint8_t(random() % count));
    }
    order.resize(columns);
    std::iota(order.begin(), order.end(), 0u);
    std::ranges::shuffle(order, random);
    grid.rows = rows, grid.columns = columns, grid.bits = bits, grid.group = group;
    grid.levels = levels.data();
    grid.scales = {formats::NumberKind::f32, reinterpret_cast<const uint8_t*>(scales.data()), groups, 1, nullptr, 0, 1};
    if (with_zeros) grid.zeros = {formats::NumberKind::u8, zeros.data(), groups, 1, nullptr, 0, 1};
  }
  Weights matrix() const {
    return {DType::F32, rows, columns, {reinterpret_cast<const uint8_t*>(weights.data()), 4 * weights.size()}};
  }
  double value(size_t row, size_t column, uint8_t code) const {
    const size_t g = column / group;
    return double(grid.scales.at(row, g)) * (double(levels[code]) - double(grid.zeros.at(row, g)));
  }
};

// The code whose value is nearest to `wanted`, in double precision. margin: how much nearer than the next it is.
uint8_t nearest_code(const Case& c, size_t row, size_t column, double wanted, double& margin) {
  double least = INFINITY, next = INFINITY;
  uint8_t best = 0;
  for (size_t code = 0; code < c.levels.size(); ++code) {
    const double off = std::fabs(c.value(row, column, uint8_t(code)) - wanted);
    if (off < least)
      next = least, least = off, best = uint8_t(code);
    else
      next = std::min(next, off);
  }
  margin = next - least;
  return best;
}

}  // namespace

TEST_CASE("column loop: as plain loops in double precision choose") {
  for (const auto& [bits, linear, zeros] :
       {std::tuple{4, true, false}, {3, true, true}, {2, false, false}, {8, false, false}}) {
    const Case c(37, 45, 16, bits, linear, zeros, 5);
    std::vector<uint8_t> codes(c.weights.size());
    choose_codes(c.matrix(), c.grid, {c.factor, c.order}, codes, 1);
    size_t unsure = 0;
    for (size_t n = 0; n < c.rows; ++n) {
      std::vector<double> errors(c.columns);
      for (size_t place = 0; place < c.columns; ++place) {
        const size_t k = c.order[place];
        double moved = c.weights[n * c.columns + k], margin = 0;
        for (size_t j = 0; j < place; ++j) moved += errors[j] * double(c.factor[j * c.columns + place]);
        const uint8_t want = nearest_code(c, n, k, moved, margin), got = codes[n * c.columns + k];
        unsure += margin < 1e-4;
        if (margin >= 1e-4) CHECK(got == want);
        errors[place] = c.weights[n * c.columns + k] - c.value(n, k, got);  // what ours goes on with
      }
    }
    CHECK(unsure < c.weights.size() / 5);  // scales of 0 among them
  }
}

TEST_CASE("column loop: the same codes on every level and number of threads") {
  for (const size_t rows : {1, 32, 70})
    for (const size_t columns : {1, 8, 61}) {
      const Case c(rows, columns, 32, 4, true, false, 6);
      std::vector<uint8_t> want(c.weights.size()), got(c.weights.size());
      const Isa before = active_isa();
      for (int level = 0; level <= int(machine_isa()); ++level)
        for (const int threads : {1, 3}) {
          hold_isa(Isa(level));
          auto& codes = level == 0 && threads == 1 ? want : got;
          choose_codes(c.matrix(), c.grid, {c.factor, c.order}, codes, threads);
          improve_codes(c.matrix(), c.grid, {c.factor, c.order}, 2, codes, threads);
          if (&codes == &got) CHECK(got == want);
        }
      hold_isa(before);
    }
}

TEST_CASE("column loop: passes never raise the objective, and end") {
  const size_t rows = 40, columns = 50;
  Case c(rows, columns, 25, 3, true, false, 7);
  for (float& scale : c.scales)
    if (scale == 0) scale = 0.3f;
  std::mt19937 random(8);
  std::normal_distribution<double> normal;
  std::vector<double> x(80 * columns), h(columns * columns);
  for (size_t i = 0; i < 80; ++i)
    for (size_t k = 0; k < columns; ++k) x[i * columns + k] = normal(random) + (k ? 0.7 * x[i * columns + k - 1] : 0);
  for (size_t j = 0; j < columns; ++j)
    for (size_t k = 0; k < columns; ++k)
      for (size_t i = 0; i < 80; ++i) h[j * columns + k] += x[i * columns + j] * x[i * columns + k];
  for (size_t j = 0; j < columns; ++j)
    for (size_t k = 0; k < columns; ++k)
      c.factor[j * columns + k] = float(h[c.order[j] * columns + c.order[k]] / h[c.order[k] * columns + c.order[k]]);
  std::vector<uint8_t> codes(rows * columns);
  const std::vector<float> none(columns * columns);
  choose_codes(c.matrix(), c.grid, {none, c.order}, codes, 1);  // nearest
  const auto objective = [&] {
    double sum = 0;
    for (size_t n = 0; n < rows; ++n) {
      std::vector<double> off(columns);
      for (size_t k = 0; k < columns; ++k) off[k] = c.weights[n * columns + k] - c.value(n, k, codes[n * columns + k]);
      for (size_t j = 0; j < columns; ++j)
        for (size_t k = 0; k < columns; ++k) sum += off[j] * h[j * columns + k] * off[k];
    }
    return sum;
  };
  double before = objective();
  const double first = before;
  size_t changed = 1;
  for (int pass = 0; pass < 100 && changed; ++pass) {
    changed = improve_codes(c.matrix(), c.grid, {c.factor, c.order}, 1, codes, 2);
    const double after = objective();
    CHECK(after <= before * (1 + 1e-6));
    before = after;
  }
  CHECK(changed == 0);
  CHECK(before < 0.8 * first);
}

TEST_CASE("column loop: tables of any levels") {
  const auto chosen = [](std::vector<float> levels, const std::vector<float>& weights, size_t used = 0) {
    Case c(weights.size(), 1, 1, std::bit_width(levels.size() - 1), true, false, 3);
    c.weights = weights, c.levels = std::move(levels);
    c.scales.assign(weights.size(), 1);
    c.grid.levels = c.levels.data(), c.grid.levels_used = used;
    c.grid.scales.data = reinterpret_cast<const uint8_t*>(c.scales.data());
    std::vector<uint8_t> codes(weights.size());
    const std::vector<float> none(1);
    choose_codes(c.matrix(), c.grid, {none, {}}, codes, 1);
    return codes;
  };
  using Codes = std::vector<uint8_t>;
  CHECK(chosen({-1.5f, -0.5f, 0.5f, 1.5f}, {1.4f, 0.9f, 0.1f, -9}) == Codes({3, 2, 2, 0}));  // a step of 1, no integers
  // Two zeros, and codes that are no numbers.
  CHECK(chosen({0, 1, 2, NAN, -0.0f, -1, -2, NAN}, {0, 0.4f, -0.4f, 9, -9}) == Codes({0, 0, 4, 2, 6}));
  CHECK(chosen({-1, 1}, {0, -0.1f, 0.1f}) == Codes({1, 0, 1}));
  CHECK(chosen({3, -3, 7, 0, 0, 0, 0, 0}, {0.1f, 6, -5}, 3) == Codes({0, 2, 1}));  // the others do not occur
}

TEST_CASE("column loop: what does not fit is refused") {
  const Case c(3, 4, 4, 2, true, false, 9);
  std::vector<uint8_t> codes(12);
  using check::error_of;
  const auto choose = [&](const ColumnOrder& columns) {
    return error_of([&] { choose_codes(c.matrix(), c.grid, columns, codes, 1); });
  };
  CHECK(choose({std::span(c.factor).first(9), {}}) == "the factor has 9 elements, 16 are needed");
  std::vector<float> bad = c.factor;
  bad[6] = NAN;
  CHECK(choose({bad, {}}) == "the factor has nan at row 1, column 2");
  const std::vector<uint32_t> twice{0, 1, 1, 2}, beyond{0, 1, 2, 4}, few{0, 1};
  CHECK(choose({c.factor, twice}) == "the order is no permutation: column 1 stands there twice");
  CHECK(choose({c.factor, beyond}) == "the order is no permutation: column 4 is beyond the matrix");
  CHECK(choose({c.factor, few}) == "the order has 2 columns, 4 are needed");
  codes.assign(12, 4);
  CHECK(error_of([&] { improve_codes(c.matrix(), c.grid, {c.factor, {}}, 1, codes, 1); }) ==
        "code 4 is none of a grid of 4 levels");
  CHECK(error_of([&] { improve_codes(c.matrix(), c.grid, {c.factor, {}}, 0, codes, 1); }) ==
        "passes are 1 or more, not 0");
}
