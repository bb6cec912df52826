// Whether numbers are rows of a few columns that follow laws of their own. Page: docs/formats/lossless.md, records.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::lossless {

struct ColumnChoice {
  size_t columns;   // that promise to be cheaper each by itself; 0: none
  uint64_t saving;  // of a value's size, in 2^-16 bit
};

// Looks at some hundred numbers.
template <class U>
ColumnChoice find_columns(std::span<const U> values) noexcept;

}  // namespace tersor::lossless
