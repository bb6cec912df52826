// Whether numbers are rows of a few columns that follow laws of their own. Page: docs/formats/lossless.md, "columns".
#pragma once
#include <cstddef>
#include <span>

namespace tersor::lossless {

// How many columns promise to be cheaper each by itself; 0: none. Looks at some hundred numbers.
template <class U>
size_t find_columns(std::span<const U> values) noexcept;

}  // namespace tersor::lossless
