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

TEST_CASE("histogram: data of nearly one value is counted to the last byte") {
  for (size_t size : {4096, 4097, 65535, 1 << 20})
    for (size_t gap : {9, 23, 50, 5000}) {
      std::vector<uint8_t> data(size, uint8_t(gap));
      ByteCounts counted{}, expected{};
      for (size_t i = 0; i < size; i += 1 + (i * 2654435761u >> 7) % gap) data[i] = uint8_t(i * 40503u >> 5);
      for (const uint8_t value : data) ++expected[value];
      count_bytes(data, counted);
      CHECK(counted == expected);
    }
}

}  // namespace
}  // namespace tersor::entropy
