#include "transform/permutation.h"

#include <vector>

#include "core/error.h"
#include "core/pool.h"

namespace tersor::transform {

void check_permutation(std::span<const uint32_t> order) {
  std::vector<bool> seen(order.size());
  for (size_t k = 0; k < order.size(); ++k) {
    TERSOR_REQUIRE(order[k] < order.size(), Code::bad_data, "a permutation of ", order.size(), " columns has ",
                   order[k], " at place ", k);
    TERSOR_REQUIRE(!seen[order[k]], Code::bad_data, "a permutation has column ", order[k], " twice, again at place ",
                   k);
    seen[order[k]] = true;
  }
}

void permute_columns(std::span<const float> matrix, std::span<const uint32_t> order, bool inverse, std::span<float> out,
                     int threads) {
  const size_t columns = order.size();
  TERSOR_REQUIRE(columns && matrix.size() % columns == 0 && out.size() == matrix.size(), Code::bad_call, matrix.size(),
                 " and ", out.size(), " floats for rows of ", columns);
  check_permutation(order);
  parallel_for(matrix.size() / columns, 1 + (size_t(1) << 14) / columns, threads, [&](size_t begin, size_t end) {
    for (size_t n = begin; n < end; ++n) {
      const float* const from = matrix.data() + n * columns;
      float* const to = out.data() + n * columns;
      if (inverse)
        for (size_t k = 0; k < columns; ++k) to[order[k]] = from[k];
      else
        for (size_t k = 0; k < columns; ++k) to[k] = from[order[k]];
    }
  });
}

}  // namespace tersor::transform
