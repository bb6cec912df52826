#include "solve/fit_rows.h"

#include <mutex>

#include "core/bits.h"
#include "formats/small_float.h"

namespace tersor::solve {

using formats::NumberKind;

void Weights::row(size_t index, float* out) const noexcept {
  const uint8_t* const from = data.data() + index * columns * dtype_bytes(dtype);
  switch (dtype) {
    case DType::F16:
      for (size_t i = 0; i < columns; ++i) out[i] = formats::f32_of_f16(load_le<uint16_t>(from + 2 * i));
      return;
    case DType::BF16:
      for (size_t i = 0; i < columns; ++i) out[i] = formats::f32_of_bf16(load_le<uint16_t>(from + 2 * i));
      return;
    default: std::memcpy(out, from, columns * sizeof(float));
  }
}

void Statistics::merge(const Statistics& other) noexcept {
  lowest = std::min(lowest, other.lowest), highest = std::max(highest, other.highest);
  size += other.size, count += other.count;
}

Statistics statistics_of(std::span<const float> weights) noexcept {
  Statistics found;
  double lanes[kLanes] = {};
  float lowest[kLanes], highest[kLanes];
  std::fill_n(lowest, kLanes, INFINITY), std::fill_n(highest, kLanes, -INFINITY);
  const auto take = [&](float weight, size_t lane) {
    lanes[lane] += double(std::fabs(weight));
    lowest[lane] = std::min(lowest[lane], weight), highest[lane] = std::max(highest[lane], weight);
  };
  size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) take(weights[i + lane], lane);
  for (size_t lane = 0; i < weights.size(); ++i, ++lane) take(weights[i], lane);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    found.size += lanes[lane];
    found.lowest = std::min(found.lowest, lowest[lane]), found.highest = std::max(found.highest, highest[lane]);
  }
  found.count = weights.size();
  return found;
}

float rounded(NumberKind kind, float value) noexcept {
  switch (kind) {
    case NumberKind::f16: return formats::f32_of_f16(formats::f16_of_f32(value));
    case NumberKind::bf16: return formats::f32_of_bf16(formats::bf16_of_f32(value));
    default: return value;
  }
}

void put_number(NumberKind kind, std::span<uint8_t> numbers, size_t index, float value) noexcept {
  switch (kind) {
    case NumberKind::f16: return store_le(numbers.data() + 2 * index, formats::f16_of_f32(value));
    case NumberKind::bf16: return store_le(numbers.data() + 2 * index, formats::bf16_of_f32(value));
    default: return store_le(numbers.data() + 4 * index, value);
  }
}

void require_finite(float number, const char* what, size_t row, size_t group) {
  TERSOR_REQUIRE(std::isfinite(number), Code::bad_call, "the ", what, " of row ", row, ", group ", group,
                 " is beyond what its dtype holds: bf16 and fp32 hold more than fp16");
}

float require_weights(const Weights& weights, int threads) {
  TERSOR_REQUIRE(weights.dtype == DType::F32 || weights.dtype == DType::F16 || weights.dtype == DType::BF16,
                 Code::bad_type, "weights are F32, F16 or BF16, not ", dtype_name(weights.dtype));
  formats::require_shape(weights.rows, weights.columns);
  const uint64_t shape[] = {weights.rows, weights.columns};
  TERSOR_REQUIRE(weights.data.size() == bytes_of(weights.dtype, shape), Code::bad_call, weights.data.size(),
                 " bytes for weights of ", shape_text(shape));
  struct Found {
    uint32_t most = 0;  // bits of the largest magnitude: they are in the order of what they stand for
    size_t bad = 0, first = ~size_t(0);
  } found;
  std::mutex mutex;
  parallel_for(weights.rows, grain_of(weights.columns), threads, [&](size_t begin, size_t end) {
    constexpr uint32_t kInfinite = 0x7f800000;
    ScratchFrame scratch;
    const auto row = scratch.take<float>(weights.columns);
    Found here;
    for (size_t n = begin; n < end; ++n) {
      weights.row(n, row.data());
      uint32_t most = 0;
      for (const float weight : row) most = std::max(most, std::bit_cast<uint32_t>(weight) & 0x7fffffff);
      here.most = std::max(here.most, most);
      for (size_t k = 0; most >= kInfinite && k < row.size(); ++k)
        if (!std::isfinite(row[k])) ++here.bad, here.first = std::min(here.first, n * weights.columns + k);
    }
    const std::lock_guard lock(mutex);
    found.most = std::max(found.most, here.most);
    found.bad += here.bad, found.first = std::min(found.first, here.first);
  });
  if (found.bad) {
    std::vector<float> row(weights.columns);
    const size_t n = found.first / weights.columns, k = found.first % weights.columns;
    weights.row(n, row.data());
    fail(Code::bad_call, found.bad, " of ", weights.rows * weights.columns, " weights are not finite, the first is ",
         row[k], " at [", n, ", ", k, "]");
  }
  return std::bit_cast<float>(found.most);
}

void require_importance(std::span<const float> importance, size_t columns) {
  TERSOR_REQUIRE(importance.empty() || importance.size() == columns, Code::bad_call, importance.size(),
                 " numbers of importance for ", columns, " columns");
  for (size_t i = 0; i < importance.size(); ++i)
    TERSOR_REQUIRE(importance[i] >= 0 && std::isfinite(importance[i]), Code::bad_call, "the importance of column ", i,
                   " is ", importance[i], ", a finite number of 0 or more is needed");
}

}  // namespace tersor::solve
