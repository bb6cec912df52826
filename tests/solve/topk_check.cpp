// The largest of every span: as sorting finds them, the first of those alike, on any number of threads.
#include "solve/topk.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"

using namespace tersor;
using namespace tersor::solve;

TEST_CASE("topk: as a stable sort by magnitude finds them") {
  std::mt19937 random(1);
  for (const size_t columns : {1, 5, 16, 130})
    for (const size_t span : {1, 2, 4, 7, 200})
      for (const size_t keep : {0, 1, 2, 3, 7, 130}) {
        const size_t rows = 9;
        std::vector<float> numbers(rows * columns);
        for (float& number : numbers) number = float(int(random() % 9) - 4) * (random() % 50 ? 1 : INFINITY);
        for (float& number : numbers)
          if (std::isnan(number)) number = -0.0f;
        std::vector<uint8_t> want(numbers.size()), got(numbers.size(), 7);
        for (size_t n = 0; n < rows; ++n)
          for (size_t first = 0; first < columns; first += span) {
            std::vector<size_t> order(std::min(span, columns - first));
            std::iota(order.begin(), order.end(), n * columns + first);
            std::stable_sort(order.begin(), order.end(),
                             [&](size_t a, size_t b) { return std::fabs(numbers[a]) > std::fabs(numbers[b]); });
            for (size_t i = 0; i < std::min(keep, order.size()); ++i) want[order[i]] = 1;
          }
        for (const int threads : {1, 3}) {
          keep_largest(numbers, columns, span, keep, got, threads);
          CHECK(got == want);
        }
      }
}

TEST_CASE("topk: NaN and sizes that differ are refused") {
  std::vector<float> numbers(12);
  std::vector<uint8_t> mask(12);
  using check::error_of;
  CHECK(error_of([&] { keep_largest(numbers, 5, 2, 1, mask, 1); }) ==
        "12 numbers and 12 bytes for rows of 5 in spans of 2");
  CHECK(error_of([&] { keep_largest(numbers, 4, 0, 1, mask, 1); }) ==
        "12 numbers and 12 bytes for rows of 4 in spans of 0");
  CHECK(error_of([&] { keep_largest(numbers, 4, 2, 1, std::span(mask).first(8), 1); }) ==
        "12 numbers and 8 bytes for rows of 4 in spans of 2");
  numbers[9] = NAN;
  CHECK(error_of([&] { keep_largest(numbers, 4, 2, 1, mask, 1); }) == "row 2 has NaN in column 1");
}
