// The reference: the same sums in the same order, one at a time. Fused multiply-adds are written as such, because the
// other levels have them.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "gemm/kernels.h"
#include "gemm/packed.h"

namespace tersor::gemm {
namespace {

void integer_tile(const IntegerTile& t, size_t tokens) noexcept {
  for (size_t token = 0; token < tokens; ++token)
    for (size_t n = 0; n < kTileRows; ++n) {
      const size_t block = n / kBlockRows, row = n % kBlockRows;
      const uint8_t* const codes = t.codes + block * 64 + 4 * row;
      const int8_t* const x = t.x + token * t.x_stride;
      float sum = t.first ? 0 : t.y[token * kTileRows + n];
      const size_t columns = t.steps * kStepColumns, group_columns = t.group_halves * 16;
      for (size_t first = 0, g = 0; first < columns; first += group_columns, ++g) {
        const size_t here = token * t.sums_stride + g, stored = g / t.groups_a_scale;
        int32_t dot = -t.center * t.sums[here];
        for (size_t k = first; k < std::min(columns, first + group_columns); ++k)
          dot += int32_t(codes[k / 4 * 128 + k % 4]) * x[k];
        const auto number = [&](const Numbers& numbers) {
          return number_at(t.scale_kind, numbers.at + stored * numbers.group_stride, n);
        };
        float value = float(dot);
        if (t.zeros.at) {
          const uint8_t zero = t.zeros.at[stored * t.zeros.group_stride + n];
          value = std::fma(-float(zero), float(t.sums[here]), value);
        }
        const float scale = number(t.scales);
        sum = std::fma(value, t.x_scales ? scale * t.x_scales[here] : scale, sum);
        if (t.minimums.at)
          sum = std::fma(number(t.minimums), float(t.sums[here]) * (t.x_scales ? t.x_scales[here] : 1.0f), sum);
      }
      t.y[token * kTileRows + n] = sum;
    }
}

void integer_panel(int bits, const uint8_t* lookup, const uint8_t* codes, size_t steps, uint8_t* out) noexcept {
  for (size_t step = 0; step < steps; ++step, out += 1024) {
    std::memset(out, 0, 1024);
    int low = 0;
    for (const int width : {8, 4, 2, 1}) {
      if (!(bits & width)) continue;
      const size_t places = size_t(8 / width);
      for (size_t v = 0; v < 8; ++v)
        for (size_t byte = 0; byte < 128; ++byte) {
          const int field = codes[v / places * 128 + byte] >> (v % places * size_t(width)) & ((1 << width) - 1);
          out[128 * v + byte] |= uint8_t(field << low);
        }
      low += width;
      codes += 128 * width;
    }
    for (size_t i = 0; lookup && i < 1024; ++i) out[i] = lookup[out[i]];
  }
}

float quantize(const float* x, size_t columns, size_t padded, int8_t* out) noexcept {
  float most = 0;
  bool finite = true;
  for (size_t k = 0; k < columns; ++k) {
    const float size = std::fabs(x[k]);
    finite &= size <= std::numeric_limits<float>::max();
    most = std::max(most, size);
  }
  std::memset(out, 0, padded);
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  if (most == 0) return 0;
  // The reciprocal of the smallest numbers is infinite: they count as 0.
  const float inverse = 127 / most;
  if (!(inverse <= std::numeric_limits<float>::max())) return 0;
  for (size_t k = 0; k < columns; ++k) {
    const float steps = x[k] * inverse + 0x1.8p23f;  // steps of 1 there: adding rounds
    out[k] = int8_t(int32_t(std::bit_cast<uint32_t>(steps) - std::bit_cast<uint32_t>(0x1.8p23f)));
  }
  return most / 127;
}

void sum_groups(const int8_t* x, size_t columns, size_t group, int32_t* out) noexcept {
  for (size_t first = 0; first < columns; first += group) {
    int32_t sum = 0;
    for (size_t k = first; k < std::min(columns, first + group); ++k) sum += x[k];
    *out++ = sum;
  }
}

}  // namespace

const Kernels kScalarKernels = {1 << 8, 0, integer_tile, integer_panel, quantize, sum_groups};

}  // namespace tersor::gemm
