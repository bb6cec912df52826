// Which bins follow a law of values best. Page: docs/formats/lossless.md, "series".
#pragma once
#include <cstdint>
#include <span>

#include "transform/value_bins.h"

namespace tersor::lossless {

inline constexpr size_t kMostSampled = 2048;

// Bins that hold every value from least to most, as signed numbers, and cost a sample of the values least. sample: at
// most kMostSampled, put in order here. values: how many the sample stands for. Returns the cost of one of the sample's
// values in 2^-16 bit, the bins' own bytes included.
template <class U>
uint64_t choose_bins(std::span<U> sample, size_t values, U least, U most, transform::ValueBins<U>& bins) noexcept;

}  // namespace tersor::lossless
