// Codebooks: clusters are found, errors fall, dead codewords come back, and threads decide nothing.
#include "vq/kmeans.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "check.h"

using namespace tersor;
using namespace tersor::vq;

namespace {

std::vector<float> normal(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> law;
  std::vector<float> values(count);
  for (float& value : values) value = law(random);
  return values;
}

double error_of(const std::vector<float>& values, const std::vector<float>& codebook, size_t dimension) {
  const size_t count = values.size() / dimension;
  std::vector<uint16_t> codes(count);
  std::vector<float> distances(count);
  nearest({values, dimension}, {codebook, dimension}, {}, {codes, distances, {}}, 1);
  double sum = 0;
  for (const float distance : distances) sum += double(distance);
  return sum / double(count);
}

}  // namespace

TEST_CASE("kmeans: clusters far apart are found, each by a codeword") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    auto values = normal(2 * 4000, 1);
    for (size_t v = 0; v < 4000; ++v) values[2 * v] = 0.01f * values[2 * v] + float(v % 7) * 10;
    const auto codebook = kmeans({values, 2}, {.entries = 64, .seed = seed}, 1);
    CHECK(codebook.size() == 128);
    std::set<int> found;
    for (size_t c = 0; c < 64; ++c) found.insert(int(std::lround(codebook[2 * c] / 10)));
    CHECK(found == (std::set<int>{0, 1, 2, 3, 4, 5, 6}));
  }
}

TEST_CASE("kmeans: more entries and rounds leave less") {
  const auto values = normal(4 * 5000, 2);
  double before = INFINITY;
  for (const size_t entries : {1, 4, 16, 64, 256}) {
    const double error = error_of(values, kmeans({values, 4}, {.entries = entries}, 1), 4);
    CHECK(error < 0.95 * before);
    before = error;
  }
  before = INFINITY;
  for (const int rounds : {0, 1, 4, 20}) {
    const double error = error_of(values, kmeans({values, 4}, {.entries = 64, .rounds = rounds}, 1), 4);
    CHECK(error < before);
    before = error;
  }
  // One codeword is the mean.
  const auto mean = kmeans({values, 4}, {.entries = 1}, 1);
  double sum = 0;
  for (size_t v = 0; v < 5000; ++v) sum += double(values[4 * v]);
  CHECK(std::fabs(double(mean[0]) - sum / 5000) < 1e-6);
}

TEST_CASE("kmeans: scalars come near the best levels of a Gaussian") {
  const auto values = normal(50'000, 3);
  const auto levels = kmeans({values, 1}, {.entries = 16, .rounds = 60}, 2);
  CHECK(error_of(values, levels, 1) < 1.05 * 0.009497);  // Max, 1960
}

TEST_CASE("kmeans: a codeword that nothing is nearest to moves where it is needed") {
  // Nearly all vectors alike: a sampled start draws the same one many times.
  std::vector<float> values(2 * 2000);
  for (size_t v = 0; v < 15; ++v) values[2 * (v * 133 + 5)] = float(v + 1), values[2 * (v * 133 + 5) + 1] = 3;
  const auto codebook = kmeans({values, 2}, {.entries = 16}, 1);
  CHECK(error_of(values, codebook, 2) == 0);
}

TEST_CASE("kmeans: fewer vectors than entries, all alike, one") {
  for (const size_t dimension : {1, 3}) {
    const auto values = normal(5 * dimension, 4);
    CHECK(error_of(values, kmeans({values, dimension}, {.entries = 9}, 1), dimension) == 0);
    const std::vector<float> alike(7 * dimension, 2.5f);
    CHECK(error_of(alike, kmeans({alike, dimension}, {.entries = 4}, 1), dimension) == 0);
    const std::vector<float> one(dimension, -1.5f);
    CHECK(error_of(one, kmeans({one, dimension}, {.entries = 2}, 1), dimension) == 0);
  }
}

TEST_CASE("kmeans: threads decide nothing, the seed and the sample do") {
  const auto values = normal(8 * 9000, 5);
  const KMeans options{.entries = 100, .rounds = 6, .sample = 5000, .seed = 3};
  const auto want = kmeans({values, 8}, options, 1);
  for (const int threads : {2, 7}) CHECK(kmeans({values, 8}, options, threads) == want);
  KMeans other = options;
  other.seed = 4;
  CHECK(kmeans({values, 8}, other, 1) != want);
  other = options;
  other.sample = 0;
  CHECK(kmeans({values, 8}, other, 1) != want);
}

TEST_CASE("kmeans: weights say which dimension counts") {
  // The first dimension has the larger spread, the second the larger weight.
  auto values = normal(2 * 3000, 6);
  for (size_t v = 0; v < 3000; ++v) values[2 * v] *= 3;
  const std::vector<float> weights{0, 1};
  const auto codebook = kmeans({values, 2}, {.entries = 8, .weights = weights}, 1);
  std::vector<float> seconds, own;
  for (size_t v = 0; v < 3000; ++v) seconds.push_back(values[2 * v + 1]);
  for (size_t c = 0; c < 8; ++c) own.push_back(codebook[2 * c + 1]);
  CHECK(error_of(seconds, own, 1) < 0.05);
}

TEST_CASE("kmeans: a codebook for every group of every row, ascending, on any number of threads") {
  const size_t rows = 5, columns = 70, group = 32, groups = 3, entries = 6;
  const auto values = normal(rows * columns, 7);
  std::vector<float> want(rows * groups * entries), got(want.size());
  kmeans_groups(values, rows, columns, group, {.entries = entries}, want, 1);
  kmeans_groups(values, rows, columns, group, {.entries = entries}, got, 3);
  CHECK(got == want);
  for (size_t i = 0; i < rows * groups; ++i) {
    const std::vector<float> own(want.begin() + long(i * entries), want.begin() + long((i + 1) * entries));
    CHECK(std::is_sorted(own.begin(), own.end()));
    const size_t first = i / groups * columns + i % groups * group,
                 size = std::min(group, columns - i % groups * group);
    const std::vector<float> some(values.begin() + long(first), values.begin() + long(first + size));
    auto alone = kmeans({some, 1}, {.entries = entries}, 1);
    std::sort(alone.begin(), alone.end());
    CHECK(alone == own);
  }
}

TEST_CASE("kmeans: calls that mean nothing are refused") {
  const std::vector<float> values(6);
  std::vector<float> room(4);
  using check::error_of;
  CHECK(error_of([&] { kmeans({values, 2}, {.entries = 0}, 1); }) == "0 entries, 1..65536 are possible");
  CHECK(error_of([&] { kmeans({values, 2}, {.entries = 70'000}, 1); }) == "70000 entries, 1..65536 are possible");
  CHECK(error_of([&] { kmeans({values, 2}, {.rounds = -1}, 1); }) == "-1 rounds");
  CHECK(error_of([&] { kmeans({values, 0}, {}, 1); }) == "vectors have 0 dimensions, 1..64 are possible");
  CHECK(error_of([&] { kmeans({values, 4}, {}, 1); }) == "6 values are no whole vectors of 4");
  CHECK(error_of([&] { kmeans({{}, 4}, {}, 1); }) == "0 values are no whole vectors of 4");
  CHECK(error_of([&] { kmeans_groups(values, 2, 3, 0, {.entries = 2}, room, 1); }) == "3 columns in groups of 0");
  CHECK(error_of([&] { kmeans_groups(values, 2, 2, 2, {.entries = 2}, room, 1); }) ==
        "6 values and 4 levels for 2 x 2 in groups of 2");
}
