#include "entropy/histogram.h"

#include <vector>

#include "check.h"

namespace tersor::entropy {
namespace {

TEST_CASE("histogram: a sample of stride 1 is the count, to the last byte") {
  std::vector<uint8_t> data;
  for (size_t size = 0; size < 4096 + 200; ++size) {
    data.assign(size, 7);
    if (size > 0) data.back() = 200;  // occurs nowhere else
    ByteCounts sampled{}, counted{};
    sample_bytes(data, 1, sampled);
    count_bytes(data, counted);
    CHECK(sampled == counted);
  }
}

}  // namespace
}  // namespace tersor::entropy
