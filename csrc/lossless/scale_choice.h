// Whether floats are whole multiples of a step, and of which. Page: docs/formats/lossless.md, "scaled".
#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "transform/float_scale.h"

namespace tersor::lossless {

// The step that makes a sample of the floats cheapest, as multiples and corrections; none where the floats themselves
// are cheaper. A few of them tell most floats from such. width: 4 or 8 bytes a float.
std::optional<transform::FloatScale> find_scale(std::span<const uint8_t> raw, size_t width) noexcept;

}  // namespace tersor::lossless
