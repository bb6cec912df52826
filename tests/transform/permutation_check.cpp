// Permutations: exact there and back on any number of threads; what is none is refused.
#include "transform/permutation.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"

using namespace tersor;
using namespace tersor::transform;

TEST_CASE("permutation: columns go where the order says, and back") {
  std::mt19937 random(1);
  for (const size_t columns : {1, 2, 17, 4096}) {
    std::vector<uint32_t> order(columns);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    std::vector<float> matrix(20 * columns), out(matrix.size()), back(matrix.size());
    for (float& value : matrix) value = float(random());
    for (const int threads : {1, 3}) {
      permute_columns(matrix, order, false, out, threads);
      for (size_t n = 0; n < 20; ++n)
        for (size_t k = 0; k < columns; ++k) CHECK(out[n * columns + k] == matrix[n * columns + order[k]]);
      permute_columns(out, order, true, back, threads);
      CHECK(back == matrix);
    }
  }
}

TEST_CASE("permutation: what is none is refused before anything moves") {
  std::vector<float> matrix(8, 1), out(8, 2);
  const auto error = [&](const std::vector<uint32_t>& order) {
    return check::error_of([&] { permute_columns(matrix, order, true, out, 1); });
  };
  CHECK(error({0, 1, 4, 2}) == "a permutation of 4 columns has 4 at place 2");
  CHECK(error({0, 1, 0xffffffff, 2}) == "a permutation of 4 columns has 4294967295 at place 2");
  CHECK(error({0, 1, 1, 2}) == "a permutation has column 1 twice, again at place 2");
  CHECK(error({0, 1, 2}) == "8 and 8 floats for rows of 3");
  CHECK(error({}) == "8 and 8 floats for rows of 0");
  CHECK(out == std::vector<float>(8, 2));
}
