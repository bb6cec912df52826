// Scaled floats: all floats come back whatever the step, decimals without corrections, and every level gives the same.
#include "transform/float_scale.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::transform;

namespace {

template <class U>
std::vector<U> restored(const FloatScale& scale, const std::vector<U>& multiples, const std::vector<U>& corrections) {
  std::vector<U> want;
  check::each_isa([&] {
    std::vector<U> floats = corrections;
    add_scaled<U>(scale, multiples, floats.data());
    if (want.empty()) want = floats;
    CHECK(floats == want);
  });
  return want;
}

template <class U>
void any_floats_and_steps() {
  std::mt19937_64 random(sizeof(U));
  for (int round = 0; round < 200; ++round) {
    const FloatScale scale{random() | uint64_t(1) << 63, uint16_t(round % 2 ? random() : random() % 2048)};
    std::vector<U> floats(1 + random() % 100), multiples(floats.size()), corrections(floats.size());
    for (U& value : floats) value = U(random() >> random() % 40);
    split_scaled<U>(scale, floats, multiples.data(), corrections.data());
    CHECK(restored(scale, multiples, corrections) == floats);
    // And what no encoder of ours writes: any multiples.
    for (U& multiple : multiples)
      multiple = random() % 8 ? U(random() >> random() % 64) : U(U(1) << (8 * sizeof(U) - 1));
    restored(scale, multiples, corrections);
  }
}

}  // namespace

TEST_CASE("float_scale: any floats come back by any step, the same on every level") {
  any_floats_and_steps<uint32_t>(), any_floats_and_steps<uint64_t>();
}

TEST_CASE("float_scale: decimals are multiples without corrections") {
  const FloatScale hundredth32{0xA3D70A3D70A3D70A, 127 - 2 - 70}, hundredth64{0xA3D70A3D70A3D70A, 1023 - 2 - 70};
  for (int n = -200'000; n < 200'000; n += 7) {
    const std::vector<uint32_t> narrow{std::bit_cast<uint32_t>(float(n) / 100)};
    const std::vector<uint64_t> wide{std::bit_cast<uint64_t>(double(n) / 100)};
    uint32_t multiple32, correction32;
    uint64_t multiple64, correction64;
    split_scaled<uint32_t>(hundredth32, narrow, &multiple32, &correction32);
    split_scaled<uint64_t>(hundredth64, wide, &multiple64, &correction64);
    CHECK(int32_t(multiple32) == n && correction32 == 0);
    CHECK(int64_t(multiple64) == n && correction64 == 0);
  }
}

TEST_CASE("float_scale: products with a step that is a double are those of IEEE 754, halves and all") {
  const FloatScale hundredth{0xA3D70A3D70A3D800, 1023 - 2 - 70};
  for (int n = -50'000; n < 50'000; ++n) {
    const std::vector<uint64_t> product{std::bit_cast<uint64_t>(double(n) * 0.01 + 0.0)};
    uint64_t multiple, correction;
    split_scaled<uint64_t>(hundredth, product, &multiple, &correction);
    CHECK(int64_t(multiple) == n && correction == 0);
  }
}
