// The GPU's bodies of grids and vector codebooks on the host: dequantized, the bits of the formats' readers; times
// tokens, beside doubles.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "formats/code_rows.h"
#include "formats/codebook.h"
#include "formats/small_float.h"
#include "gemm/grid_warp.cuh"
#include "gemm/vectors_warp.cuh"

using namespace tersor;
using namespace tersor::gemm;
using formats::NumberKind;

namespace {

const cuda::HostWarp kWarp;

// An array whose begin is `shift` elements behind a multiple of 16 bytes and whose end is its block's, where a
// sanitizer sees what lies beyond.
template <class T>
struct Shifted {
  Shifted(size_t count, size_t shift) : held(count + shift), at(held.data() + shift) {}
  std::vector<T> held;
  T* at;
};

float random_number(std::mt19937& random, float most) { return most * (float(random() % 2001) / 1000 - 1); }

struct Numbers {
  std::vector<uint8_t> data, supers;
  formats::GroupNumbers view;
};

void make(Numbers& numbers, NumberKind kind, size_t rows, size_t groups, std::mt19937& random) {
  numbers.view = {};
  numbers.view.kind = kind, numbers.view.row_stride = groups;
  const auto put = [](std::vector<uint8_t>& bytes, auto number) {
    const auto* at = reinterpret_cast<const uint8_t*>(&number);
    bytes.insert(bytes.end(), at, at + sizeof number);
  };
  for (size_t i = 0; i < rows * groups; ++i) {
    const float value = random_number(random, 0.03f);
    switch (kind) {
      case NumberKind::none: return;
      case NumberKind::f32: put(numbers.data, value); break;
      case NumberKind::f16: put(numbers.data, formats::f16_of_f32(value)); break;
      case NumberKind::bf16: put(numbers.data, formats::bf16_of_f32(value)); break;
      case NumberKind::e8m0: put(numbers.data, uint8_t(110 + random() % 20)); break;
      case NumberKind::e4m3: put(numbers.data, formats::kE4M3.code(1000 * value)); break;
      case NumberKind::super: put(numbers.data, uint8_t(random() % 64)); break;
      case NumberKind::u8: put(numbers.data, uint8_t(random())); break;
    }
  }
  if (kind == NumberKind::e4m3) numbers.view.factor = 0.0173f;
  if (kind == NumberKind::super) {
    numbers.view.supers_span = 3, numbers.view.supers_row_stride = (groups + 2) / 3;
    for (size_t i = 0; i < rows * numbers.view.supers_row_stride; ++i)
      put(numbers.supers, formats::f16_of_f32(random_number(random, 0.001f)));
  }
  numbers.view.data = numbers.data.data(), numbers.view.supers = numbers.supers.data();
}

enum class Tables { one, row, group };

struct Wish {
  size_t rows, columns, group;
  int bits;
  bool trits = false;
  NumberKind scale = NumberKind::f16;
  bool zeros = false;
  NumberKind minimum = NumberKind::none;
  Tables tables = Tables::one;
};

struct MadeGrid {
  formats::Grid grid;
  Numbers scales, zeros, minimums;
  std::vector<float> levels;
  std::unique_ptr<Shifted<uint8_t>> codes;
};

// shift: bytes that the codes lie behind a multiple of 16.
void make(MadeGrid& made, const Wish& wish, size_t shift, std::mt19937& random) {
  formats::Grid& grid = made.grid;
  const formats::CodeWidth width{wish.bits, wish.trits};
  grid.rows = wish.rows, grid.columns = wish.columns, grid.group = wish.group;
  grid.bits = wish.bits, grid.trits = wish.trits, grid.row_bytes = width.row_bytes(wish.columns);
  made.codes = std::make_unique<Shifted<uint8_t>>(wish.rows * grid.row_bytes, shift);
  std::vector<uint8_t> row(wish.columns);
  for (size_t n = 0; n < wish.rows; ++n) {
    for (auto& code : row) code = uint8_t(random() % width.codes());
    formats::pack_codes(row.data(), width, row.size(), made.codes->at + n * grid.row_bytes);
  }
  grid.codes = made.codes->at;
  const size_t groups = grid.groups();
  if (wish.tables == Tables::row) grid.level_row_stride = width.codes();
  if (wish.tables == Tables::group)
    grid.level_row_stride = groups * width.codes(), grid.level_group_stride = width.codes();
  made.levels.resize(width.codes() * (wish.tables == Tables::one   ? 1
                                      : wish.tables == Tables::row ? wish.rows
                                                                   : wish.rows * groups));
  for (size_t i = 0; i < made.levels.size(); ++i)
    made.levels[i] = wish.zeros ? float(i % width.codes()) : random_number(random, 3);
  made.levels[0] = -0.0f;
  grid.levels = made.levels.data();
  make(made.scales, wish.scale, wish.rows, groups, random);
  make(made.zeros, wish.zeros ? NumberKind::u8 : NumberKind::none, wish.rows, groups, random);
  make(made.minimums, wish.minimum, wish.rows, groups, random);
  grid.scales = made.scales.view, grid.zeros = made.zeros.view, grid.minimums = made.minimums.view;
}

// What both kinds of matrices are to the checks.
struct Subject {
  size_t rows, columns;
  std::vector<float> weights;  // by the formats' reader
  std::vector<float> sizes;    // of what is added up to a weight
};

template <class X>
std::vector<float> values_of(const X* elements, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = value_of(elements[i]);
  return values;
}

// dequantize(row, out): of the body, of which there are a hundred; this is compiled once.
template <class Y>
bool same_weights(const Subject& subject, size_t shift, const std::function<void(uint32_t, Y*)>& dequantize) {
  Shifted<Y> out(subject.weights.size(), shift);
  for (size_t n = 0; n < subject.rows; ++n) dequantize(uint32_t(n), out.at + n * subject.columns);
  for (size_t i = 0; i < subject.weights.size(); ++i) {
    if constexpr (sizeof(Y) == 4) {
      if (std::bit_cast<uint32_t>(out.at[i]) != std::bit_cast<uint32_t>(subject.weights[i])) return false;
    } else {
      if (out.at[i].bits != formats::bf16_of_f32(subject.weights[i])) return false;
    }
  }
  return true;
}

// gemv(row, x, y): of the body. The largest error beside the sum of the sizes of what is added, less half a step of y.
template <class X>
double worst_error(const Subject& subject, size_t tokens, size_t shift, std::mt19937& random,
                   const std::function<void(uint32_t, const X*, X*)>& gemv) {
  Shifted<X> x(tokens * subject.columns, shift), y(tokens * subject.rows, shift);
  for (size_t i = 0; i < tokens * subject.columns; ++i) set(x.at[i], random_number(random, 2));
  for (size_t i = 0; i < tokens * subject.rows; ++i) set(y.at[i], 1e9f);
  for (size_t n = 0; n < subject.rows; ++n) gemv(uint32_t(n), x.at, y.at);
  const auto read = values_of(x.at, tokens * subject.columns), found = values_of(y.at, tokens * subject.rows);
  double worst = 0;
  for (size_t m = 0; m < tokens; ++m)
    for (size_t n = 0; n < subject.rows; ++n) {
      double want = 0, size = 1e-30;
      for (size_t k = 0; k < subject.columns; ++k) {
        const double value = double(read[m * subject.columns + k]);
        want += value * double(subject.weights[n * subject.columns + k]);
        size += std::fabs(value) * double(subject.sizes[n * subject.columns + k]);
      }
      const double error = std::fabs(want - double(found[m * subject.rows + n]));
      worst = std::max(worst, (error - (sizeof(X) == 2 ? std::fabs(want) / 256 : 0)) / size);
    }
  return worst;
}

Subject subject_of(const formats::Grid& grid) {
  Subject subject{grid.rows, grid.columns, {}, {}};
  subject.weights.resize(grid.rows * grid.columns), subject.sizes.resize(grid.rows * grid.columns);
  for (size_t n = 0; n < grid.rows; ++n) {
    float* const row = subject.weights.data() + n * grid.columns;
    grid.dequantize(n, 0, grid.columns, row);
    for (size_t k = 0; k < grid.columns; ++k) {
      const float minimum = grid.minimums.at(n, k / grid.group);
      subject.sizes[n * grid.columns + k] = std::fabs(row[k] - minimum) + std::fabs(minimum);
    }
  }
  return subject;
}

// f(number of tokens as a constant): all of them in float32; bfloat16 differs from it in how elements are read, which
// three show, and compiles the faster.
template <class X, class F>
void each_count(F&& f) {
  if constexpr (sizeof(X) == 4)
    for (uint32_t tokens = 1; tokens <= kMostWarpTokens; ++tokens) with_tokens(tokens, f);
  else
    f(Constant<3>{});
}

template <class X>
void check_grid(const formats::Grid& grid, const Subject& subject, size_t shift, std::mt19937& random) {
  const WarpGrid view = warp_grid_of(grid);
  with_codes(view, [&](auto codes) {
    using Codes = decltype(codes);
    CHECK(same_weights<X>(
        subject, shift, [&](uint32_t row, X* out) { dequantize_row_warp<Codes>(kWarp, view, view.levels, row, out); }));
    each_count<X>([&](auto count) {
      constexpr uint32_t kTokens = decltype(count)::value;
      CHECK(worst_error<X>(subject, kTokens, shift, random, [&](uint32_t row, const X* x, X* y) {
              gemv_row_warp<Codes, kTokens>(kWarp, view, view.levels, row, x, y);
            }) < 1e-6);
    });
  });
}

struct MadeVectors {
  formats::VectorCodes codes;
  Numbers scales;
  std::vector<Half> codebook;
  std::unique_ptr<Shifted<uint8_t>> packed;

  WarpVectors view() const {
    return {uint32_t(codes.rows),
            uint32_t(codes.columns),
            uint32_t(codes.dimension),
            uint32_t(codes.stages),
            uint32_t(codes.entries),
            uint32_t(codes.bits),
            codes.codes,
            codes.row_bytes,
            codebook.data(),
            codes.scales};
  }
};

void make(MadeVectors& made, size_t rows, size_t columns, int dimension, int stages, size_t entries, size_t shift,
          std::mt19937& random) {
  formats::VectorCodes& codes = made.codes;
  codes.rows = rows, codes.columns = columns, codes.dimension = dimension, codes.stages = stages;
  codes.entries = entries, codes.bits = int(std::bit_width(entries - 1));
  const size_t vectors = codes.vectors();
  codes.row_bytes = (vectors * size_t(codes.bits) + 7) / 8;
  std::vector<uint16_t> all(size_t(stages) * rows * vectors);
  for (auto& code : all) code = uint16_t(random() % entries);
  all.back() = uint16_t(entries - 1);
  made.packed = std::make_unique<Shifted<uint8_t>>(size_t(stages) * rows * codes.row_bytes, shift);
  formats::pack_wide_rows(all, codes.bits, entries, size_t(stages) * rows, vectors,
                          {made.packed->at, size_t(stages) * rows * codes.row_bytes}, 1);
  codes.codes = made.packed->at;
  made.codebook.resize(size_t(stages) * entries * size_t(dimension));
  for (auto& half : made.codebook) half.bits = formats::f16_of_f32(random_number(random, random() % 4 ? 2.0f : 3e-5f));
  codes.codebook = reinterpret_cast<const uint8_t*>(made.codebook.data());
  make(made.scales, NumberKind::f16, rows, 1, random);
  codes.scales = made.scales.view;
}

Subject subject_of(const formats::VectorCodes& codes) {
  Subject subject{codes.rows, codes.columns, {}, {}};
  subject.weights.resize(codes.rows * codes.columns);
  for (size_t n = 0; n < codes.rows; ++n)
    codes.dequantize(n, 0, codes.columns, subject.weights.data() + n * codes.columns);
  for (const float weight : subject.weights) subject.sizes.push_back(std::fabs(weight));
  return subject;
}

template <class X>
void check_vectors(const MadeVectors& made, const Subject& subject, size_t shift, std::mt19937& random) {
  const WarpVectors view = made.view();
  with_dimension(view.dimension, [&](auto dimension) {
    constexpr uint32_t kDimension = decltype(dimension)::value;
    CHECK(same_weights<X>(subject, shift, [&](uint32_t row, X* out) {
      dequantize_row_warp<kDimension>(kWarp, view, view.codebook, row, out);
    }));
    each_count<X>([&](auto count) {
      constexpr uint32_t kTokens = decltype(count)::value;
      CHECK(worst_error<X>(subject, kTokens, shift, random, [&](uint32_t row, const X* x, X* y) {
              gemv_row_warp<kDimension, kTokens>(kWarp, view, view.codebook, row, x, y);
            }) < 1e-6);
    });
  });
}

}  // namespace

TEST_CASE("gemm warp: small floats are the formats'") {
  const auto same = [](float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); };
  int wrong = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7c00) != 0x7c00) wrong += !same(value_of(Half{uint16_t(bits)}), formats::f32_of_f16(uint16_t(bits)));
    wrong += !same(value_of(Bf16{uint16_t(bits)}), formats::f32_of_bf16(uint16_t(bits)));
  }
  for (uint32_t byte = 0; byte < 255; ++byte) {
    wrong += !same(value_of_e8m0(uint8_t(byte)), formats::f32_of_e8m0(uint8_t(byte)));
    if ((byte & 0x7f) != 0x7f) wrong += !same(value_of_e4m3(uint8_t(byte)), formats::kE4M3.value(uint8_t(byte)));
  }
  std::mt19937 random(1);
  for (int round = 0; round < 100000; ++round) {  // a quarter of them ties
    const uint32_t bits = round % 4 ? uint32_t(random()) : uint32_t(random()) << 16 | 0x8000;
    Bf16 found;
    set(found, std::bit_cast<float>(bits));
    wrong += found.bits != formats::bf16_of_f32(std::bit_cast<float>(bits));
  }
  for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::max(), -0.0f}) {
    Bf16 found;
    set(found, value);
    wrong += found.bits != formats::bf16_of_f32(value);
  }
  CHECK(wrong == 0);
}

TEST_CASE("gemm warp: lanes are summed, each once") {
  cuda::HostWarp::reg<float> values;
  float want = 0;
  for (uint32_t lane = 0; lane < cuda::kWarpLanes; ++lane) {
    values[lane] = float(1u << (lane % 16)) * (lane < 16 ? 1 : 3);
    want += values[lane];
  }
  CHECK(kWarp.sum(values) == want);
}

TEST_CASE("gemm warp: grids of every width, with tails, short groups and rows that begin anywhere") {
  std::mt19937 random(2);
  for (const int bits : {0, 1, 2, 3, 4, 5, 6, 8})  // 0: trits
    for (const size_t columns : {1, 7, 16, 31, 32, 33, 40, 41, 255, 256, 1280, 1281, 2600, 4304})
      for (const size_t shift : {0, 1, 3}) {
        MadeGrid made;
        Wish wish{3, columns, columns % 3 ? size_t(16) : columns, bits ? bits : 2, bits == 0};
        wish.zeros = columns % 2 != 0, wish.minimum = columns % 4 < 2 ? NumberKind::f16 : NumberKind::none;
        make(made, wish, shift, random);
        const Subject subject = subject_of(made.grid);
        check_grid<float>(made.grid, subject, shift, random);
        check_grid<Bf16>(made.grid, subject, shift, random);
      }
}

TEST_CASE("gemm warp: grids with numbers of every kind, and a table a row or group") {
  std::mt19937 random(3);
  for (const NumberKind scale :
       {NumberKind::f32, NumberKind::f16, NumberKind::bf16, NumberKind::e8m0, NumberKind::e4m3, NumberKind::super})
    for (const NumberKind minimum : {NumberKind::none, NumberKind::f32, NumberKind::super})
      for (const size_t group : {16, 32, 64, 128, 256, 700})
        for (const Tables tables : {Tables::one, Tables::row, Tables::group}) {
          MadeGrid made;
          make(made, {5, 700, group, 4, false, scale, group != 64, minimum, tables}, 0, random);
          const Subject subject = subject_of(made.grid);
          check_grid<float>(made.grid, subject, 0, random);
        }
  MadeGrid made;  // numbers that all rows share
  make(made, {5, 700, 700, 8}, 0, random);
  made.grid.scales.row_stride = 0;
  check_grid<float>(made.grid, subject_of(made.grid), 0, random);
}

TEST_CASE("gemm warp: a token that is not finite leaves the others alone") {
  std::mt19937 random(4);
  MadeGrid made;
  make(made, {4, 333, 32, 3}, 0, random);
  const WarpGrid view = warp_grid_of(made.grid);
  std::vector<float> x(3 * 333), clean(3 * 4), y(3 * 4);
  for (float& value : x) value = random_number(random, 1);
  for (uint32_t row = 0; row < 4; ++row)
    gemv_row_warp<BitCodes<3>, 3>(kWarp, view, view.levels, row, x.data(), clean.data());
  x[2 * 333 - 1] = std::numeric_limits<float>::quiet_NaN();
  for (uint32_t row = 0; row < 4; ++row)
    gemv_row_warp<BitCodes<3>, 3>(kWarp, view, view.levels, row, x.data(), y.data());
  for (size_t n = 0; n < 4; ++n) CHECK(y[n] == clean[n] && std::isnan(y[4 + n]) && y[8 + n] == clean[8 + n]);
}

TEST_CASE("gemm warp: a grid that the bodies do not take is refused") {
  std::mt19937 random(5);
  MadeGrid made;
  for (const size_t group : {1, 8, 31, 48}) {
    make(made, {1, 100, group, 4}, 0, random);
    CHECK(check::error_of([&] { warp_grid_of(made.grid); }).find("power of two") != std::string::npos);
  }
  make(made, {1, 31, 31, 4}, 0, random);
  CHECK(check::error_of([&] { warp_grid_of(made.grid); }).empty());
  made.grid.columns = size_t(1) << 31;
  CHECK(!check::error_of([&] { warp_grid_of(made.grid); }).empty());
  WarpGrid seven{};
  seven.bits = 7;
  CHECK(check::error_of([&] { with_codes(seven, [](auto) {}); }).find("7 bits") != std::string::npos);
  CHECK(check::error_of([&] { with_tokens(5, [](auto) {}); }).find("not 5") != std::string::npos);
  CHECK(check::error_of([&] { with_dimension(9, [](auto) {}); }).find("not 9") != std::string::npos);
}

TEST_CASE("gemm warp: vectors of every dimension and number of stages, with tails and rows that begin anywhere") {
  std::mt19937 random(6);
  for (int dimension = formats::kLeastDimension; dimension <= formats::kMostDimension; ++dimension)
    for (int stages = 1; stages <= formats::kMostStages; ++stages)
      for (const size_t entries : {2, 3, 16, 100, 256, 1500, 4096})
        for (const size_t columns : {1, 9, 64, 301}) {
          MadeVectors made;
          const size_t shift = random() % 4;
          make(made, 3, columns, dimension, stages, entries, shift, random);
          const Subject subject = subject_of(made.codes);
          check_vectors<float>(made, subject, shift, random);
          check_vectors<Bf16>(made, subject, shift, random);
        }
}
