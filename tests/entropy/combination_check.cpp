#include "entropy/combination.h"

#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"

using namespace tersor;
using namespace tersor::entropy;
using combination::Index;

TEST_CASE("combination: numbers count up in the order of the last elements, then those before") {
  // The next subset in that order: the lowest element that has room moves up, those below it start again.
  for (uint64_t n = 0; n <= 10; ++n)
    for (uint64_t k = 0; k <= n; ++k) {
      std::vector<int64_t> subset(k), back(k);
      for (size_t i = 0; i < k; ++i) subset[i] = int64_t(i);
      const auto total = uint64_t(combination::count(n, k));
      for (uint64_t number = 0; number < total; ++number) {
        uint64_t index = ~uint64_t(0);
        combination::encode(subset, n, k, {&index, 1}, 1);
        CHECK(index == number);
        combination::decode({&index, 1}, n, k, back, 1);
        CHECK(back == subset);
        for (size_t i = 0; i < k; ++i) {
          if (subset[i] + 1 < (i + 1 < k ? subset[i + 1] : int64_t(n))) {
            ++subset[i];
            break;
          }
          subset[i] = int64_t(i);
        }
      }
    }
}

TEST_CASE("combination: random numbers of 128 bits come back, on threads") {
  std::mt19937_64 random(3);
  for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{131, 65}, {5000, 12}, {uint64_t(1) << 33, 4}, {90, 80}}) {
    const Index total = combination::count(n, k);
    const size_t words = size_t(combination::index_words(n, k)), rows = 600;
    std::vector<uint64_t> indexes(rows * words), again(rows * words);
    for (size_t row = 0; row < rows; ++row) {
      const Index number = (Index(random()) << 64 | random()) % total;
      indexes[row * words] = uint64_t(number);
      if (words == 2) indexes[row * words + 1] = uint64_t(number >> 64);
    }
    std::vector<int64_t> positions(rows * k);
    combination::decode(indexes, n, k, positions, 2);
    combination::encode(positions, n, k, again, 2);
    CHECK(again == indexes);
  }
}

TEST_CASE("combination: spans of other sizes and what does not fit 128 bits are refused") {
  std::vector<int64_t> positions(7);
  std::vector<uint64_t> indexes(2);
  CHECK(!check::error_of([&] { combination::encode(positions, 9, 3, indexes, 1); }).empty());
  CHECK(!check::error_of([&] { combination::decode(indexes, 9, 3, positions, 1); }).empty());
  CHECK(!check::error_of([&] { combination::decode(indexes, 9, 10, positions, 1); }).empty());
  CHECK(check::error_of([] { combination::count(132, 66); }).find("takes about 129 bits") != std::string::npos);
}
