#include "gemm/experts.h"

#include <deque>

#include "check.h"
#include "gemm/products.h"

using namespace tersor;
using namespace tersor::gemm;
using namespace tersor::gemm::check;
using tersor::check::error_of;

namespace {

// E matrices of one shape and what they are held in.
struct Layer {
  std::deque<Made> made;
  std::deque<Blob> blobs;
  std::vector<Packed> packed;
  std::vector<Expert> experts;

  explicit Layer(std::initializer_list<Wanted> wanted) {
    packed.reserve(wanted.size());
    uint32_t seed = 0;
    for (const Wanted& one : wanted) {
      make(one, made.emplace_back(), ++seed);
      packed.push_back(Packed::parse(blobs.emplace_back(made.back().grid).bytes()));
      experts.push_back({&packed.back(), {DType::F32, nullptr, 1, 0}});
    }
  }
};

constexpr Wanted kOne{40, 96, 32, 4}, kOther{40, 96, 96, 8};

}  // namespace

TEST_CASE("gemm/experts: every row is its expert's alone, on any number of threads") {
  Layer layer({kOne, kOther, kOne, kOne});
  const auto bias = gaussian(40, 3);
  layer.experts[1].bias = matrix_of(bias, 1, 40);
  const size_t tokens = 9, slots = 3;
  const auto x = gaussian(tokens * 96, 5);
  std::vector<int64_t> chosen(tokens * slots);
  for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = int64_t(i * 7 % 3);  // nobody goes to the last
  for (const int threads : {1, 3}) {
    std::vector<float> y(chosen.size() * 40, -1);
    linear_experts(matrix_of(x, tokens, 96), layer.experts, chosen, Activations::int8, DType::F32, bytes_of(y),
                   threads);
    for (size_t i = 0; i < chosen.size(); ++i) {
      const size_t e = size_t(chosen[i]);
      const std::vector<float> token(x.begin() + long(i / slots * 96), x.begin() + long(i / slots * 96 + 96));
      const auto want = product(token, 1, layer.blobs[e], Activations::int8, 1, e == 1 ? &bias : nullptr);
      CHECK(std::equal(want.begin(), want.end(), y.begin() + long(i * 40)));
    }
  }
}

TEST_CASE("gemm/experts: what is refused, and no tokens") {
  Layer layer({kOne, kOther});
  const auto x = gaussian(2 * 96, 5);
  std::vector<float> y(4 * 40);
  const auto says = [&](std::span<const Expert> experts, std::vector<int64_t> chosen, size_t size, const char* wanted) {
    const auto error = error_of([&] {
      linear_experts(matrix_of(x, 2, 96), experts, chosen, Activations::int8, DType::F32, bytes_of(y).first(4 * size),
                     1);
    });
    return error.find(wanted) != std::string::npos;
  };
  const std::span all(layer.experts);
  CHECK(says({}, {0, 0}, 80, "at least one is needed"));
  CHECK(says(all, {0, 2}, 80, "expert 2 at 1: experts are 0..1"));
  CHECK(says(all, {-1, 0}, 80, "expert -1 at 0: experts are 0..1"));
  CHECK(says(all, {0, 1, 1}, 120, "3 experts are chosen for 2 tokens"));
  CHECK(says(all, {0, 1}, 79, "y has 316 bytes, 2 rows of 160 are needed"));
  Layer unlike({kOne, {41, 96, 32, 4}});
  CHECK(says(unlike.experts, {0, 1}, 80, "expert 1 has 41 rows, the first has 40"));
  CHECK(error_of([&] { linear_experts(matrix_of(x, 0, 96), all, {}, Activations::int8, DType::F32, {}, 1); }).empty());
}
