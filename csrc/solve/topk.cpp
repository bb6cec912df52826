#include "solve/topk.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"

namespace tersor::solve {
namespace {

// The bits of a magnitude order as the magnitude does.
uint32_t magnitude(float number) noexcept { return std::bit_cast<uint32_t>(number) & 0x7fffffff; }

void keep_of(std::span<const float> numbers, size_t keep, uint8_t* mask, std::vector<uint32_t>& scratch) {
  if (keep >= numbers.size()) return void(std::fill_n(mask, numbers.size(), uint8_t(1)));
  std::fill_n(mask, numbers.size(), uint8_t(0));
  if (keep == 0) return;
  scratch.resize(numbers.size());
  std::transform(numbers.begin(), numbers.end(), scratch.begin(), magnitude);
  std::nth_element(scratch.begin(), scratch.begin() + long(keep - 1), scratch.end(), std::greater<>());
  const uint32_t least = scratch[keep - 1];
  // All above the least, and of the least as many as there is room for.
  size_t equal = size_t(std::count(scratch.begin(), scratch.begin() + long(keep), least));
  for (size_t i = 0; i < numbers.size(); ++i) {
    const uint32_t here = magnitude(numbers[i]);
    mask[i] = here > least || (here == least && equal && equal--);
  }
}

}  // namespace

void keep_largest(std::span<const float> numbers, size_t columns, size_t span, size_t keep, std::span<uint8_t> mask,
                  int threads) {
  TERSOR_REQUIRE(columns && span && numbers.size() % columns == 0 && mask.size() == numbers.size(), Code::bad_call,
                 numbers.size(), " numbers and ", mask.size(), " bytes for rows of ", columns, " in spans of ", span);
  const size_t grain = std::max<size_t>(1, (size_t(1) << 15) / columns);
  parallel_for(numbers.size() / columns, grain, threads, [&](size_t begin, size_t end) {
    std::vector<uint32_t> scratch;
    for (size_t row = begin; row < end; ++row) {
      const auto own = numbers.subspan(row * columns, columns);
      for (size_t k = 0; k < columns; ++k)
        TERSOR_REQUIRE(!std::isnan(own[k]), Code::bad_call, "row ", row, " has NaN in column ", k);
      for (size_t first = 0; first < columns; first += std::min(span, columns - first))
        keep_of(own.subspan(first, std::min(span, columns - first)), keep, mask.data() + row * columns + first,
                scratch);
    }
  });
}

}  // namespace tersor::solve
