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
  for (const Wanted& wanted : kEveryGrid) {
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
