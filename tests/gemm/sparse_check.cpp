// Sparse weights and tables of a row's own: beside doubles, and the same bits on every level.
#include "gemm/sparse.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "gemm/products.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::gemm;
using namespace tersor::gemm::check;
using formats::Support;
using tersor::check::each_isa;
using tersor::check::error_of;

namespace {

struct SparseCase {
  size_t rows, columns, group;
  int bits;  // 0: numbers
  unsigned percent = 50;
  Support support = Support::bitmap;
  size_t keep = 0, span = 1;
  NumberKind kind = NumberKind::f16;  // of scales or numbers
};

struct MadeSparse {
  formats::Sparse view;
  std::vector<uint8_t> support, values, scales;
  std::vector<uint32_t> row_starts;
};

void put(std::vector<uint8_t>& bytes, NumberKind kind, float value) {
  uint8_t number[4];
  const uint16_t half = kind == NumberKind::f16 ? formats::f16_of_f32(value) : formats::bf16_of_f32(value);
  const size_t size = kind == NumberKind::f32 ? 4 : 2;
  std::memcpy(number, size == 4 ? static_cast<const void*>(&value) : &half, size);
  bytes.insert(bytes.end(), number, number + size);
}

void make(const SparseCase& shape, MadeSparse& made, uint32_t seed) {
  std::mt19937 random(seed);
  formats::Sparse& view = made.view;
  view = {};
  view.rows = shape.rows, view.columns = shape.columns, view.kind = shape.support;
  view.keep = shape.keep, view.span = shape.span;
  size_t kept = 0;
  made.row_starts.push_back(0);
  const bool nm = shape.support == Support::nm;
  const int position_bits = nm ? int(std::bit_width(shape.span - 1)) : 1;
  view.support_row_bytes = ((nm ? view.kept_a_row() * size_t(position_bits) : view.spans()) + 7) / 8;
  made.support.assign(shape.rows * view.support_row_bytes, 0);
  for (size_t n = 0; n < shape.rows; ++n) {
    size_t bit = n * view.support_row_bytes * 8;
    for (size_t s = 0; s < view.spans(); ++s) {
      const size_t size = std::min(shape.span, shape.columns - s * shape.span);
      if (nm) {
        const size_t keep = std::min(shape.keep, size), first = random() % (size - keep + 1);
        for (size_t j = 0; j < keep; ++j)
          for (int b = 0; b < position_bits; ++b, ++bit)
            made.support[bit / 8] |= uint8_t(((first + j) >> b & 1) << bit % 8);
        kept += keep;
      } else {
        const bool set = random() % 100 < shape.percent;
        made.support[bit / 8] |= uint8_t(unsigned(set) << bit % 8), ++bit;
        kept += set ? size : 0;
      }
    }
    made.row_starts.push_back(uint32_t(kept));
  }
  view.support = made.support.data();
  view.row_starts = nm ? nullptr : reinterpret_cast<const uint8_t*>(made.row_starts.data());
  view.bits = shape.bits, view.group = shape.group;
  view.value_kind = shape.bits ? NumberKind::none : shape.kind;
  if (shape.bits) {
    made.values.resize((kept * size_t(shape.bits) + 7) / 8 + 1);
    std::vector<uint8_t> codes(kept);
    for (auto& code : codes) code = uint8_t(random() % (1u << shape.bits));
    formats::pack_codes(codes.data(), {shape.bits, false}, kept, made.values.data());
    for (size_t i = 0; i < shape.rows * view.groups(); ++i)
      put(made.scales, shape.kind, 0.001f * float(1 + random() % 20));
    view.scales.kind = shape.kind, view.scales.data = made.scales.data(), view.scales.row_stride = view.groups();
  } else {
    for (size_t i = 0; i < kept; ++i) put(made.values, shape.kind, 0.01f * float(int(random() % 2000) - 1000));
  }
  view.values = made.values.data();
}

const SparseCase kShapes[] = {
    {48, 192, 64, 8},
    {33, 4304, 128, 4},
    {40, 1500, 1500, 4, 20},
    {40, 1500, 256, 8, 80, Support::bitmap, 0, 1, NumberKind::bf16},
    {70, 513, 16, 4, 50, Support::bitmap, 0, 1, NumberKind::f32},
    {1, 1, 1, 8, 100},
    {1, 1, 1, 4, 0},
    {40, 300, 32, 3},
    {40, 300, 300, 5, 0},
    {40, 300, 300, 6, 100},
    {40, 300, 128, 2, 100},
    {48, 1030, 128, 4, 0, Support::nm, 2, 4},
    {48, 1030, 1030, 8, 0, Support::nm, 3, 16},
    {48, 1030, 64, 8, 40, Support::block, 0, 8},
    {48, 1030, 64, 4, 40, Support::block, 0, 13},
};
const SparseCase kNumbers[] = {
    {48, 192, 192, 0},
    {33, 4304, 4304, 0, 30, Support::bitmap, 0, 1, NumberKind::bf16},
    {40, 300, 300, 0, 60, Support::bitmap, 0, 1, NumberKind::f32},
    {40, 300, 300, 0, 0, Support::nm, 2, 4},
    {40, 300, 300, 0, 50, Support::block, 0, 4},
};

}  // namespace

TEST_CASE("gemm sparse: codes of every support give what doubles give") {
  uint32_t seed = 0;
  for (const SparseCase& shape : kShapes) {
    MadeSparse made;
    make(shape, made, ++seed);
    Blob blob(made.view);
    for (const size_t tokens : {1, 3, 30}) {
      const auto x = gaussian(tokens * shape.columns, seed);
      for (const Activations activations : {Activations::int8, Activations::int8_g128, Activations::exact})
        CHECK(worst_error(made.view, x, tokens, product(x, tokens, blob, activations), activations) < 1e-6);
    }
  }
}

TEST_CASE("gemm sparse: numbers are multiplied as they are, and by exact activations only") {
  uint32_t seed = 50;
  for (const SparseCase& shape : kNumbers) {
    MadeSparse made;
    make(shape, made, ++seed);
    Blob blob(made.view);
    for (const size_t tokens : {1, 30}) {
      const auto x = gaussian(tokens * shape.columns, seed);
      each_isa([&] {
        CHECK(worst_error(made.view, x, tokens, product(x, tokens, blob, Activations::exact), Activations::exact) <
              1e-6);
      });
      CHECK(error_of([&] { product(x, tokens, blob, Activations::int8); }) ==
            "8 bits do not hold these levels: exact activations are needed");
    }
  }
}

TEST_CASE("gemm sparse: the same bits on every level, however many work, beside any other tokens") {
  uint32_t seed = 100;
  for (const SparseCase& shape : kShapes) {
    MadeSparse made;
    make(shape, made, ++seed);
    Blob blob(made.view, 3), alone(made.view, 1);
    CHECK(std::ranges::equal(blob.bytes(), alone.bytes()));
    const size_t most = 30;
    const auto x = gaussian(most * shape.columns, seed);
    for (const Activations activations : {Activations::int8, Activations::int8_g128}) {
      const auto want = product(x, most, blob, activations);
      each_isa([&] {
        for (const int threads : {1, 3})
          for (const size_t tokens : {1, 2, 3, 4, 5}) {
            const auto got = product(x, tokens, blob, activations, threads);
            CHECK(std::memcmp(got.data(), want.data(), 4 * got.size()) == 0);
          }
      });
    }
  }
}

TEST_CASE("gemm sparse: bytes that lie are refused, or nothing is read outside") {
  MadeSparse made;
  make({40, 200, 64, 4}, made, 1);
  Blob blob(made.view);
  const auto bytes = blob.bytes();
  const std::vector<float> x(5 * 200, 1);
  std::vector<uint8_t> y(5 * 160);
  const auto read = [&] {
    return error_of([&] {
      const Packed taken = Packed::parse(bytes);
      if (taken.head.rows != 40 || taken.head.columns != 200) return;
      for (const size_t tokens : {size_t(1), size_t(5)})
        for (const Activations activations : {Activations::int8, Activations::exact})
          one_linear(matrix_of(x, tokens, 200), taken, {DType::F32, nullptr, 0, 0}, activations, DType::F32,
                     {y.data(), tokens * 160}, 1);
    });
  };
  for (size_t i = 0; i < bytes.size(); i += i < sizeof(PackedHead) ? 1 : 7)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= uint8_t(1 << bit);
      read();
      bytes[i] ^= uint8_t(1 << bit);
    }
  CHECK(read() == "");
  const Packed packed = Packed::parse(bytes);
  const size_t tile = size_t(reinterpret_cast<const uint8_t*>(packed.kept.starts + packed.kept.pieces) - bytes.data());
  bytes[tile + 7] = 1;
  CHECK(read().find("tile 1 begins at ") != std::string::npos);
}

TEST_CASE("gemm: tables of a row's own, or of its groups', serve exact activations") {
  for (const size_t group : {size_t(64), size_t(300)})
    for (const bool by_group : {false, true}) {
      Made made;
      make({40, 300, group, 4}, made, 1);
      formats::Grid& grid = made.grid;
      const size_t tables = by_group ? grid.groups() : 1;
      made.levels = gaussian(40 * tables * 16, 2);
      grid.levels = made.levels.data();
      grid.level_row_stride = tables * 16, grid.level_group_stride = by_group ? 16 : 0, grid.step = 0;
      Blob blob(grid, 3);
      for (const size_t tokens : {1, 3, 30}) {
        const auto x = gaussian(tokens * 300, 3);
        each_isa([&] {
          CHECK(worst_error(made, x, tokens, product(x, tokens, blob, Activations::exact), Activations::exact) < 1e-6);
        });
        CHECK(error_of([&] { product(x, tokens, blob, Activations::int8); }) ==
              "8 bits do not hold these levels: exact activations are needed");
      }
      const auto bytes = blob.bytes();
      const auto x = gaussian(300, 4);
      for (size_t i = 0; i < 8 * sizeof(PackedHead); ++i) {
        bytes[i / 8] ^= uint8_t(1 << i % 8);
        const std::string error = error_of([&] {
          const Packed taken = Packed::parse(bytes);
          if (taken.head.rows == 40 && taken.head.columns == 300) product(x, 1, blob, Activations::exact);
        });
        bytes[i / 8] ^= uint8_t(1 << i % 8);
      }
    }
}
