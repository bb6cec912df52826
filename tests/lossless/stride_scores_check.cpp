// Scores of distances: the same on every level, and larger where values are farther.
#include "lossless/stride_scores.h"

#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

template <class U>
void scores_agree() {
  std::mt19937_64 random(sizeof(U));
  for (int round = 0; round < 100; ++round) {
    std::vector<U> others(random() % 100);
    for (U& other : others) other = U(random() >> random() % 64);
    const U here = U(random() >> random() % 64);
    std::vector<uint32_t> want(others.size(), 5), scores = want;
    stride_scores_scalar(here, std::span<const U>(others), want.data());
    if (machine_isa() >= Isa::avx2) {
      stride_scores_avx2(here, std::span<const U>(others), scores.data());
      CHECK(scores == want);
    }
    if (machine_isa() >= Isa::avx512) {
      scores.assign(others.size(), 5);
      stride_scores_avx512(here, std::span<const U>(others), scores.data());
      CHECK(scores == want);
    }
  }
}

}  // namespace

TEST_CASE("stride_scores: the same on every level") {
  scores_agree<uint8_t>(), scores_agree<uint16_t>(), scores_agree<uint32_t>(), scores_agree<uint64_t>();
}

TEST_CASE("stride_scores: farther is more") {
  std::vector<uint32_t> scores(32);
  std::vector<uint64_t> others(32);
  for (size_t i = 0; i < 32; ++i) others[i] = 0 - (uint64_t(1) << (2 * i)) + 1;
  stride_scores_scalar(uint64_t(0), std::span<const uint64_t>(others), scores.data());
  for (size_t i = 1; i + 1 < 32; ++i) CHECK(scores[i] > scores[i - 1]);
}
