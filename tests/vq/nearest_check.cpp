// The nearest codeword is the first of the nearest, whatever the dimension, number and threads; bad calls are refused.
#include "vq/nearest.h"

#include <cmath>
#include <random>
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

struct Found {
  std::vector<uint16_t> codes;
  std::vector<float> distances, rest;
};

Found found(const std::vector<float>& vectors, const std::vector<float>& codewords, size_t dimension,
            const std::vector<float>& weights, int threads) {
  Found out{std::vector<uint16_t>(vectors.size() / dimension), std::vector<float>(vectors.size() / dimension),
            std::vector<float>(vectors.size())};
  nearest({vectors, dimension}, {codewords, dimension}, weights, {out.codes, out.distances, out.rest}, threads);
  return out;
}

}  // namespace

TEST_CASE("nearest: as a plain search finds it, for every dimension and number of codewords") {
  for (const size_t dimension : {1, 2, 3, 8, 17, 64})
    for (const size_t count : {1, 2, 15, 16, 17, 100, 256, 1000}) {
      const auto vectors = normal(200 * dimension, 1), codewords = normal(count * dimension, 2);
      auto weights = normal(dimension, 3);
      for (float& weight : weights) weight *= weight;
      for (const bool weighted : {false, true}) {
        const Found got = found(vectors, codewords, dimension, weighted ? weights : std::vector<float>(), 1);
        for (size_t v = 0; v < 200; ++v) {
          size_t best = 0;
          float least = 0;
          for (size_t c = 0; c < count; ++c) {
            float sum = 0;
            for (size_t i = 0; i < dimension; ++i) {
              const float difference = vectors[v * dimension + i] - codewords[c * dimension + i];
              sum += difference * difference * (weighted ? weights[i] : 1);
            }
            if (c == 0 || sum < least) least = sum, best = c;
          }
          CHECK(got.codes[v] == best && got.distances[v] == least);
          for (size_t i = 0; i < dimension; ++i)
            CHECK(got.rest[v * dimension + i] == vectors[v * dimension + i] - codewords[best * dimension + i]);
        }
      }
    }
}

TEST_CASE("nearest: of codewords that are as near the first, and vectors may become their rest") {
  std::vector<float> vectors{0, 0, 1, 1, 5, 5};
  const std::vector<float> codewords{9, 9, 1, 1, -1, -1, 1, 1};
  std::vector<uint16_t> codes(3);
  nearest({vectors, 2}, {codewords, 2}, {}, {codes, {}, vectors}, 1);
  CHECK(codes[0] == 1 && codes[1] == 1 && codes[2] == 0);
  CHECK((vectors == std::vector<float>{-1, -1, 0, 0, -4, -4}));
}

TEST_CASE("nearest: threads decide nothing") {
  const auto vectors = normal(8 * 20'000, 4), codewords = normal(8 * 256, 5);
  const Found want = found(vectors, codewords, 8, {}, 1);
  for (const int threads : {2, 5}) {
    const Found got = found(vectors, codewords, 8, {}, threads);
    CHECK(got.codes == want.codes && got.distances == want.distances && got.rest == want.rest);
  }
}

TEST_CASE("nearest: infinite and huge values give some code") {
  const std::vector<float> vectors{INFINITY, 1e38f, NAN, 0}, codewords{1, -1e38f};
  CHECK(found(vectors, codewords, 1, {}, 1).codes[3] == 0);
}

TEST_CASE("nearest: calls that mean nothing are refused") {
  std::vector<float> values(12);
  std::vector<uint16_t> codes(6);
  const auto error = [&](size_t dimension, size_t of_codewords, size_t vectors, size_t weights, size_t room) {
    return check::error_of([&] {
      nearest({std::span(values).first(vectors), dimension}, {std::span(values).first(of_codewords), dimension},
              std::span(values).first(weights), {std::span(codes).first(room), {}, {}}, 1);
    });
  };
  CHECK(error(2, 4, 12, 0, 6).empty());
  CHECK(error(0, 4, 12, 0, 6) == "vectors have 0 dimensions, 1..64 are possible");
  CHECK(error(65, 4, 12, 0, 6) == "vectors have 65 dimensions, 1..64 are possible");
  CHECK(error(2, 4, 11, 0, 5) == "11 and 4 values are no whole vectors of 2");
  CHECK(error(2, 0, 12, 0, 6) == "0 codewords, 1..65536 are possible");
  CHECK(error(2, 4, 12, 1, 6) == "1 weights for 2 dimensions");
  CHECK(error(2, 4, 12, 0, 5) == "room for 5 codes, 0 distances and 0 values for 6 vectors of 2");
  CHECK(check::error_of([&] { nearest({values, 2}, {values, 3}, {}, {codes, {}, {}}, 1); }) ==
        "codewords have 3 dimensions, vectors 2");
}
