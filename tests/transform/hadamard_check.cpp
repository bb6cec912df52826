// Rotations: factors are Hadamard matrices, rows keep their lengths and come back, threads and levels decide nothing.
#include "transform/hadamard.h"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::transform;

namespace {

std::vector<float> normal(size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> law;
  std::vector<float> values(count);
  for (float& value : values) value = law(random);
  return values;
}

}  // namespace

TEST_CASE("hadamard: the factors are matrices of -1 and 1 with orthogonal rows") {
  for (const size_t order : {12, 20, 28}) {
    const auto factor = hadamard_factor(order);
    CHECK(factor.size() == order * order);
    for (size_t i = 0; i < order; ++i)
      for (size_t j = 0; j < order; ++j) {
        int product = 0;
        for (size_t k = 0; k < order; ++k) product += factor[i * order + k] * factor[j * order + k];
        CHECK(product == (i == j ? int(order) : 0));
        CHECK(std::abs(factor[i * order + j]) == 1);
      }
  }
  CHECK(check::error_of([] { hadamard_factor(16); }) == "a Hadamard factor of order 16, 12, 20 and 28 are known");
}

TEST_CASE("hadamard: how rows are cut") {
  const auto is = [](size_t columns, size_t block, size_t factor) {
    const HadamardLayout layout(columns);
    CHECK(layout.block == block && layout.factor == factor);
  };
  is(1, 1, 1), is(4096, 4096, 1), is(192, 192, 12), is(12, 12, 12), is(6, 2, 1), is(5120, 5120, 20);
  is(14336, 14336, 28), is(11008, 256, 1), is(4304, 16, 1), is(269, 1, 1), is(36, 4, 1);
  CHECK(check::error_of([] { HadamardLayout(0); }) == "a rotation of 0 columns");
}

TEST_CASE("hadamard: rows keep their lengths, come back, and are the same on any thread and level") {
  for (const size_t columns : {1, 2, 7, 12, 64, 80, 192, 224, 4304}) {
    const auto matrix = normal(40 * columns);
    for (const bool inverse : {false, true}) {
      std::vector<float> want = matrix;
      hadamard(want, columns, 5, inverse, 1);
      check::each_isa([&] {
        std::vector<float> got = matrix;
        hadamard(got, columns, 5, inverse, 3);
        CHECK(got == want);
      });
      for (size_t n = 0; n < 40; ++n) {
        double before = 0, after = 0;
        for (size_t k = 0; k < columns; ++k) {
          before += std::pow(double(matrix[n * columns + k]), 2);
          after += std::pow(double(want[n * columns + k]), 2);
        }
        CHECK(std::fabs(after / before - 1) < 1e-5);
      }
      hadamard(want, columns, 5, !inverse, 1);
      for (size_t i = 0; i < matrix.size(); ++i) CHECK(std::fabs(want[i] - matrix[i]) < 4e-6f);
    }
  }
}

TEST_CASE("hadamard: signs are even, and others under another seed") {
  int sum = 0, apart = 0;
  for (size_t k = 0; k < 10'000; ++k) {
    sum += int(hadamard_sign(0, k));
    apart += hadamard_sign(0, k) != hadamard_sign(1, k);
  }
  CHECK(std::abs(sum) < 400 && std::abs(apart - 5000) < 200);
}

TEST_CASE("hadamard: matrices that are no whole rows are refused") {
  std::vector<float> matrix(10);
  CHECK(check::error_of([&] { hadamard(matrix, 4, {}, false, 1); }) == "10 floats are no whole rows of 4");
}
