// Packed matrices and products with them, beside doubles, for the checks of the driver.
#pragma once
#include <cmath>
#include <memory>
#include <new>

#include "gemm/grids.h"
#include "gemm/linear.h"

namespace tersor::gemm::check {

using formats::NumberKind;

inline uint64_t room_of(const formats::Grid& grid) { return packed_bytes(grid); }
inline uint64_t room_of(const formats::VectorCodes& codes) { return packed_bytes(codes); }
inline uint64_t room_of(const formats::Sparse& sparse) { return packed_bytes(sparse, 1); }

struct Blob {
  template <class View>
  explicit Blob(const View& view, int threads = 1) : size(room_of(view)) {
    data.reset(new (std::align_val_t(64)) uint8_t[size]);
    pack(view, bytes(), threads);
  }
  struct Free {
    void operator()(uint8_t* at) const { ::operator delete[](at, std::align_val_t(64)); }
  };
  std::span<uint8_t> bytes() { return {data.get(), size}; }
  size_t size;
  std::unique_ptr<uint8_t[], Free> data;
};

inline std::vector<float> gaussian(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (auto& v : x) v = normal(random);
  return x;
}

inline Matrix matrix_of(const std::vector<float>& x, size_t rows, size_t columns) {
  return {DType::F32, reinterpret_cast<const uint8_t*>(x.data()), rows, columns};
}

inline void one_linear(const Matrix& x, const Packed& weights, const Matrix& bias, Activations activations,
                       DType y_dtype, std::span<uint8_t> y, int threads) {
  Product product;
  product.weights = &weights, product.bias = bias, product.y = y;
  linear(x, {&product, 1}, activations, y_dtype, threads);
}

inline std::span<uint8_t> bytes_of(std::vector<float>& y) {
  return {reinterpret_cast<uint8_t*>(y.data()), 4 * y.size()};
}

inline std::vector<float> product(const std::vector<float>& x, size_t tokens, Blob& blob, Activations activations,
                                  int threads = 1, const std::vector<float>* bias = nullptr) {
  const Packed packed = Packed::parse(blob.bytes());
  std::vector<float> y(tokens * packed.head.rows, -1);
  Matrix added{DType::F32, nullptr, 1, 0};
  if (bias) added = matrix_of(*bias, 1, bias->size());
  one_linear(matrix_of(x, tokens, packed.head.columns), packed, added, activations, DType::F32, bytes_of(y), threads);
  return y;
}

// Beside doubles: x in 8 bits by scales of its own, or as it is, weights as the grid, or another view, has them.
template <class View>
double worst_error(const View& grid, const std::vector<float>& x, size_t tokens, const std::vector<float>& y,
                   Activations activations) {
  const size_t piece = activations == Activations::int8 ? grid.columns : 128;
  std::vector<double> read(x.begin(), x.end());
  for (size_t m = 0; m < tokens && activations != Activations::exact; ++m)
    for (size_t first = 0; first < grid.columns; first += piece) {
      const size_t end = std::min(grid.columns, first + piece);
      float most = 0;
      for (size_t k = first; k < end; ++k) most = std::max(most, std::fabs(x[m * grid.columns + k]));
      for (size_t k = first; k < end; ++k) {
        const float steps = most ? std::nearbyint(x[m * grid.columns + k] * (127 / most)) : 0;
        read[m * grid.columns + k] = double(steps) * double(most / 127);
      }
    }
  double worst = 0;
  std::vector<float> row(grid.columns);
  for (size_t n = 0; n < grid.rows; ++n) {
    grid.dequantize(n, 0, grid.columns, row.data());
    for (size_t m = 0; m < tokens; ++m) {
      double want = 0, size = 1e-30;
      for (size_t k = 0; k < grid.columns; ++k) {
        const double one = read[m * grid.columns + k] * double(row[k]);
        want += one, size += std::fabs(one);
      }
      worst = std::max(worst, std::fabs(want - double(y[m * grid.rows + n])) / size);
    }
  }
  return worst;
}

// Of y beside doubles over all tokens and rows: the error's norm by that of y.
inline double norm_of_error(const Made& made, const std::vector<float>& x, size_t tokens, const std::vector<float>& y) {
  const formats::Grid& grid = made.grid;
  double error = 0, size = 0;
  std::vector<float> row(grid.columns);
  for (size_t n = 0; n < grid.rows; ++n) {
    grid.dequantize(n, 0, grid.columns, row.data());
    for (size_t m = 0; m < tokens; ++m) {
      double want = 0;
      for (size_t k = 0; k < grid.columns; ++k) want += double(x[m * grid.columns + k]) * double(row[k]);
      error += std::pow(want - double(y[m * grid.rows + n]), 2), size += want * want;
    }
  }
  return std::sqrt(error / size);
}

inline double worst_error(const Made& made, const std::vector<float>& x, size_t tokens, const std::vector<float>& y,
                          Activations activations) {
  return worst_error(made.grid, x, tokens, y, activations);
}

inline const Wanted kEveryGrid[] = {
    {48, 192, 128, 4},
    {33, 4304, 128, 4, NumberKind::bf16},
    {64, 512, 32, 4, NumberKind::f32, true},
    {17, 1056, 16, 4, NumberKind::bf16, false, true},
    {32, 1024, 64, 4, NumberKind::f16, false, false, true},
    {50, 640, 32, 4, NumberKind::e8m0},
    {40, 1500, 256, 1},
    {40, 1500, 256, 2, NumberKind::f32, true},
    {40, 1500, 64, 3, NumberKind::f16, false, true},
    {40, 300, 16, 3},
    {40, 1500, 128, 5},
    {40, 1500, 128, 6, NumberKind::f32, true},
    {40, 1500, 1500, 8, NumberKind::f32},
    {40, 2500, 128, 8, NumberKind::f16, true},
    {1, 1, 1, 8, NumberKind::f32},
    {1, 31, 31, 3},
    {3, 33, 32, 6, NumberKind::f16, false, false, true},
    {16, 257, 256, 5, NumberKind::f16, false, false, true},
    {16, 257, 256, 2, NumberKind::f16, false, false, true},
    {16, 300, 128, 3, NumberKind::f16, false, false, true},
    {16, 300, 128, 1, NumberKind::f16, false, false, true},
    {16, 700, 700, 8, NumberKind::f32, false, false, true},
};

}  // namespace tersor::gemm::check
