// Distributions of learned codecs as masses of integers, in integer arithmetic alone: machines that are given the same
// parameters hold the same tables. Arithmetic and constants: docs/formats/table_set.md.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "entropy/table_set.h"

namespace tersor::entropy {

enum class Family : uint8_t { gaussian, laplace, logistic, student_t };

inline constexpr int kScaleBits = 16;  // fraction bits of scales, means and weights
inline constexpr uint32_t kLeastScale = 1 << 8, kMostScale = uint32_t(8192) << kScaleBits;  // 1/256..8192
inline constexpr int kFreedomBits = 8;                                                      // of degrees of freedom
inline constexpr uint32_t kLeastFreedom = 1 << 8, kMostFreedom = uint32_t(256) << kFreedomBits;  // 1..256
inline constexpr size_t kMostComponents = 4;

// The upper tail of a family's standard member, P(Z > z) for z >= 0, by cubic pieces between nodes that stand 1/64
// apart below 1 and 1/64 of an octave beyond.
class Shape {
 public:
  // freedom: Student's degrees of freedom, 8 fraction bits; ignored for the others.
  Shape(Family family, uint32_t freedom);

  static constexpr int kPositionBits = 24, kTailBits = 47;
  uint64_t tail(uint64_t position) const noexcept;  // 24 fraction bits in, 47 out; tail(0) is exactly a half

 private:
  struct Piece {
    int64_t value, slope, square, cube;
  };
  std::vector<Piece> pieces_;
};

struct Component {
  const Shape* shape;
  uint32_t weight;  // relative to the other components'
  int32_t mean;     // 16 fraction bits
  uint32_t scale;   // 16 fraction bits
};

// Masses of all integers that are worth half a slot of 2^precision, and of the rest. Raises bad_call: scales or means
// out of range, weights that are all 0, more than 65,535 integers.
Masses masses_of(std::span<const Component> components, int precision);

// A table, or 2^fraction_bits of them, for each scale, around 0. freedoms: one for each scale, for student_t alone.
TableSet make_tables(Family family, std::span<const uint32_t> scales, std::span<const uint32_t> freedoms, int precision,
                     int fraction_bits);

// A table for each row of `components` parameters; freedoms as above, for each component.
TableSet make_mixtures(Family family, size_t components, std::span<const uint32_t> weights,
                       std::span<const int32_t> means, std::span<const uint32_t> scales,
                       std::span<const uint32_t> freedoms, int precision, int fraction_bits);

// Probabilities as masses: multiplied by a power of two and rounded, both of which are exact on every machine.
// Raises bad_call: negative, infinite or NaN.
Masses masses_of_pmf(int32_t low, std::span<const double> pmf, double outside);

}  // namespace tersor::entropy
