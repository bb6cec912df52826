#include "gemm/linear.h"

#include <cmath>
#include <cstring>

#include "check.h"
#include "gemm/kernels.h"
#include "gemm/products.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::gemm;
using formats::NumberKind;
using namespace tersor::gemm::check;
using tersor::check::each_isa;
using tersor::check::error_of;

TEST_CASE("gemm: integers of every width and group give what doubles give") {
  uint32_t seed = 0;
  for (const Wanted& wanted : kEveryGrid) {
    Made made;
    make(wanted, made, ++seed);
    Blob blob(made.grid);
    for (const Activations activations : {Activations::int8, Activations::int8_g128})
      for (const size_t tokens : {1, 3, 30}) {
        const auto x = gaussian(tokens * wanted.columns, seed);
        const auto y = product(x, tokens, blob, activations);
        CHECK(worst_error(made, x, tokens, y, activations) < 1e-6);
      }
  }
}

TEST_CASE("gemm: a token's row has the same bits on every level, however many work, beside any other tokens") {
  uint32_t seed = 0;
  for (const Wanted& wanted : kEveryGrid) {
    Made made;
    make(wanted, made, ++seed);
    Blob blob(made.grid);
    const size_t most = 70;
    const auto x = gaussian(most * wanted.columns, seed);
    const auto bias = gaussian(wanted.rows, seed + 1);
    for (const Activations activations : {Activations::int8, Activations::int8_g128}) {
      const auto want = product(x, most, blob, activations, 1, &bias);
      each_isa([&] {
        for (const int threads : {1, 3})
          for (const size_t tokens : {1, 2, 3, 4, 5, 23, 24, 70}) {
            if (active_isa() != machine_isa() && tokens > 5) continue;
            const auto got = product(x, tokens, blob, activations, threads, &bias);
            CHECK(std::memcmp(got.data(), want.data(), 4 * got.size()) == 0);
          }
      });
    }
  }
}

TEST_CASE("gemm: large elements of x stay exact and cost the others nothing, with the same bits on every level") {
  uint32_t seed = 0;
  for (const Wanted& wanted : kEveryGrid) {
    Made made;
    make(wanted, made, ++seed);
    Blob blob(made.grid);
    const size_t tokens = 5;
    auto x = gaussian(tokens * wanted.columns, seed);
    // The second token has none, the others one in 200 fifty times as large.
    for (size_t i = 0; i < x.size(); i += 199)
      if (i / wanted.columns != 1) x[i] *= 50;
    const auto want = product(x, tokens, blob, Activations::int8_outlier);
    const auto plain = product(x, tokens, blob, Activations::int8);
    if (wanted.columns >= 1000) {
      const double error = norm_of_error(made, x, tokens, want), plain_error = norm_of_error(made, x, tokens, plain);
      CHECK(error < 0.01);
      CHECK(plain_error > 3 * error);
      CHECK(std::memcmp(&want[wanted.rows], &plain[wanted.rows], 4 * wanted.rows) == 0);
    }
    each_isa([&] {
      for (const int threads : {1, 3}) CHECK(product(x, tokens, blob, Activations::int8_outlier, threads) == want);
      for (size_t token = 0; token < tokens; ++token) {
        const std::vector<float> alone(x.begin() + long(token * wanted.columns),
                                       x.begin() + long((token + 1) * wanted.columns));
        const auto y = product(alone, 1, blob, Activations::int8_outlier);
        CHECK(std::memcmp(y.data(), &want[token * wanted.rows], 4 * wanted.rows) == 0);
      }
    });
  }
}

TEST_CASE("gemm: any number of threads packs the same bytes and multiplies to the same bits") {
  Made made;
  make({100, 160, 64, 5, NumberKind::f16, true}, made, 1);
  Blob one(made.grid, 1), three(made.grid, 3);
  CHECK(std::ranges::equal(one.bytes(), three.bytes()));
  const auto x = gaussian(50 * 160, 1);
  CHECK(product(x, 50, one, Activations::int8, 1) == product(x, 50, one, Activations::int8, 3));
}

TEST_CASE("gemm: several matrices in one call, each on rows of its own, give what they give alone") {
  const size_t columns = 300, tokens = 50;
  const auto x = gaussian(tokens * columns, 1);
  const Wanted wanted[] = {{40, columns, 64, 4}, {100, columns, 64, 3}, {33, columns, 32, 8, NumberKind::f32}};
  // Rows of x: all; some, twice and in no order; none; as the first.
  std::vector<uint32_t> some = {7, 7, 49, 0, 12};
  const uint32_t* const rows[] = {nullptr, some.data(), some.data(), nullptr};
  const size_t counts[] = {tokens, some.size(), 0, tokens};
  std::vector<Made> made(4);
  std::vector<Blob> blobs;
  std::vector<Packed> packed;
  for (size_t i = 0; i < 4; ++i) {
    make(wanted[i % 3], made[i], uint32_t(i));
    blobs.emplace_back(made[i].grid);
    packed.push_back(Packed::parse(blobs[i].bytes()));
  }
  for (const Activations activations : {Activations::int8, Activations::int8_g128})
    for (const int threads : {1, 3}) {
      std::vector<std::vector<float>> y(4);
      std::vector<Product> products(4);
      for (size_t i = 0; i < 4; ++i) {
        y[i].assign(counts[i] * made[i].grid.rows, -1);
        products[i].weights = &packed[i], products[i].rows = rows[i], products[i].row_count = counts[i];
        products[i].y = bytes_of(y[i]);
      }
      linear(matrix_of(x, tokens, columns), products, activations, DType::F32, threads);
      for (size_t i = 0; i < 4; ++i) {
        const auto whole = product(x, tokens, blobs[i], activations);
        const size_t n = made[i].grid.rows;
        for (size_t row = 0; row < counts[i]; ++row)
          CHECK(std::memcmp(&y[i][row * n], &whole[(rows[i] ? rows[i][row] : row) * n], 4 * n) == 0);
      }
    }
  Product beyond;
  some = {50};
  std::vector<float> y(40);
  beyond.weights = &packed[0], beyond.rows = some.data(), beyond.row_count = 1, beyond.y = bytes_of(y);
  CHECK(error_of([&] { linear(matrix_of(x, tokens, columns), {&beyond, 1}, Activations::int8, DType::F32, 1); }) ==
        "row 50 of x is asked, it has 50");
}

TEST_CASE("gemm: numbers that are not finite make their token's row NaN and no other") {
  Made made;
  make({20, 200, 64, 4}, made, 1);
  Blob blob(made.grid);
  auto x = gaussian(3 * 200, 1);
  const auto want = product(x, 3, blob, Activations::int8);
  x[200 + 77] = INFINITY;
  for (const Activations activations : {Activations::int8, Activations::int8_g128})
    each_isa([&] {
      const auto y = product(x, 3, blob, activations);
      for (size_t n = 0; n < 20; ++n) {
        CHECK(std::isnan(y[20 + n]));
        CHECK(!std::isnan(y[n]) && !std::isnan(y[40 + n]));
        if (activations == Activations::int8) CHECK(y[n] == want[n]);
      }
    });
}

TEST_CASE("gemm: x of 16 bits is read as the floats it holds, y is rounded to the nearest") {
  Made made;
  make({20, 200, 64, 4}, made, 1);
  Blob blob(made.grid);
  const Packed packed = Packed::parse(blob.bytes());
  const auto exact = gaussian(2 * 200, 1);
  for (const DType dtype : {DType::BF16, DType::F16}) {
    std::vector<uint16_t> half(exact.size());
    std::vector<float> same(exact.size());
    for (size_t i = 0; i < exact.size(); ++i) {
      half[i] = dtype == DType::BF16 ? formats::bf16_of_f32(exact[i]) : formats::f16_of_f32(exact[i]);
      same[i] = dtype == DType::BF16 ? formats::f32_of_bf16(half[i]) : formats::f32_of_f16(half[i]);
    }
    const auto want = product(same, 2, blob, Activations::int8);
    std::vector<uint16_t> y(2 * 20);
    one_linear({dtype, reinterpret_cast<const uint8_t*>(half.data()), 2, 200}, packed, {DType::F32, nullptr, 0, 0},
               Activations::int8, dtype, {reinterpret_cast<uint8_t*>(y.data()), 2 * y.size()}, 1);
    for (size_t i = 0; i < y.size(); ++i)
      CHECK(y[i] == (dtype == DType::BF16 ? formats::bf16_of_f32(want[i]) : formats::f16_of_f32(want[i])));
  }
}

TEST_CASE("gemm: what is none is refused by what was found") {
  Made made;
  make({20, 200, 64, 4}, made, 1);
  Blob blob(made.grid);
  const Packed packed = Packed::parse(blob.bytes());
  const std::vector<float> x(200);
  std::vector<uint8_t> y(80);
  const auto refused = [&](Matrix from, Matrix bias, size_t room) {
    return error_of([&] { one_linear(from, packed, bias, Activations::int8, DType::F32, {y.data(), room}, 1); });
  };
  const Matrix none{DType::F32, nullptr, 0, 0};
  CHECK(refused(matrix_of(x, 1, 200), none, 80) == "");
  CHECK(refused(matrix_of(x, 1, 199), none, 80) == "x has 199 columns, the matrix has 200");
  CHECK(refused(matrix_of(x, 1, 200), matrix_of(x, 1, 21), 80) == "bias has 21 elements, the matrix has 20 rows");
  CHECK(refused(matrix_of(x, 1, 200), none, 76) == "y has 76 bytes, 1 rows of 20 are needed");
  CHECK(refused({DType::I32, y.data(), 1, 200}, none, 80) == "x's elements are F32, F16 or BF16, not I32");
  CHECK(refused(matrix_of(x, 0, 200), none, 0) == "");
  const auto bytes = blob.bytes();
  for (size_t cut = 0; cut < bytes.size(); cut += 13) CHECK(error_of([&] { Packed::parse(bytes.first(cut)); }) != "");
  for (size_t i = 0; i < sizeof(PackedHead); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= uint8_t(1 << bit);
      // Whole or refused: what is taken lies inside.
      const std::string error = error_of([&] {
        const Packed taken = Packed::parse(bytes);
        if (taken.head.rows == 20 && taken.head.columns == 200)
          one_linear(matrix_of(x, 1, 200), taken, none, Activations::int8, DType::F32, y, 1);
      });
      bytes[i] ^= uint8_t(1 << bit);
    }
  Made odd;
  make({4, 60, 24, 4}, odd, 1);
  CHECK(error_of([&] { packed_bytes(odd.grid); }).find("groups of 24 columns") != std::string::npos);
}
