// Chooses scales and codes of int_group and float_group for a matrix: round to nearest under the format's own rule for
// scales, or under the scale of least squared error among a fixed list, columns weighing as much as they matter. Pages:
// docs/formats/int_group.md and float_group.md, section "Ours". The parts do not depend on threads or instruction sets.
#pragma once
#include <cstdint>
#include <span>

#include "core/array.h"
#include "formats/float_group.h"
#include "formats/int_group.h"

namespace tersor::solve {

// A matrix of F32, F16 or BF16, row-major.
struct Weights {
  DType dtype = DType::F32;
  size_t rows = 0, columns = 0;
  std::span<const uint8_t> data;

  void row(size_t index, float* out) const noexcept;
};

struct GridFit {
  bool least_squares = false;           // search the list; else the format's own rule
  std::span<const float> importance{};  // of each column in the sum of squared errors; none: of all the same
};

// Fill the parts of the format. Raises bad_type (dtype), bad_call (a shape of 0; weights that are not finite: how many
// and where the first stands; importance that is negative, not finite, or not one a column; a scale that its dtype
// cannot hold) and what formats::data_of raises.
void grid_fit(const Weights& weights, const formats::IntGroup& format, const GridFit& options,
              std::span<const formats::PartRoom> parts, int threads);
void grid_fit(const Weights& weights, const formats::FloatGroup& format, const GridFit& options,
              std::span<const formats::PartRoom> parts, int threads);

}  // namespace tersor::solve
