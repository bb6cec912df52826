#include "gemm/experts.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"

namespace tersor::gemm {

void linear_experts(const Matrix& x, std::span<const Expert> experts, std::span<const int64_t> chosen,
                    Activations activations, DType y_dtype, std::span<uint8_t> y, int threads) {
  require_float(y_dtype, "y's elements");
  TERSOR_REQUIRE(!experts.empty(), Code::bad_call, "experts: at least one is needed");
  const size_t rows = size_t(experts[0].weights->head.rows);
  for (size_t e = 1; e < experts.size(); ++e)
    TERSOR_REQUIRE(experts[e].weights->head.rows == rows, Code::bad_call, "expert ", e, " has ",
                   experts[e].weights->head.rows, " rows, the first has ", rows);
  const size_t count = chosen.size(), row_bytes = rows * dtype_bytes(y_dtype);
  TERSOR_REQUIRE(x.rows ? count % x.rows == 0 : count == 0, Code::bad_call, count, " experts are chosen for ", x.rows,
                 " tokens, as many for each are needed");
  TERSOR_REQUIRE(y.size() == checked_mul(count, row_bytes, "y"), Code::bad_call, "y has ", y.size(), " bytes, ", count,
                 " rows of ", row_bytes, " are needed");
  const size_t slots = x.rows ? count / x.rows : 1;

  // Rows of y by expert: the driver writes each expert's end to end.
  std::vector<size_t> first(experts.size() + 1);
  for (size_t i = 0; i < count; ++i) {
    TERSOR_REQUIRE(chosen[i] >= 0 && uint64_t(chosen[i]) < experts.size(), Code::bad_call, "expert ", chosen[i], " at ",
                   i, ": experts are 0..", experts.size() - 1);
    ++first[size_t(chosen[i]) + 1];
  }
  for (size_t e = 0; e < experts.size(); ++e) first[e + 1] += first[e];
  std::vector<size_t> home(count), next(first.begin(), first.end() - 1);  // where row i of y is computed
  std::vector<uint32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    home[i] = next[size_t(chosen[i])]++;
    tokens[home[i]] = uint32_t(i / slots);
  }
  const auto computed = std::make_unique_for_overwrite<uint8_t[]>(y.size());
  std::vector<Product> products;
  for (size_t e = 0; e < experts.size(); ++e) {
    const size_t some = first[e + 1] - first[e];
    if (some == 0) continue;
    products.push_back({experts[e].weights,
                        experts[e].bias,
                        tokens.data() + first[e],
                        some,
                        {computed.get() + first[e] * row_bytes, some * row_bytes}});
  }
  linear(x, products, activations, y_dtype, threads);
  parallel_for(count, std::max<size_t>(1, (size_t(1) << 16) / row_bytes), threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      std::memcpy(y.data() + i * row_bytes, computed.get() + home[i] * row_bytes, row_bytes);
  });
}

}  // namespace tersor::gemm
