#include "vq/nearest.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/pool.h"

namespace tersor::vq {
namespace {

constexpr size_t kTile = 16;     // codewords whose distances stand side by side
constexpr size_t kGrain = 1024;  // vectors that a thread takes at once

// Codewords dimension by dimension in tiles, so that the loop over a tile is one over neighbors. Those that fill the
// last tile up are infinitely far.
class Tiles {
 public:
  explicit Tiles(Vectors codewords) : dimension_(codewords.dimension), tiles_((codewords.count() + kTile - 1) / kTile) {
    values_.assign(tiles_ * kTile * dimension_, std::numeric_limits<float>::infinity());
    for (size_t c = 0; c < codewords.count(); ++c)
      for (size_t i = 0; i < dimension_; ++i)
        values_[((c / kTile) * dimension_ + i) * kTile + c % kTile] = codewords[c][i];
  }

  void find(const float* vector, const float* weights, uint16_t& code, float& distance) const noexcept {
    float least = std::numeric_limits<float>::infinity();
    size_t found = 0;
    const float* at = values_.data();
    for (size_t tile = 0; tile < tiles_; ++tile) {
      float sums[kTile] = {};
      for (size_t i = 0; i < dimension_; ++i, at += kTile) {
        const float value = vector[i], weight = weights[i];
        for (size_t c = 0; c < kTile; ++c) {
          const float difference = value - at[c];
          sums[c] += difference * difference * weight;
        }
      }
      float here = sums[0];
      for (size_t c = 1; c < kTile; ++c) here = std::min(here, sums[c]);
      if (!(here < least)) continue;
      least = here;
      size_t c = 0;
      while (sums[c] != here) ++c;
      found = tile * kTile + c;
    }
    code = uint16_t(found), distance = least;
  }

 private:
  size_t dimension_, tiles_;
  std::vector<float> values_;
};

}  // namespace

void nearest(Vectors vectors, Vectors codewords, std::span<const float> weights, const Nearest& out, int threads) {
  const size_t dimension = vectors.dimension, count = codewords.count();
  TERSOR_REQUIRE(dimension >= 1 && dimension <= kMostDimension, Code::bad_call, "vectors have ", dimension,
                 " dimensions, 1..", kMostDimension, " are possible");
  TERSOR_REQUIRE(codewords.dimension == dimension, Code::bad_call, "codewords have ", codewords.dimension,
                 " dimensions, vectors ", dimension);
  TERSOR_REQUIRE(vectors.values.size() % dimension == 0 && codewords.values.size() % dimension == 0, Code::bad_call,
                 vectors.values.size(), " and ", codewords.values.size(), " values are no whole vectors of ",
                 dimension);
  TERSOR_REQUIRE(count >= 1 && count <= kMostCodewords, Code::bad_call, count, " codewords, 1..", kMostCodewords,
                 " are possible");
  TERSOR_REQUIRE(weights.empty() || weights.size() == dimension, Code::bad_call, weights.size(), " weights for ",
                 dimension, " dimensions");
  TERSOR_REQUIRE(out.codes.size() == vectors.count() &&
                     (out.distances.empty() || out.distances.size() == vectors.count()) &&
                     (out.rest.empty() || out.rest.size() == vectors.values.size()),
                 Code::bad_call, "room for ", out.codes.size(), " codes, ", out.distances.size(), " distances and ",
                 out.rest.size(), " values for ", vectors.count(), " vectors of ", dimension);
  const std::vector<float> ones(dimension, 1.0f);
  const float* const weight = weights.empty() ? ones.data() : weights.data();
  const Tiles tiles(codewords);
  parallel_for(vectors.count(), kGrain, threads, [&](size_t begin, size_t end) {
    for (size_t v = begin; v < end; ++v) {
      float distance;
      tiles.find(vectors[v], weight, out.codes[v], distance);
      if (!out.distances.empty()) out.distances[v] = distance;
      if (out.rest.empty()) continue;
      const float* const codeword = codewords[out.codes[v]];
      for (size_t i = 0; i < dimension; ++i) out.rest[v * dimension + i] = vectors[v][i] - codeword[i];
    }
  });
}

}  // namespace tersor::vq
