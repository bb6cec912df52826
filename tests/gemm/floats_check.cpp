// Levels in floating point: kernels of float32 and bfloat16.
#include <cmath>

#include "check.h"
#include "gemm/kernels.h"
#include "gemm/products.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::gemm;
using namespace tersor::gemm::check;
using tersor::check::each_isa;

TEST_CASE("gemm: exact activations give what doubles give, x of 32 bits and of 16") {
  uint32_t seed = 100;
  std::vector<Wanted> grids(std::begin(kEveryGrid), std::end(kEveryGrid));
  grids.push_back({.rows = 40, .columns = 700, .group = 128, .bits = 8, .odd = true});
  for (const Wanted& wanted : grids) {
    Made made;
    make(wanted, made, ++seed);
    Blob blob(made.grid);
    const Packed packed = Packed::parse(blob.bytes());
    for (const size_t tokens : {1, 3, 30}) {
      auto x = gaussian(tokens * wanted.columns, seed);
      std::vector<uint16_t> half(x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        half[i] = formats::bf16_of_f32(x[i]);
        x[i] = formats::f32_of_bf16(half[i]);
      }
      each_isa([&] {
        if (active_isa() != machine_isa() && tokens > 3) return;
        const auto y = product(x, tokens, blob, Activations::exact);
        CHECK(worst_error(made, x, tokens, y, Activations::exact) < 1e-6);
        // The levels of these grids are bfloat16's, so that nothing is rounded but sums.
        std::vector<float> of_half(y.size());
        one_linear({DType::BF16, reinterpret_cast<const uint8_t*>(half.data()), tokens, wanted.columns}, packed,
                   {DType::F32, nullptr, 1, 0}, Activations::exact, DType::F32, bytes_of(of_half), 3);
        CHECK(worst_error(made, x, tokens, of_half, Activations::exact) < 1e-6);
      });
    }
  }
}

TEST_CASE("gemm: x that is far from zero costs linear levels in bfloat16 no more than its sums' rounding") {
  // 2^bits and the code are summed, and the sum of x takes the former off again.
  for (const int bits : {1, 2, 3, 4, 5, 6}) {
    Made made;
    make({.rows = 40, .columns = 1500, .group = 256, .bits = bits}, made, 7);
    Blob blob(made.grid);
    const Packed packed = Packed::parse(blob.bytes());
    auto x = gaussian(1500, 8);
    std::vector<float> y(40);
    std::vector<uint16_t> half(x.size());
    for (size_t i = 0; i < x.size(); ++i)
      half[i] = formats::bf16_of_f32(1 + x[i] / 4), x[i] = formats::f32_of_bf16(half[i]);
    one_linear({DType::BF16, reinterpret_cast<const uint8_t*>(half.data()), 1, 1500}, packed,
               {DType::F32, nullptr, 1, 0}, Activations::exact, DType::F32, bytes_of(y), 1);
    CHECK(worst_error(made, x, 1, y, Activations::exact) < 1e-6);
  }
}
