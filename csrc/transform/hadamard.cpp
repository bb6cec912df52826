#include "transform/hadamard.h"

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/pool.h"

namespace tersor::transform {
namespace {

template <size_t kOrder>
using Matrix = std::array<int8_t, kOrder * kOrder>;

// 1 for squares modulo a prime, -1 for others, 0 for 0.
constexpr int legendre(int value, int prime) {
  value = (value % prime + prime) % prime;
  if (value == 0) return 0;
  for (int root = 1; root < prime; ++root)
    if (root * root % prime == value) return 1;
  return -1;
}

// Paley's first construction, order = prime + 1, prime = 3 mod 4: I + S, S skew with a border of ones.
template <size_t kOrder>
constexpr Matrix<kOrder> paley_first() {
  constexpr int kPrime = int(kOrder) - 1;
  Matrix<kOrder> found{};
  for (int i = 0; i <= kPrime; ++i)
    for (int j = 0; j <= kPrime; ++j) {
      const int skew = i == j ? 0 : i == 0 ? 1 : j == 0 ? -1 : legendre(i - j, kPrime);
      found[size_t(i) * kOrder + size_t(j)] = int8_t(skew + (i == j));
    }
  return found;
}

// His second, order = 2 (prime + 1), prime = 1 mod 4: entries of the symmetric S with its border become 2 x 2 blocks.
template <size_t kOrder>
constexpr Matrix<kOrder> paley_second() {
  constexpr int kPrime = int(kOrder) / 2 - 1;
  constexpr int kDiagonal[2][2] = {{1, -1}, {-1, -1}}, kOther[2][2] = {{1, 1}, {1, -1}};
  Matrix<kOrder> found{};
  for (size_t i = 0; i < kOrder; ++i)
    for (size_t j = 0; j < kOrder; ++j) {
      const int a = int(i / 2), b = int(j / 2);
      const int entry = a == b ? 0 : a == 0 || b == 0 ? 1 : legendre(a - b, kPrime);
      found[i * kOrder + j] = int8_t(a == b ? kDiagonal[i % 2][j % 2] : entry * kOther[i % 2][j % 2]);
    }
  return found;
}

constexpr auto k12 = paley_first<12>();
constexpr auto k20 = paley_first<20>();
constexpr auto k28 = paley_second<28>();

// Butterflies over 2^k runs of `stride` floats.
void sum_and_difference(float* block, size_t runs, size_t stride) noexcept {
  for (size_t half = 1; half < runs; half *= 2)
    for (size_t first = 0; first < runs; first += 2 * half) {
      float* const a = block + first * stride;
      float* const b = a + half * stride;
      for (size_t i = 0; i < half * stride; ++i) {
        const float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum, b[i] = difference;
      }
    }
}

// signs: factor x factor floats of -1 and 1.
void multiply(float* run, size_t factor, const float* signs) noexcept {
  float sums[28] = {};
  for (size_t j = 0; j < factor; ++j)
    for (size_t i = 0; i < factor; ++i) sums[i] += signs[j * factor + i] * run[j];
  for (size_t i = 0; i < factor; ++i) run[i] = sums[i];
}

}  // namespace

HadamardLayout::HadamardLayout(size_t columns) {
  TERSOR_REQUIRE(columns > 0, Code::bad_call, "a rotation of 0 columns");
  const size_t power = size_t(1) << std::countr_zero(columns), odd = columns / power;
  block = power;
  if (power >= 4 && (odd == 3 || odd == 5 || odd == 7)) factor = 4 * odd, block = columns;
}

float hadamard_sign(uint64_t seed, size_t column) noexcept {
  uint64_t z = seed + (uint64_t(column) + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return (z ^ z >> 31) >> 63 ? -1.0f : 1.0f;
}

std::span<const int8_t> hadamard_factor(size_t order) {
  switch (order) {
    case 12: return k12;
    case 20: return k20;
    case 28: return k28;
    default: fail(Code::bad_call, "a Hadamard factor of order ", order, ", 12, 20 and 28 are known");
  }
}

void hadamard(std::span<float> matrix, size_t columns, std::optional<uint64_t> seed, bool inverse, int threads) {
  const HadamardLayout layout(columns);
  TERSOR_REQUIRE(matrix.size() % columns == 0, Code::bad_call, matrix.size(), " floats are no whole rows of ", columns);
  const size_t factor = layout.factor, runs = layout.block / factor;
  std::vector<float> signs(seed ? columns : 0), entries(factor * factor, 1.0f);
  for (size_t k = 0; k < signs.size(); ++k) signs[k] = hadamard_sign(*seed, k);
  if (factor > 1)
    for (size_t i = 0; i < factor; ++i)
      for (size_t j = 0; j < factor; ++j)  // as multiply reads them: entries of a column side by side
        entries[j * factor + i] = float(hadamard_factor(factor)[inverse ? j * factor + i : i * factor + j]);
  const float size = float(1 / std::sqrt(double(layout.block)));
  parallel_for(matrix.size() / columns, 1 + (size_t(1) << 14) / columns, threads, [&](size_t begin, size_t end) {
    for (size_t n = begin; n < end; ++n) {
      float* const row = matrix.data() + n * columns;
      if (!inverse)
        for (size_t k = 0; k < signs.size(); ++k) row[k] *= signs[k];
      for (float* block = row; block < row + columns; block += layout.block) {
        sum_and_difference(block, runs, factor);
        if (factor > 1)
          for (size_t r = 0; r < runs; ++r) multiply(block + r * factor, factor, entries.data());
        for (size_t i = 0; i < layout.block; ++i) block[i] *= size;
      }
      if (inverse)
        for (size_t k = 0; k < signs.size(); ++k) row[k] *= signs[k];
    }
  });
}

}  // namespace tersor::transform
