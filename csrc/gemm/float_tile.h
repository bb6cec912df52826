// Tiles of float32, once for all levels: a level's file names its vectors and includes this. Everything is local to it.
#pragma once
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

// V: Type, kLanes, kTokens (as many as its registers hold beside the weights), zero, load, broadcast, store,
// multiply_add(a, b, sum), numbers (kLanes of a kind from a place on), bytes (as floats), levels (of a table of 2^bits
// by four codes in every 32-bit word of 4 kLanes bytes, the `byte`th of them).
template <class V, size_t kTokens>
void float_tokens(const FloatTile& t, size_t token) noexcept {
  constexpr size_t kVectors = kTileRows / V::kLanes;
  const auto* const panel = reinterpret_cast<const float*>(t.codes);
  const size_t columns = t.steps * kStepColumns, group_columns = t.group_halves * 16;
  const float* x[kTokens];
  for (size_t i = 0; i < kTokens; ++i) x[i] = reinterpret_cast<const float*>(t.x + (token + i) * t.x_stride);
  for (size_t first = 0, g = 0; first < columns; first += group_columns, ++g) {
    const size_t end = first + group_columns < columns ? first + group_columns : columns, stored = g / t.groups_a_scale;
    typename V::Type sum[kTokens][kVectors];
#pragma GCC unroll 8
    for (size_t i = 0; i < kTokens; ++i)
#pragma GCC unroll 8
      for (size_t j = 0; j < kVectors; ++j) sum[i][j] = V::zero();
    for (size_t k = first; k < end; ++k) {
      const float* const column = panel + k * kTileRows;
#pragma GCC unroll 8
      for (size_t i = 0; i < kTokens; ++i) {
        const auto one = V::broadcast(x[i][k]);
#pragma GCC unroll 8
        for (size_t j = 0; j < kVectors; ++j)
          sum[i][j] = V::multiply_add(V::load(column + j * V::kLanes), one, sum[i][j]);
      }
    }
    const uint8_t* const scales = t.scales.at + stored * t.scales.group_stride;
#pragma GCC unroll 8
    for (size_t j = 0; j < kVectors; ++j) {
      const auto scale = V::numbers(t.scale_kind, scales, j);
      auto zero = V::zero(), minimum = V::zero();
      if (t.zeros.at) zero = V::bytes(t.zeros.at + stored * t.zeros.group_stride + j * V::kLanes);
      if (t.minimums.at) minimum = V::numbers(t.scale_kind, t.minimums.at + stored * t.minimums.group_stride, j);
#pragma GCC unroll 8
      for (size_t i = 0; i < kTokens; ++i) {
        float* const y = t.y + (token + i) * kTileRows + j * V::kLanes;
        const float x_sum = t.sums[(token + i) * t.sums_stride + g];
        auto value = sum[i][j], whole = t.first && g == 0 ? V::zero() : V::load(y);
        if (t.zeros.at) value = V::multiply_add(zero, V::broadcast(-x_sum), value);
        whole = V::multiply_add(value, scale, whole);
        if (t.minimums.at) whole = V::multiply_add(minimum, V::broadcast(x_sum), whole);
        V::store(y, whole);
      }
    }
  }
}

template <class V>
void float_tile(const FloatTile& t, size_t tokens) noexcept {
  size_t token = 0;
  for (; token + V::kTokens <= tokens; token += V::kTokens) float_tokens<V, V::kTokens>(t, token);
  for (; token < tokens; ++token) float_tokens<V, 1>(t, token);
}

template <class V>
void float_levels(int bits, const float* table, const uint8_t* bytes, size_t steps, float* out) noexcept {
  const auto registers = V::table(bits, table);
  for (size_t v = 0; v < 8 * steps; ++v, bytes += 128, out += 4 * kTileRows)
    for (size_t j = 0; j < kTileRows / V::kLanes; ++j) {
#pragma GCC unroll 4
      for (int byte = 0; byte < 4; ++byte)
        V::store(out + size_t(byte) * kTileRows + j * V::kLanes,
                 V::levels(bits, registers, bytes + 4 * j * V::kLanes, byte));
    }
}

}  // namespace
}  // namespace tersor::gemm
