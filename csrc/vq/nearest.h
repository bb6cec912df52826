// The nearest of a set of codewords, exactly: the first of those with the least squared distance. Distances are summed
// over dimensions in order, in float32, so that every machine and number of threads finds the same one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::vq {

inline constexpr size_t kMostDimension = 64, kMostCodewords = size_t(1) << 16;

// Vectors of `dimension` floats one behind the other.
struct Vectors {
  std::span<const float> values;
  size_t dimension = 1;
  size_t count() const noexcept { return dimension ? values.size() / dimension : 0; }
  const float* operator[](size_t i) const noexcept { return values.data() + i * dimension; }
};

// Raises bad_call for a dimension beyond 1..kMostDimension, values that are no whole vectors, and sizes that differ.
//
// weights: of the squared differences, one a dimension; empty: all 1. codes: one a vector. distances: the least squared
// distance of each; may be empty. rest: each vector less its codeword; may be empty, or the vectors themselves.
struct Nearest {
  std::span<uint16_t> codes;
  std::span<float> distances;
  std::span<float> rest;
};
void nearest(Vectors vectors, Vectors codewords, std::span<const float> weights, const Nearest& out, int threads);

}  // namespace tersor::vq
