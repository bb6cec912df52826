// Weights as floats of 4, 6 or 8 bits with a scale a group of columns. Page: docs/formats/float_group.md.
#pragma once
#include "formats/code_rows.h"
#include "formats/parts.h"

namespace tersor::formats {

struct FloatGroup {
  enum class Element { e2m1, e2m3, e3m2, e4m3, e5m2 };
  Element element = Element::e2m1;
  size_t group = 32;                    // 16..256, kChannel or kTensor
  NumberKind scale = NumberKind::e8m0;  // f32, f16, bf16, e8m0, or e4m3 under one scale of the tensor

  const SmallFloat& floats() const noexcept;
  CodeWidth width() const noexcept { return {floats().bits, false}; }
  bool has_tensor_scale() const noexcept { return scale == NumberKind::e4m3; }
};

void check(const FloatGroup& format);  // bad_call for numbers that are none of the above

// codes, scales, and tensor_scale where scales are e4m3.
std::vector<PartNeed> parts_of(const FloatGroup& format, size_t rows, size_t columns);

// Reads the parts, which stay alive with the grid. Raises bad_call (format, shape) and bad_data (parts and numbers).
Grid grid_of(const FloatGroup& format, size_t rows, size_t columns, std::span<const Part> parts, int threads);

}  // namespace tersor::formats
