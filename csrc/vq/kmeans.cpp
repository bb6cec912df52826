#include "vq/kmeans.h"

#include <algorithm>
#include <numeric>

#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"

namespace tersor::vq {
namespace {

// `take` of [0, count), ascending, every set nearly as likely as another (Knuth, algorithm S; the modulo is not exact).
std::vector<size_t> drawn(size_t count, size_t take, uint64_t seed) {
  std::vector<size_t> found;
  found.reserve(take);
  for (size_t i = 0; i < count && found.size() < take; ++i)
    if (random_bits(seed, i) % (count - i) < take - found.size()) found.push_back(i);
  return found;
}

std::vector<float> gathered(Vectors vectors, const std::vector<size_t>& places) {
  std::vector<float> values;
  values.reserve(places.size() * vectors.dimension);
  for (const size_t place : places) values.insert(values.end(), vectors[place], vectors[place] + vectors.dimension);
  return values;
}

// Vectors by their codes, each code's in order: those of code c are members[starts[c]] to members[starts[c + 1]].
struct Clusters {
  std::vector<size_t> starts, members;
  Clusters(std::span<const uint16_t> codes, size_t entries) : starts(entries + 1), members(codes.size()) {
    for (const uint16_t code : codes) ++starts[size_t(code) + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    std::vector<size_t> next(starts.begin(), starts.end() - 1);
    for (size_t v = 0; v < codes.size(); ++v) members[next[codes[v]]++] = v;
  }
  size_t size(size_t code) const noexcept { return starts[code + 1] - starts[code]; }
};

void move_to_means(Vectors vectors, const Clusters& clusters, size_t entries, std::vector<float>& codebook,
                   int threads) {
  const size_t dimension = vectors.dimension;
  parallel_for(entries, 16, threads, [&](size_t begin, size_t end) {
    for (size_t c = begin; c < end; ++c) {
      if (clusters.size(c) == 0) continue;
      double sums[kMostDimension] = {};
      for (size_t m = clusters.starts[c]; m < clusters.starts[c + 1]; ++m)
        for (size_t i = 0; i < dimension; ++i) sums[i] += double(vectors[clusters.members[m]][i]);
      for (size_t i = 0; i < dimension; ++i) codebook[c * dimension + i] = float(sums[i] / double(clusters.size(c)));
    }
  });
}

// Codewords without a vector take the farthest vectors, each another one.
void revive(Vectors vectors, const Clusters& clusters, std::span<const float> distances, size_t entries,
            std::vector<float>& codebook) {
  std::vector<size_t> dead;
  for (size_t c = 0; c < entries; ++c)
    if (clusters.size(c) == 0) dead.push_back(c);
  if (dead.empty()) return;
  const size_t take = std::min(dead.size(), vectors.count());
  std::vector<size_t> order(vectors.count());
  std::iota(order.begin(), order.end(), size_t(0));
  std::partial_sort(order.begin(), order.begin() + long(take), order.end(), [&](size_t a, size_t b) {
    return distances[a] != distances[b] ? distances[a] > distances[b] : a < b;
  });
  for (size_t i = 0; i < take && distances[order[i]] > 0; ++i)
    std::copy_n(vectors[order[i]], vectors.dimension, codebook.data() + dead[i] * vectors.dimension);
}

// Vectors drawn at random; scalars at even ranks, from where few rounds do. Codewords that no vector is left for begin
// at 0.
std::vector<float> start_of(Vectors vectors, const KMeans& options) {
  const size_t count = vectors.count(), entries = options.entries;
  std::vector<float> codebook;
  if (vectors.dimension > 1) {
    codebook = gathered(vectors, drawn(count, std::min(entries, count), options.seed + 1));
  } else {
    std::vector<float> sorted(vectors.values.begin(), vectors.values.end());
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < entries; ++i) codebook.push_back(sorted[(2 * i + 1) * count / (2 * entries)]);
  }
  codebook.resize(entries * vectors.dimension);
  return codebook;
}

std::vector<float> lloyd(Vectors vectors, const KMeans& options, int threads) {
  const size_t count = vectors.count(), entries = options.entries;
  std::vector<float> codebook = start_of(vectors, options);
  std::vector<uint16_t> codes(count), before(count);
  std::vector<float> distances(count);
  for (int round = 0; round < options.rounds; ++round) {
    nearest(vectors, {codebook, vectors.dimension}, options.weights, {codes, distances, {}}, threads);
    if (round && codes == before) break;
    const Clusters clusters(codes, entries);
    move_to_means(vectors, clusters, entries, codebook, threads);
    revive(vectors, clusters, distances, entries, codebook);
    before = codes;
  }
  return codebook;
}

void require_options(const KMeans& options) {
  TERSOR_REQUIRE(options.entries >= 1 && options.entries <= kMostCodewords, Code::bad_call, options.entries,
                 " entries, 1..", kMostCodewords, " are possible");
  TERSOR_REQUIRE(options.rounds >= 0, Code::bad_call, options.rounds, " rounds");
}

}  // namespace

std::vector<float> kmeans(Vectors vectors, const KMeans& options, int threads) {
  require_options(options);
  TERSOR_REQUIRE(vectors.dimension >= 1 && vectors.dimension <= kMostDimension, Code::bad_call, "vectors have ",
                 vectors.dimension, " dimensions, 1..", kMostDimension, " are possible");
  TERSOR_REQUIRE(vectors.count() && vectors.values.size() % vectors.dimension == 0, Code::bad_call,
                 vectors.values.size(), " values are no whole vectors of ", vectors.dimension);
  if (options.sample == 0 || options.sample >= vectors.count()) return lloyd(vectors, options, threads);
  const std::vector<float> sample = gathered(vectors, drawn(vectors.count(), options.sample, options.seed));
  return lloyd({sample, vectors.dimension}, options, threads);
}

void kmeans_groups(std::span<const float> values, size_t rows, size_t columns, size_t group, const KMeans& options,
                   std::span<float> levels, int threads) {
  require_options(options);
  TERSOR_REQUIRE(columns && group, Code::bad_call, columns, " columns in groups of ", group);
  const size_t groups = size_t(ceil_div(columns, group)), entries = options.entries;
  TERSOR_REQUIRE(values.size() == checked_mul(rows, columns, "values") &&
                     levels.size() == checked_mul(checked_mul(rows, groups, "groups"), entries, "levels"),
                 Code::bad_call, values.size(), " values and ", levels.size(), " levels for ", rows, " x ", columns,
                 " in groups of ", group);
  parallel_for(rows * groups, std::max<size_t>(1, 16384 / std::min(group, columns)), threads,
               [&](size_t begin, size_t end) {
                 for (size_t i = begin; i < end; ++i) {
                   const size_t row = i / groups, first = i % groups * group;
                   const auto own = values.subspan(row * columns + first, std::min(group, columns - first));
                   KMeans one = options;
                   one.weights = {};
                   auto found = lloyd({own, 1}, one, 1);
                   std::sort(found.begin(), found.end());
                   std::copy(found.begin(), found.end(), levels.begin() + long(i * entries));
                 }
               });
}

}  // namespace tersor::vq
