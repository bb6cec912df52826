// Every row of kernels that this machine runs beside the scalar ones, called as they are: rows that a level has for
// machines of less are not reached through the driver.
#include "gemm/kernels.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::gemm;

namespace {

template <class F>
void each_row(const F& f) {
  for (size_t row = 1; row < kKernelRowCount; ++row)
    if (kKernelRows[row].level <= machine_isa() && (!kKernelRows[row].runs || kKernelRows[row].runs()))
      f(*kKernelRows[row].kernels);
}

struct Shape {
  int bits;
  bool looked_up;
  size_t steps, group_halves, groups_a_scale;
  PackedScale scale;
  bool zeros, minimums, x_scales, first, most;  // most: numbers of the greatest size, which fill 16 bits
};

// A tile of its own memory, with random contents.
struct Made {
  std::vector<uint8_t> codes, lookup, integers, scales, zeros, minimums;
  std::vector<int8_t> x;
  std::vector<int32_t> sums;
  std::vector<float> x_scales;
  IntegerTile tile{};

  Made(const Shape& shape, uint32_t seed) {
    std::mt19937 random(seed);
    const auto bytes = [&](size_t count) {
      std::vector<uint8_t> made(count);
      for (auto& byte : made) byte = uint8_t(random());
      return made;
    };
    const size_t columns = shape.steps * kStepColumns, group = shape.group_halves * 16;
    const size_t groups = (columns + group - 1) / group, stored = (groups - 1) / shape.groups_a_scale + 1;
    codes = shape.most ? std::vector<uint8_t>(shape.steps * 128 * size_t(shape.bits), 0xff)
                       : bytes(shape.steps * 128 * size_t(shape.bits));
    lookup = shape.most ? std::vector<uint8_t>(256, 0xff) : bytes(256);
    tile.bits = shape.bits, tile.lookup = shape.looked_up ? lookup.data() : nullptr;
    tile.center = shape.most ? 0 : int(random() % 256);
    tile.codes = codes.data(), tile.steps = shape.steps;
    tile.group_halves = shape.group_halves, tile.groups_a_scale = shape.groups_a_scale;
    tile.scale_kind = shape.scale;
    const auto numbers = [&](std::vector<uint8_t>& made) {
      const size_t size = shape.scale == PackedScale::f32 ? 4 : shape.scale == PackedScale::e8m0 ? 1 : 2;
      made.assign(stored * kTileRows * size, 0);
      for (size_t i = 0; i < stored * kTileRows; ++i) {
        const float value = std::ldexp(float(random() % 2000) - 1000, -16);  // with f16's smallest among them
        const uint16_t half =
            shape.scale == PackedScale::f16 ? formats::f16_of_f32(value) : formats::bf16_of_f32(value);
        const uint8_t power = uint8_t(i % 7 == 0 ? 0 : 120 + random() % 10);
        std::memcpy(made.data() + i * size,
                    size == 4   ? static_cast<const void*>(&value)
                    : size == 2 ? static_cast<const void*>(&half)
                                : &power,
                    size);
      }
      return Numbers{made.data(), kTileRows * size};
    };
    tile.scales = numbers(scales);
    if (shape.minimums) tile.minimums = numbers(minimums);
    if (shape.zeros) zeros = bytes(stored * kTileRows), tile.zeros = {zeros.data(), kTileRows};
    tile.x_stride = columns + 64;
    x.resize(kMostTokens * tile.x_stride);
    for (auto& value : x) value = int8_t(shape.most ? (random() % 2 ? 127 : -127) : int(random() % 255) - 127);
    // Whole pairs of the same sign, or products of 16 bits would not be as large as they may.
    for (size_t i = 0; shape.most && i < x.size(); i += 64) std::memset(x.data() + i, x[i], 64);
    tile.x = x.data(), tile.sums_stride = groups + 1;
    sums.resize(kMostTokens * tile.sums_stride), x_scales.resize(sums.size());
    for (size_t token = 0; token < kMostTokens; ++token)
      kScalarKernels.sum_groups(x.data() + token * tile.x_stride, columns, group,
                                sums.data() + token * tile.sums_stride);
    for (auto& scale : x_scales) scale = float(random() % 100) / 1000;
    tile.sums = sums.data(), tile.x_scales = shape.x_scales ? x_scales.data() : nullptr;
    tile.first = shape.first;
    integers.resize(shape.steps * 1024);
    kScalarKernels.integer_panel(tile.bits, tile.lookup, tile.codes, tile.steps, integers.data());
  }
  std::vector<float> product(const Kernels& kernels, bool in_place, size_t tokens) const {
    std::vector<float> y(kMostTokens * kTileRows, 0.25f);
    IntegerTile t = tile;
    if (!in_place) t.bits = 8, t.lookup = nullptr, t.codes = integers.data();
    t.y = y.data();
    kernels.integer_tile(t, tokens);
    return y;
  }
};

const Shape kShapes[] = {
    {4, false, 8, 8, 1, PackedScale::f16, false, false, false, true, false},
    {4, false, 7, 1, 1, PackedScale::bf16, true, false, true, false, false},
    {4, false, 5, 3, 2, PackedScale::f32, false, true, true, true, false},
    {4, false, 16, 32, 1, PackedScale::e8m0, false, false, false, false, true},
    {4, true, 3, 2, 1, PackedScale::e8m0, false, false, false, true, false},
    {8, false, 9, 8, 2, PackedScale::f16, true, true, true, true, false},
    {8, false, 5, 1, 3, PackedScale::bf16, false, true, false, false, false},
    {8, false, 16, 32, 1, PackedScale::f32, false, false, false, true, true},
    {8, true, 4, 2, 1, PackedScale::f32, false, false, false, true, false},
    {1, false, 3, 2, 1, PackedScale::f16, false, false, false, true, false},
    {1, true, 3, 1, 1, PackedScale::f16, false, false, false, true, false},
    {2, false, 5, 4, 1, PackedScale::f16, true, false, false, true, false},
    {2, true, 5, 4, 1, PackedScale::f16, false, false, false, true, false},
    {3, false, 5, 2, 1, PackedScale::f32, false, true, true, true, false},
    {3, true, 5, 2, 1, PackedScale::f32, false, false, false, true, false},
    {5, false, 5, 8, 1, PackedScale::f16, false, false, false, true, false},
    {5, true, 5, 8, 1, PackedScale::f16, false, false, false, true, false},
    {6, false, 5, 8, 1, PackedScale::f16, false, false, false, false, true},
    {6, true, 5, 8, 1, PackedScale::f16, false, false, true, true, true},
};

}  // namespace

TEST_CASE("gemm kernels: tiles of every row have the bits of the scalar ones") {
  uint32_t seed = 0;
  for (const Shape& shape : kShapes) {
    const Made made(shape, ++seed);
    for (size_t tokens = 1; tokens <= kMostTokens; ++tokens) {
      const auto want = made.product(kScalarKernels, false, tokens);
      each_row([&](const Kernels& kernels) {
        CHECK(std::memcmp(made.product(kernels, false, tokens).data(), want.data(), 4 * want.size()) == 0);
        if ((shape.looked_up ? kernels.looked_up_widths : kernels.widths) >> shape.bits & 1)
          CHECK(std::memcmp(made.product(kernels, true, tokens).data(), want.data(), 4 * want.size()) == 0);
      });
    }
  }
}

TEST_CASE("gemm kernels: panels, and x read in 8 bits, are those of the scalar ones") {
  uint32_t seed = 100;
  for (const Shape& shape : kShapes) {
    const Made made(shape, ++seed);
    each_row([&](const Kernels& kernels) {
      std::vector<uint8_t> got(made.integers.size(), 0xaa);
      kernels.integer_panel(shape.bits, made.tile.lookup, made.tile.codes, shape.steps, got.data());
      CHECK(got == made.integers);
    });
  }
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const float size : {1.0f, 1e-30f, 1e-44f, 0.0f, INFINITY, NAN})
    for (const size_t columns : {1, 7, 8, 15, 16, 17, 100, 333}) {
      std::vector<float> x(columns);  // nothing behind it is read
      for (auto& value : x) value = normal(random) * (std::isfinite(size) ? size : 1);
      if (!std::isfinite(size)) x[columns / 2] = size;
      if (columns > 40) x[3] = x[5] / 2, x[columns - 1] = -0.0f;
      const size_t padded = (columns + 31) / 16 * 16;
      std::vector<int8_t> want(padded, 1);
      std::vector<int32_t> want_sums(padded / 16);
      const float want_scale = kScalarKernels.quantize(x.data(), columns, padded, want.data());
      each_row([&](const Kernels& kernels) {
        std::vector<int8_t> got(padded, 2);
        const float scale = kernels.quantize(x.data(), columns, padded, got.data());
        CHECK(got == want && (scale == want_scale || (std::isnan(scale) && std::isnan(want_scale))));
        for (const size_t group : {16, 32, 128}) {
          std::vector<int32_t> sums(want_sums.size());
          kScalarKernels.sum_groups(want.data(), padded, group, want_sums.data());
          kernels.sum_groups(want.data(), padded, group, sums.data());
          CHECK(std::memcmp(sums.data(), want_sums.data(), 4 * ((padded - 1) / group + 1)) == 0);
        }
      });
    }
}
