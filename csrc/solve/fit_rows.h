// What fits of all grids share: statistics of a group of weights, the search for its numbers, and the walk over rows.
// A Rule says which numbers are candidates, what each costs, and how weights become codes under one.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/code_rows.h"
#include "formats/parts.h"
#include "solve/grid_fit.h"

namespace tersor::solve {

// Sums run in eight lanes, lane i over the elements i, i + 8, ..., which are added in order: the same on every machine.
inline constexpr size_t kLanes = 8;

struct Statistics {
  float lowest = INFINITY, highest = -INFINITY;
  double size = 0;  // the sum of absolute values
  size_t count = 0;

  float most() const noexcept { return std::max(std::fabs(lowest), std::fabs(highest)); }
  // The weight of largest magnitude with its sign; the negative one where both are as large.
  float extreme() const noexcept { return -lowest >= highest ? lowest : highest; }
  float mean_size() const noexcept { return float(size / double(count)); }
  void merge(const Statistics& other) noexcept;
};
Statistics statistics_of(std::span<const float> weights) noexcept;

// The numbers of a group.
struct Choice {
  float scale = 0, minimum = 0;
  int zero = 0;            // the code of level 0
  uint8_t scale_byte = 0;  // where the scale is e8m0 or e4m3
};

// A group of weights and what each matters; of no importance: all the same.
struct Group {
  std::span<const float> weights, importance;
};

// The sum of square(i), i below count.
template <class F>
double lane_sum(size_t count, const F& square) noexcept {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += square(i + lane);
  for (size_t lane = 0; i < count; ++i, ++lane) lanes[lane] += square(i);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// f(weight) squared, summed. Captures are copies, so that the loops stay in registers.
template <class F>
double squares(const Group& group, const F& f) noexcept {
  const float *const weights = group.weights.data(), *const importance = group.importance.data();
  if (group.importance.empty())
    return lane_sum(group.weights.size(), [=](size_t i) {
      const float error = f(weights[i]);
      return double(error) * double(error);
    });
  return lane_sum(group.weights.size(), [=](size_t i) {
    const float error = f(weights[i]);
    return double(importance[i]) * (double(error) * double(error));
  });
}

// The nearest integer, ties to even, of a value between -2^22 and 2^22.
inline float nearest(float value) noexcept { return (value + 0x1.8p23f) - 0x1.8p23f; }

float rounded(formats::NumberKind kind, float value) noexcept;  // to f32, f16 or bf16
void put_number(formats::NumberKind kind, std::span<uint8_t> numbers, size_t index, float value) noexcept;
void require_finite(float number, const char* what, size_t row, size_t group);  // what a dtype cannot hold: bad_call

// Raise bad_type and bad_call as grid_fit does. Returns the largest magnitude.
float require_weights(const Weights& weights, int threads);
void require_importance(std::span<const float> importance, size_t columns);

template <class Rule, class Error>
Choice chosen(const Rule& rule, const Statistics& statistics, bool least_squares, const Error& error_of) {
  Choice best = rule.candidate(statistics, 0);
  if (!least_squares || rule.candidates() == 1) return best;
  double least = error_of(best);
  for (int i = 1; i < rule.candidates(); ++i) {
    const Choice one = rule.candidate(statistics, i);
    if (!std::isfinite(one.scale)) continue;
    const double error = error_of(one);
    if (error < least) least = error, best = one;
  }
  return best;
}

inline std::span<const float> part_of(std::span<const float> importance, size_t first, size_t count) noexcept {
  return importance.empty() ? importance : importance.subspan(first, count);
}

// Rows to a thread at once.
inline size_t grain_of(size_t columns) noexcept { return std::max<size_t>(1, (size_t(1) << 14) / columns); }

// One choice for all of the matrix. Rows give their sums apart; they are added in order.
template <class Rule>
Choice chosen_for_all(const Weights& weights, const Rule& rule, const GridFit& options, int threads) {
  const auto each_row = [&](const auto& f) {
    parallel_for(weights.rows, grain_of(weights.columns), threads, [&](size_t begin, size_t end) {
      ScratchFrame scratch;
      const auto values = scratch.take<float>(weights.columns);
      for (size_t n = begin; n < end; ++n) weights.row(n, values.data()), f(n, std::span<const float>(values));
    });
  };
  std::vector<Statistics> statistics(weights.rows);
  each_row([&](size_t n, std::span<const float> row) { statistics[n] = statistics_of(row); });
  Statistics all;
  for (const Statistics& one : statistics) all.merge(one);
  std::vector<double> errors(weights.rows);
  return chosen(rule, all, options.least_squares, [&](const Choice& choice) {
    each_row([&](size_t n, std::span<const float> row) { errors[n] = rule.error(choice, {row, options.importance}); });
    double sum = 0;
    for (const double error : errors) sum += error;
    return sum;
  });
}

// Rule: candidates(), candidate(statistics, i) -> Choice, error(choice, group) -> double, encode(choice, weights,
// codes), and store(row, choices), which writes a row's numbers and leaves in `choices` what a reader will find there.
template <class Rule>
void fit_rows(const Weights& weights, size_t group, formats::CodeWidth width, const Rule& rule, const GridFit& options,
              std::span<uint8_t> codes, int threads) {
  require_importance(options.importance, weights.columns);
  const formats::GroupLayout layout(group, weights.rows, weights.columns);
  const size_t row_bytes = width.row_bytes(weights.columns);
  Choice for_all;
  if (layout.whole) {
    for_all = chosen_for_all(weights, rule, options, threads);
    rule.store(0, {&for_all, 1});
  }
  parallel_for(weights.rows, grain_of(weights.columns), threads, [&](size_t begin, size_t end) {
    ScratchFrame scratch;
    const auto values = scratch.take<float>(weights.columns);
    const auto unpacked = scratch.take<uint8_t>(weights.columns);
    std::vector<Choice> choices(layout.count, for_all);
    const auto each_group = [&](const auto& f) {
      for (size_t g = 0; g < layout.count; ++g) {
        const size_t first = g * layout.group;
        f(g, first, std::span<const float>(values).subspan(first, std::min(layout.group, weights.columns - first)));
      }
    };
    for (size_t row = begin; row < end; ++row) {
      weights.row(row, values.data());
      if (!layout.whole) {
        each_group([&](size_t g, size_t first, std::span<const float> some) {
          const Group one{some, part_of(options.importance, first, some.size())};
          choices[g] = chosen(rule, statistics_of(some), options.least_squares,
                              [&](const Choice& choice) { return rule.error(choice, one); });
        });
        rule.store(row, choices);
      }
      each_group([&](size_t g, size_t first, std::span<const float> some) {
        rule.encode(choices[g], some, unpacked.data() + first);
      });
      formats::pack_codes(unpacked.data(), width, weights.columns, codes.data() + row * row_bytes);
    }
  });
}

}  // namespace tersor::solve
