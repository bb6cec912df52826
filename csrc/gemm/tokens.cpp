#include "gemm/tokens.h"

#include <algorithm>
#include <cstring>

#include "core/bits.h"
#include "core/error.h"
#include "formats/small_float.h"

namespace tersor::gemm {
namespace {

constexpr size_t kScaleColumns = 128;  // of int8_g128
static_assert(kMostGroupColumns % kScaleColumns == 0);
constexpr size_t kRowPad = 64;  // rows that lie a power of two apart would share their cache lines' places

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
  stride = how.padded_columns + kRowPad;
  groups = size_t(ceil_div(how.padded_columns, how.group));
  values = scratch.take<int8_t>(count * stride);
  sums = scratch.take<int32_t>(count * (groups + 1));
  scales = scratch.take<float>(count);
  if (how.activations == Activations::int8_g128) group_scales = scratch.take<float>(count * (groups + 1));
}

void Tokens::read(const Matrix& x, size_t row, size_t token, const Kernels& kernel) const {
  const uint8_t* const from = x.data + row * x.columns * dtype_bytes(x.dtype);
  ScratchFrame own;
  const float* floats = reinterpret_cast<const float*>(from);
  if (x.dtype != DType::F32 || reinterpret_cast<uintptr_t>(from) % alignof(float) != 0) {
    const auto room = own.take<float>(x.columns);
    to_floats(x.dtype, from, x.columns, room.data());
    floats = room.data();
  }
  int8_t* const to = values.data() + token * stride;
  int32_t* const sum = sums.data() + token * (groups + 1);
  if (group_scales.empty()) {
    scales[token] = kernel.quantize(floats, x.columns, stride, to);
  } else {
    scales[token] = 1;
    float* const scale_row = group_scales.data() + token * (groups + 1);
    for (size_t column = 0; column < reading.padded_columns; column += kScaleColumns) {
      const size_t padded = std::min(kScaleColumns, reading.padded_columns - column);
      const size_t present = column < x.columns ? std::min(kScaleColumns, x.columns - column) : 0;
      const float scale = kernel.quantize(floats + column, present, padded, to + column);
      if (scale != scale) scales[token] = scale;
      for (size_t k = 0; k < padded; k += reading.group)
        scale_row[(column + k) / reading.group] = scale == scale ? scale : 0;
    }
    scale_row[groups] = 0;
  }
  kernel.sum_groups(to, reading.padded_columns, reading.group, sum);
  sum[groups] = 0;
}

}  // namespace tersor::gemm
