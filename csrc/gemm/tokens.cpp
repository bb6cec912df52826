#include "gemm/tokens.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/bits.h"
#include "core/error.h"
#include "formats/small_float.h"

namespace tersor::gemm {
namespace {

constexpr size_t kScaleColumns = 128;  // of int8_g128
static_assert(kMostGroupColumns % kScaleColumns == 0);
// An element so many times as large as the mean of them stays exact. No more than one in so many can be.
constexpr float kLargeTimes = 6;
constexpr size_t kRowPad = 64;  // rows that lie a power of two apart would share their cache lines' places

// Eight sums side by side: one alone waits for each addition.
float sum_of(const float* x, size_t count) noexcept {
  float sums[8] = {};
  size_t k = 0;
  for (; k + 8 <= count; k += 8)
    for (size_t i = 0; i < 8; ++i) sums[i] += x[k + i];
  for (; k < count; ++k) sums[k % 8] += x[k];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

void require_float(DType dtype, const char* what) {
  TERSOR_REQUIRE(dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16, Code::bad_type, what,
                 " are F32, F16 or BF16, not ", dtype_name(dtype));
}

void to_floats(DType dtype, const uint8_t* from, size_t count, float* to) noexcept {
  if (dtype == DType::F32)
    std::memcpy(to, from, 4 * count);
  else if (dtype == DType::BF16)
    for (size_t i = 0; i < count; ++i) to[i] = formats::f32_of_bf16(load_le<uint16_t>(from + 2 * i));
  else
    for (size_t i = 0; i < count; ++i) to[i] = formats::f32_of_f16(load_le<uint16_t>(from + 2 * i));
}

void from_floats(DType dtype, const float* from, size_t count, uint8_t* to) noexcept {
  if (dtype == DType::F32)
    std::memcpy(to, from, 4 * count);
  else if (dtype == DType::BF16)
    for (size_t i = 0; i < count; ++i) store_le(to + 2 * i, formats::bf16_of_f32(from[i]));
  else
    for (size_t i = 0; i < count; ++i) store_le(to + 2 * i, formats::f16_of_f32(from[i]));
}

Tokens::Tokens(const Reading& how, size_t tokens, ScratchFrame& scratch) : reading(how), count(tokens) {
  constexpr size_t kBytes[] = {1, 2, 4};  // of an element of each arithmetic
  stride = how.padded_columns * kBytes[size_t(how.arithmetic)] + kRowPad;
  groups = size_t(ceil_div(how.padded_columns, how.group));
  values = scratch.bytes(count * stride);
  if (how.arithmetic == Arithmetic::int8)
    sums = scratch.take<int32_t>(count * (groups + 1));
  else
    float_sums = scratch.take<float>(count * (groups + 1));
  scales = scratch.take<float>(count);
  if (how.activations == Activations::int8_g128) group_scales = scratch.take<float>(count * (groups + 1));
  if (how.activations == Activations::int8_outlier) {
    most_large = how.padded_columns / size_t(kLargeTimes) + 1;
    large = scratch.take<Large>(count * most_large);
    large_counts = scratch.take<uint32_t>(count);
  }
}

void Tokens::read(const Matrix& x, size_t row, size_t token, const Kernels& kernel) const {
  const uint8_t* const from = x.data + row * x.columns * dtype_bytes(x.dtype);
  ScratchFrame own;
  const float* floats = reinterpret_cast<const float*>(from);
  if (x.dtype != DType::F32 || reinterpret_cast<uintptr_t>(from) % alignof(float) != 0 || most_large) {
    const auto room = own.take<float>(x.columns);
    to_floats(x.dtype, from, x.columns, room.data());
    if (most_large) take_large(room, token);
    floats = room.data();
  }
  if (reading.arithmetic == Arithmetic::int8)
    read_integers(floats, x.columns, token, kernel);
  else if (reading.arithmetic == Arithmetic::bf16)
    read_halves(floats, x.columns, token);
  else
    read_floats(floats, x.columns, token);
}

// Takes them out of x. Sums are in a fixed order and not fused: the same elements on every machine.
void Tokens::take_large(std::span<float> x, size_t token) const {
  ScratchFrame own;
  const auto sizes = own.take<float>(x.size());
  for (size_t k = 0; k < x.size(); ++k) sizes[k] = std::fabs(x[k]);
  const float most = kLargeTimes * (sum_of(sizes.data(), x.size()) / float(x.size()));
  uint32_t found = 0;
  if (most <= std::numeric_limits<float>::max())  // a row that is not finite has none
    for (size_t k = 0; k < x.size() && found < most_large; ++k) {
      if (!(sizes[k] > most)) continue;
      large[token * most_large + found++] = {uint32_t(k), x[k]};
      x[k] = 0;
    }
  large_counts[token] = found;
}

void Tokens::gather_large(ScratchFrame& scratch) {
  if (!most_large) return;
  constexpr uint32_t kNone = ~uint32_t(0);
  std::vector<uint32_t> place(reading.padded_columns / kStepColumns, kNone);
  const auto each = [&](const auto& f) {
    for (size_t token = 0; token < count; ++token)
      for (uint32_t i = 0; i < large_counts[token]; ++i) f(token, large[token * most_large + i]);
  };
  each([&](size_t, const Large& one) { place[one.column / kStepColumns] = 0; });
  for (uint32_t step = 0; step < place.size(); ++step) {
    if (place[step] == kNone) continue;
    place[step] = uint32_t(large_elements.steps.size());
    large_elements.steps.push_back(step);
  }
  large_elements.x = scratch.take<float>(large_elements.steps.size() * count * kStepColumns);
  large_elements.sums = scratch.take<float>(large_elements.steps.size() * count * kStepSums);
  std::ranges::fill(large_elements.x, 0.0f), std::ranges::fill(large_elements.sums, 0.0f);
  const size_t sum_columns = std::min(reading.group, kStepColumns);
  each([&](size_t token, const Large& one) {
    const size_t at = place[one.column / kStepColumns] * count + token, k = one.column % kStepColumns;
    large_elements.x[at * kStepColumns + k] = one.value;
    large_elements.sums[at * kStepSums + k / sum_columns] += one.value;
  });
}

void Tokens::read_integers(const float* x, size_t columns, size_t token, const Kernels& kernel) const {
  auto* const to = reinterpret_cast<int8_t*>(values.data() + token * stride);
  int32_t* const sum = sums.data() + token * (groups + 1);
  if (group_scales.empty()) {
    scales[token] = kernel.quantize(x, columns, stride, to);
  } else {
    scales[token] = 1;
    float* const scale_row = group_scales.data() + token * (groups + 1);
    for (size_t column = 0; column < reading.padded_columns; column += kScaleColumns) {
      const size_t padded = std::min(kScaleColumns, reading.padded_columns - column);
      const size_t present = column < columns ? std::min(kScaleColumns, columns - column) : 0;
      const float scale = kernel.quantize(x + column, present, padded, to + column);
      if (scale != scale) scales[token] = scale;
      for (size_t k = 0; k < padded; k += reading.group)
        scale_row[(column + k) / reading.group] = scale == scale ? scale : 0;
    }
    scale_row[groups] = 0;
  }
  kernel.sum_groups(to, reading.padded_columns, reading.group, sum);
  sum[groups] = 0;
}

void Tokens::read_floats(const float* x, size_t columns, size_t token) const {
  uint8_t* const to = values.data() + token * stride;
  float* const sum = float_sums.data() + token * (groups + 1);
  std::memset(to, 0, stride);
  std::fill_n(sum, groups + 1, 0.0f);
  scales[token] = 1;
  std::memcpy(to, x, 4 * columns);
  for (size_t k = 0, g = 0; k < columns; k += reading.group, ++g)
    sum[g] = sum_of(x + k, std::min(reading.group, columns - k));
}

// Pairs: columns 0 and 2 of every four, then 1 and 3. x was bfloat16: its top halves are all of it.
void Tokens::read_halves(const float* x, size_t columns, size_t token) const {
  uint8_t* const to = values.data() + token * stride;
  float* const sum = float_sums.data() + token * (groups + 1);
  std::memset(to + 2 * (columns / 4 * 4), 0, stride - 2 * (columns / 4 * 4));
  std::fill_n(sum, groups + 1, 0.0f);
  scales[token] = 1;
  size_t k = 0;
  for (; k + 4 <= columns; k += 4) {
    uint64_t low, high;
    std::memcpy(&low, x + k, 8), std::memcpy(&high, x + k + 2, 8);
    const uint64_t first = (low >> 16 & 0xffff) | (high & 0xffff0000), second = low >> 48 | (high >> 32 & 0xffff0000);
    store_le(to + 2 * k, first | second << 32);
  }
  for (; k < columns; ++k) store_le(to + 2 * (k / 4 * 4 + k % 2 * 2 + k % 4 / 2), formats::bf16_of_f32(x[k]));
  for (size_t first = 0, g = 0; first < columns; first += reading.group, ++g)
    sum[g] = sum_of(x + first, std::min(reading.group, columns - first));
}

}  // namespace tersor::gemm
