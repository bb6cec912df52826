#include "solve/grid_fit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "core/hash.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::solve;
using formats::FloatGroup;
using formats::IntGroup;
using formats::NumberKind;

namespace {

std::vector<float> gaussian(size_t count, float size = 1) {
  std::mt19937 random(5);
  std::vector<float> weights(count);
  for (auto& weight : weights) {  // the sum of twelve uniform numbers: no library's distribution is the same everywhere
    weight = -6;
    for (int i = 0; i < 12; ++i) weight += float(random() >> 8) * 0x1p-24f;
    weight *= size;
  }
  return weights;
}

struct Fitted {
  std::vector<formats::PartNeed> needs;
  std::vector<std::vector<uint8_t>> data;
};

Weights of(const std::vector<float>& weights, size_t rows, size_t columns) {
  return {DType::F32, rows, columns, {reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4}};
}

template <class Format>
Fitted fitted(const Weights& weights, const Format& format, bool least_squares, int threads,
              std::span<const float> importance = {}) {
  Fitted found{formats::parts_of(format, weights.rows, weights.columns), {}};
  std::vector<formats::PartRoom> rooms;
  for (const auto& need : found.needs) {
    found.data.emplace_back(size_t(bytes_of(need.dtype, need.shape)));
    rooms.push_back({need.name, need.dtype, need.shape, found.data.back()});
  }
  grid_fit(weights, format, {.least_squares = least_squares, .importance = importance}, rooms, threads);
  return found;
}

template <class Format>
double squared_error(const std::vector<float>& weights, const Fitted& fit, const Format& format, size_t rows) {
  const size_t columns = weights.size() / rows;
  std::vector<formats::Part> parts;
  for (size_t i = 0; i < fit.needs.size(); ++i)
    parts.push_back({fit.needs[i].name, fit.needs[i].dtype, fit.needs[i].shape, fit.data[i]});
  const auto grid = formats::grid_of(format, rows, columns, parts, 1);
  std::vector<float> row(columns);
  double sum = 0;
  for (size_t n = 0; n < rows; ++n) {
    grid.dequantize(n, 0, columns, row.data());
    for (size_t k = 0; k < columns; ++k) sum += std::pow(double(row[k]) - double(weights[n * columns + k]), 2);
  }
  return sum;
}

template <class Format>
void check_fit(const Format& format) {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 1}, {3, 37}, {40, 515}}) {
    const auto weights = gaussian(rows * columns);
    double errors[2];
    for (const bool least_squares : {false, true}) {
      const auto want = fitted(of(weights, rows, columns), format, least_squares, 1);
      for (const int threads : {2, 3})
        CHECK(fitted(of(weights, rows, columns), format, least_squares, threads).data == want.data);
      errors[least_squares] = squared_error(weights, want, format, rows);
    }
    // Under super-scales the search does not see what is rounded afterwards.
    CHECK(errors[1] <= errors[0] * (format.scale == NumberKind::super ? 1.05 : 1));
    if (rows > 1 && format.width().codes() > 4) CHECK(errors[0] < 0.4 * double(weights.size()));
  }
}

}  // namespace

TEST_CASE("grid_fit: threads decide nothing, and a search is no worse than the rule") {
  for (const int bits : {1, 2, 3, 4, 5, 6, 8})
    for (const auto mode : {IntGroup::Mode::symmetric, IntGroup::Mode::zero, IntGroup::Mode::minimum})
      for (const size_t group : {size_t(16), size_t(128), formats::kChannel, formats::kTensor})
        check_fit(IntGroup{.bits = bits, .group = group, .mode = mode});
  check_fit(IntGroup{.bits = 2, .ternary = true, .group = 64});
  for (const auto mode : {IntGroup::Mode::symmetric, IntGroup::Mode::zero, IntGroup::Mode::minimum})
    check_fit(IntGroup{.bits = 4, .group = 32, .mode = mode, .scale = NumberKind::super, .super_bits = 8});
  using Element = FloatGroup::Element;
  for (const auto element : {Element::e2m1, Element::e2m3, Element::e3m2, Element::e4m3, Element::e5m2})
    for (const auto scale : {NumberKind::f32, NumberKind::f16, NumberKind::e8m0, NumberKind::e4m3})
      check_fit(FloatGroup{.element = element, .group = 16, .scale = scale});
}

TEST_CASE("grid_fit: weights at the borders of float32 are stored, or their scale is refused") {
  constexpr float kMost = std::numeric_limits<float>::max(), kLeast = std::numeric_limits<float>::denorm_min();
  for (const auto& some : std::vector<std::vector<float>>{
           {kMost, -kMost}, {kMost, kMost}, {-kMost}, {kLeast, -kLeast, 0}, {kLeast}, {0}, {-0.f, 0}, {kMost, kLeast}})
    for (const bool least_squares : {false, true}) {
      for (const int bits : {1, 2, 4, 8})
        for (const auto mode : {IntGroup::Mode::symmetric, IntGroup::Mode::zero, IntGroup::Mode::minimum}) {
          const IntGroup format{.bits = bits, .group = 16, .mode = mode, .scale = NumberKind::f32};
          const std::string error = check::error_of([&] {
            const auto fit = fitted(of(some, 1, some.size()), format, least_squares, 1);
            CHECK(std::isfinite(squared_error(some, fit, format, 1)) || std::fabs(some[0]) == kMost);
          });
          // The range of both ends of float32 is none of its numbers.
          CHECK(error.empty() || (some.size() == 2 && some[1] == -kMost && error.find("beyond") != std::string::npos));
        }
      for (const auto scale : {NumberKind::f32, NumberKind::e8m0, NumberKind::e4m3})
        for (const auto element : {FloatGroup::Element::e2m1, FloatGroup::Element::e5m2}) {
          const FloatGroup format{.element = element, .group = 16, .scale = scale};
          squared_error(some, fitted(of(some, 1, some.size()), format, least_squares, 1), format, 1);
        }
    }
}

TEST_CASE("grid_fit: halves and bf16 are what their floats are") {
  const auto weights = gaussian(6 * 70);
  for (const DType dtype : {DType::F16, DType::BF16}) {
    std::vector<uint16_t> narrow;
    std::vector<float> wide;
    for (const float weight : weights) {
      narrow.push_back(dtype == DType::F16 ? formats::f16_of_f32(weight) : formats::bf16_of_f32(weight));
      wide.push_back(dtype == DType::F16 ? formats::f32_of_f16(narrow.back()) : formats::f32_of_bf16(narrow.back()));
    }
    const Weights of_narrow{dtype, 6, 70, {reinterpret_cast<const uint8_t*>(narrow.data()), narrow.size() * 2}};
    const IntGroup format{.bits = 4, .group = 32};
    CHECK(fitted(of_narrow, format, true, 1).data == fitted(of(wide, 6, 70), format, true, 1).data);
  }
}

TEST_CASE("grid_fit: what cannot be stored is refused") {
  auto weights = gaussian(3 * 40);
  const IntGroup format{.bits = 4, .group = 32};
  weights[45] = NAN, weights[100] = INFINITY;
  for (const int threads : {1, 3})
    CHECK(check::error_of([&] { fitted(of(weights, 3, 40), format, false, threads); }) ==
          "2 of 120 weights are not finite, the first is nan at [1, 5]");
  weights = gaussian(3 * 40, 1e6f);
  CHECK(check::error_of([&] { fitted(of(weights, 3, 40), format, false, 1); }).find("beyond what its dtype holds") !=
        std::string::npos);
  Weights odd = of(weights, 3, 40);
  odd.dtype = DType::F64;
  CHECK(check::error_of([&] { fitted(odd, format, false, 1); }) == "weights are F32, F16 or BF16, not F64");
  odd = of(weights, 3, 41);
  CHECK(check::error_of([&] { fitted(odd, format, false, 1); }) == "480 bytes for weights of [3, 41]");
}

TEST_CASE("grid_fit: columns weigh what they matter") {
  const size_t rows = 5, columns = 96;
  const auto weights = gaussian(rows * columns);
  const auto check = [&](const auto& format) {
    const auto fit = [&](std::span<const float> importance, int threads) {
      return fitted(of(weights, rows, columns), format, true, threads, importance).data;
    };
    std::vector<float> importance(columns, 1.0f);
    CHECK(fit(importance, 1) == fit({}, 1));
    for (size_t k = 0; k < columns; ++k) importance[k] = float(k % 7);
    CHECK(fit(importance, 1) != fit({}, 1));
    CHECK(fit(importance, 1) == fit(importance, 3));
    std::ranges::fill(importance, 0.0f);  // nothing matters: the format's own rule
    CHECK(fit(importance, 1) == fitted(of(weights, rows, columns), format, false, 1).data);
  };
  check(IntGroup{.bits = 3, .group = 32});
  check(IntGroup{.bits = 3, .group = 32, .mode = IntGroup::Mode::minimum});
  check(IntGroup{.bits = 4, .group = formats::kTensor});
  check(FloatGroup{.element = FloatGroup::Element::e2m1, .group = 16, .scale = NumberKind::f16});

  const IntGroup format{.bits = 3, .group = 32};
  for (const auto& [importance, text] : std::vector<std::pair<std::vector<float>, std::string>>{
           {std::vector<float>(95, 1.0f), "95 numbers of importance for 96 columns"},
           {std::vector<float>(96, -1.0f), "the importance of column 0 is -1, a finite number of 0 or more is needed"},
           {std::vector<float>(96, NAN), "the importance of column 0 is nan, a finite number of 0 or more is needed"}})
    CHECK(check::error_of([&] { fitted(of(weights, rows, columns), format, true, 1, importance); }) == text);
}

// Searches compare sums: were these to depend on processor or compiler, some scale here would be another.
TEST_CASE("grid_fit: parts are what they were, on every machine") {
  const auto weights = gaussian(7 * 301);
  HashStream hash;
  const auto add = [&](const auto& format) {
    for (const bool least_squares : {false, true})
      for (const auto& part : fitted(of(weights, 7, 301), format, least_squares, 1).data) hash.update(part);
  };
  std::vector<float> importance(301);
  for (size_t k = 0; k < importance.size(); ++k) importance[k] = float(k % 11) * 0.3f;
  HashStream weighed;
  for (const int bits : {2, 3, 4})
    for (const auto& part : fitted(of(weights, 7, 301), IntGroup{.bits = bits, .group = 64}, true, 1, importance).data)
      weighed.update(part);
  CHECK(weighed.finish().hex() == "a74fe2b5fa9f8e4e521f938ce5338bc2");
  for (const int bits : {1, 2, 3, 4, 5, 6, 8})
    for (const auto mode : {IntGroup::Mode::symmetric, IntGroup::Mode::zero, IntGroup::Mode::minimum})
      for (const auto scale : {NumberKind::f32, NumberKind::f16, NumberKind::bf16})
        add(IntGroup{.bits = bits, .group = 64, .mode = mode, .scale = scale});
  add(IntGroup{.bits = 2, .ternary = true, .group = formats::kTensor});
  add(IntGroup{.bits = 4, .group = 32, .mode = IntGroup::Mode::minimum, .scale = NumberKind::super, .super_bits = 6});
  using Element = FloatGroup::Element;
  for (const auto element : {Element::e2m1, Element::e2m3, Element::e3m2, Element::e4m3, Element::e5m2})
    for (const auto scale : {NumberKind::f32, NumberKind::e8m0, NumberKind::e4m3})
      add(FloatGroup{.element = element, .group = 16, .scale = scale});
  CHECK(hash.finish().hex() == "a56a0113abe836c7c6d8ddf027a48c31");
}
