// Rows and codes that come back from packed matrices, beside the grids that were packed.
#include "gemm/rows.h"

#include <cstring>
#include <memory>
#include <new>

#include "check.h"
#include "gemm/grids.h"
#include "gemm/tokens.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::gemm;
using formats::CodeWidth;
using formats::NumberKind;
using gemm::check::Made;
using gemm::check::Wanted;
using tersor::check::error_of;

namespace {

struct Free {
  void operator()(uint8_t* at) const { ::operator delete[](at, std::align_val_t(64)); }
};

struct Blob {
  explicit Blob(const formats::Grid& grid) : size(packed_bytes(grid)) {
    data.reset(new (std::align_val_t(64)) uint8_t[size]);
    pack(grid, {data.get(), size}, 1);
    packed = Packed::parse({data.get(), size});
  }
  size_t size;
  std::unique_ptr<uint8_t[], Free> data;
  Packed packed;
};

std::vector<uint8_t> dequantized(const formats::Grid& grid, DType dtype) {
  std::vector<float> row(grid.columns);
  std::vector<uint8_t> out(grid.rows * grid.columns * dtype_bytes(dtype));
  for (size_t n = 0; n < grid.rows; ++n) {
    grid.dequantize(n, 0, grid.columns, row.data());
    from_floats(dtype, row.data(), row.size(), out.data() + n * grid.columns * dtype_bytes(dtype));
  }
  return out;
}

Made some(Wanted wanted) {
  Made made;
  make(wanted, made, 7);
  return made;
}

void every_row_comes_back(const Made& made) {
  const formats::Grid& grid = made.grid;
  Blob blob(grid);
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    const auto want = dequantized(grid, dtype);
    for (const int threads : {1, 3}) {
      std::vector<uint8_t> got(want.size());
      dequantize_rows(blob.packed, 0, grid.rows, dtype, got, threads);
      CHECK(got == want);
    }
  }
  const auto want = dequantized(grid, DType::F32);
  const std::vector<int64_t> ids{int64_t(grid.rows - 1), 0, int64_t(grid.rows / 2), 0};
  const size_t row_bytes = 4 * grid.columns;
  std::vector<uint8_t> got(ids.size() * row_bytes);
  dequantize_rows(blob.packed, ids, DType::F32, got, 2);
  for (size_t i = 0; i < ids.size(); ++i)
    CHECK(std::memcmp(got.data() + i * row_bytes, want.data() + size_t(ids[i]) * row_bytes, row_bytes) == 0);
  std::vector<uint8_t> codes(made.codes.size());
  codes_of(blob.packed, {grid.bits, grid.trits}, codes, 2);
  CHECK(codes == made.codes);
}

}  // namespace

TEST_CASE("gemm/rows: every width and kind of numbers comes back bit for bit") {
  for (const int bits : {1, 2, 3, 4, 5, 6, 8})
    for (const auto kind : {NumberKind::f32, NumberKind::f16, NumberKind::bf16, NumberKind::e8m0})
      for (const size_t columns : {size_t(1), size_t(48), size_t(300)})
        for (const int offsets : {0, 1, 2})
          every_row_comes_back(some({.rows = 37,
                                     .columns = columns,
                                     .group = 32,
                                     .bits = bits,
                                     .scale = kind,
                                     .zeros = offsets == 1,
                                     .minimums = offsets == 2,
                                     .looked_up = offsets == 0}));
  every_row_comes_back(some({.rows = 64, .columns = 530, .group = 16, .bits = 5}));
  every_row_comes_back(some({.rows = 3, .columns = 700, .group = 700, .bits = 3}));
}

TEST_CASE("gemm/rows: trits come back five a byte") {
  std::mt19937 random(1);
  Made made = some({.rows = 33, .columns = 77, .group = 77, .bits = 2});
  formats::Grid& grid = made.grid;
  const CodeWidth width{2, true};
  grid.trits = true, grid.row_bytes = width.row_bytes(grid.columns), grid.center = 1;
  made.codes.assign(grid.rows * grid.row_bytes, 0);
  std::vector<uint8_t> row(grid.columns);
  for (size_t n = 0; n < grid.rows; ++n) {
    for (auto& code : row) code = uint8_t(random() % 3);
    formats::pack_codes(row.data(), width, row.size(), made.codes.data() + n * grid.row_bytes);
  }
  grid.codes = made.codes.data();
  for (size_t c = 0; c < 3; ++c) made.levels[c] = float(int(c) - 1);
  every_row_comes_back(made);
}

TEST_CASE("gemm/rows: fp8 scales under a tensor's, and steps that are no power of two") {
  for (const auto& [step, factor] : {std::pair{0.5f, 0.3f}, {0.125f, 1e-3f}, {1 / 127.0f, 1.0f}}) {
    Made made = some({.rows = 35, .columns = 96, .group = 16, .bits = 4, .scale = NumberKind::bf16});
    formats::Grid& grid = made.grid;
    grid.step = step;
    for (size_t c = 0; c < 16; ++c) made.levels[c] = step * float(int(c) - grid.center);
    if (factor != 1) {
      made.scales.assign(grid.rows * grid.groups(), 0);
      for (size_t i = 0; i < made.scales.size(); ++i) made.scales[i] = uint8_t(i % 0x7f);
      grid.scales.kind = NumberKind::e4m3, grid.scales.data = made.scales.data(), grid.scales.factor = factor;
    }
    every_row_comes_back(made);
  }
}

TEST_CASE("gemm/rows: what is refused") {
  Made made = some({.rows = 8, .columns = 64, .group = 32});
  Blob blob(made.grid);
  std::vector<uint8_t> out(64 * 4);
  const std::vector<int64_t> beyond{8}, below{-1};
  const auto rows = [&](const std::vector<int64_t>& ids) { dequantize_rows(blob.packed, ids, DType::F32, out, 1); };
  const auto says = [](const std::string& text, const char* wanted) { return text.find(wanted) != std::string::npos; };
  CHECK(says(error_of([&] { rows(beyond); }), "id 8 at 0: rows are 0..7"));
  CHECK(says(error_of([&] { rows(below); }), "id -1 at 0: rows are 0..7"));
  CHECK(says(error_of([&] { rows({1, 2}); }), "out has 256 bytes, 2 rows of 256 are needed"));
  CHECK(says(error_of([&] { dequantize_rows(blob.packed, 8, 1, DType::F32, out, 1); }), "the matrix has 8"));
  CHECK(says(error_of([&] { dequantize_rows(blob.packed, 1, ~size_t(0), DType::F32, out, 1); }), "the matrix has 8"));
  CHECK(says(error_of([&] { dequantize_rows(blob.packed, 0, 1, DType::I32, out, 1); }), "I32"));
  CHECK(says(error_of([&] { codes_of(blob.packed, {3, false}, out, 1); }), "codes of 3 bits are asked"));
  CHECK(says(error_of([&] { codes_of(blob.packed, {4, false}, std::span(out).first(255), 1); }), "out has 255 bytes"));
}
