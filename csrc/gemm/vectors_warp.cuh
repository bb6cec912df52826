// Rows in vectors of a codebook, as bodies for a warp that owns the row: dequantized, and times up to four tokens.
// gemv.cu compiles them for the GPU, gemv_warp_check.cpp for the host. Page: docs/formats/codebook.md. Reference:
// VectorCodes::dequantize, which dequantize_row_warp equals bit for bit.
//
// A lane takes a vector at a time, so that neighbors read neighboring columns. Entries lie in shared memory where they
// fit. C++17, as cuda/warp.h.
#pragma once
#include "gemm/grid_warp.cuh"

namespace tersor::gemm {

struct WarpVectors {  // VectorCodes whose parts lie where the warp can read them; every code is below entries
  uint32_t rows, columns;
  uint32_t dimension, stages, entries, bits;
  const uint8_t* codes;  // [stages][rows][row_bytes]
  size_t row_bytes;
  const Half* codebook;  // [stages][entries][dimension], aligned to 16 bytes
  formats::GroupNumbers scales;

  TERSOR_HD size_t codebook_bytes() const { return size_t(stages) * entries * dimension * sizeof(Half); }
};

// Sums a row's vector v over the stages, in their order. codes: the first stage's row.
template <uint32_t kDimension>
TERSOR_HD void read_vector(const WarpVectors& vectors, const Half* codebook, const uint8_t* codes, uint32_t v,
                           float* sum) {
  const size_t bit = size_t(v) * vectors.bits, byte = bit / 8, last = (bit + vectors.bits - 1) / 8;
  TERSOR_UNROLL
  for (uint32_t i = 0; i < kDimension; ++i) sum[i] = 0;
  for (uint32_t s = 0; s < vectors.stages; ++s) {
    const uint8_t* const row = codes + size_t(s) * vectors.rows * vectors.row_bytes;
    uint32_t window = row[byte];  // a code lies in at most three bytes
    if (last > byte) window |= uint32_t(row[byte + 1]) << 8;
    if (last > byte + 1) window |= uint32_t(row[byte + 2]) << 16;
    const uint32_t code = window >> bit % 8 & ((1u << vectors.bits) - 1);
    float entry[kDimension];
    read_run<kDimension>(codebook + (size_t(s) * vectors.entries + code) * kDimension, kDimension, true, entry);
    TERSOR_UNROLL
    for (uint32_t i = 0; i < kDimension; ++i) sum[i] += entry[i];
  }
}

// codebook: that of the vectors, or a copy in a memory that is nearer. out: the row's columns.
template <uint32_t kDimension, class Warp, class Y>
TERSOR_HD void dequantize_row_warp(const Warp& warp, const WarpVectors& vectors, const Half* codebook, uint32_t row,
                                   Y* out) {
  const uint8_t* const codes = vectors.codes + row * vectors.row_bytes;
  const uint32_t count = (vectors.columns + kDimension - 1) / kDimension;
  const bool aligned = is_aligned(out, 16);
  const float scale = number_at(vectors.scales, row, 0);
  warp.each([&](uint32_t lane) {
    for (uint32_t v = lane; v < count; v += cuda::kWarpLanes) {
      float sum[kDimension];
      read_vector<kDimension>(vectors, codebook, codes, v, sum);
      TERSOR_UNROLL
      for (uint32_t i = 0; i < kDimension; ++i) sum[i] = times(scale, sum[i]);
      const uint32_t column = v * kDimension;
      write_run<kDimension>(sum, vectors.columns - column, aligned, out + column);
    }
  });
}

// y[m][row] = sum over k of w[row][k] x[m][k] for the tokens m; x: [kTokens][columns], y: [kTokens][rows]. A lane sums
// its vectors by fused multiply-adds, lanes are summed by halves, and the scale comes last.
template <uint32_t kDimension, uint32_t kTokens, class Warp, class X>
TERSOR_HD void gemv_row_warp(const Warp& warp, const WarpVectors& vectors, const Half* codebook, uint32_t row,
                             const X* x, X* y) {
  typename Warp::template reg<float> sums[kTokens];
  const uint8_t* const codes = vectors.codes + row * vectors.row_bytes;
  const uint32_t count = (vectors.columns + kDimension - 1) / kDimension;
  const bool aligned = is_aligned(x, 16) && (kTokens == 1 || vectors.columns * sizeof(X) % 16 == 0);
  warp.each([&](uint32_t lane) {
    float sum[kTokens] = {};
    for (uint32_t v = lane; v < count; v += cuda::kWarpLanes) {
      float weights[kDimension];
      read_vector<kDimension>(vectors, codebook, codes, v, weights);
      const uint32_t column = v * kDimension;
      TERSOR_UNROLL
      for (uint32_t m = 0; m < kTokens; ++m) {
        float values[kDimension];  // 0 beyond the row
        read_run<kDimension>(x + size_t(m) * vectors.columns + column, vectors.columns - column, aligned, values);
        TERSOR_UNROLL
        for (uint32_t i = 0; i < kDimension; ++i) sum[m] = fmaf(weights[i], values[i], sum[m]);
      }
    }
    TERSOR_UNROLL
    for (uint32_t m = 0; m < kTokens; ++m) sums[m][lane] = sum[m];
  });
  const float scale = number_at(vectors.scales, row, 0);
  float total[kTokens];
  TERSOR_UNROLL
  for (uint32_t m = 0; m < kTokens; ++m) total[m] = times(scale, warp.sum(sums[m]));
  warp.each([&](uint32_t lane) {
    TERSOR_UNROLL
    for (uint32_t m = 0; m < kTokens; ++m)
      if (lane == m) set(y[size_t(m) * vectors.rows + row], total[m]);
  });
}

// As with_codes.
template <class F>
void with_dimension(uint32_t dimension, F&& f) {
  switch (dimension) {
    case 2: return f(Constant<2>{});
    case 3: return f(Constant<3>{});
    case 4: return f(Constant<4>{});
    case 5: return f(Constant<5>{});
    case 6: return f(Constant<6>{});
    case 7: return f(Constant<7>{});
    case 8: return f(Constant<8>{});
  }
  fail(Code::bad_call, "a vector has 2..8 columns, not ", dimension);
}

}  // namespace tersor::gemm
