// Codebooks learned from the vectors that they are to stand for: a sampled start, then Lloyd's rounds of nearest
// codeword and mean. The same vectors and options give the same codebook on every machine and number of threads:
// samples are drawn by integers, sums are in the order of the vectors.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "vq/nearest.h"

namespace tersor::vq {

struct KMeans {
  size_t entries = 256;  // codewords
  int rounds = 20;       // Lloyd's at most: fewer where a round changes no code
  size_t sample = 0;     // vectors to learn from, drawn without replacement; 0: all
  uint64_t seed = 0;
  std::span<const float> weights = {};  // as of nearest
};

// `entries` codewords. A codeword that no vector is nearest to moves to the vector that is farthest from its own, where
// one is at any distance. Fewer vectors than entries, or fewer different ones: some codewords stand for nothing.
// Raises bad_call for no vectors, for entries beyond 1..kMostCodewords, and as nearest does.
std::vector<float> kmeans(Vectors vectors, const KMeans& options, int threads);

// Scalars: a codebook of its own, ascending, for each group of columns of each row. values: [rows, columns]; the last
// group of a row may be shorter; levels: [rows, groups, entries]. weights and sample are not looked at.
void kmeans_groups(std::span<const float> values, size_t rows, size_t columns, size_t group, const KMeans& options,
                   std::span<float> levels, int threads);

// Where `bits` of a counter say so: a mix of seed and counter that no one takes for order (SplitMix64's; Steele, Lea
// and Flood, OOPSLA 2014).
constexpr uint64_t random_bits(uint64_t seed, uint64_t counter) noexcept {
  uint64_t z = seed + (counter + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

}  // namespace tersor::vq
