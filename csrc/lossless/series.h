// Integers of one width as a series: differences along strides, a common divisor, bins, and bits. Every law of values
// is followed closely, and what the neighbors tell is used. Page: docs/formats/lossless.md, "series".
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "lossless/plane.h"
#include "lossless/stride_choice.h"
#include "transform/value_bins.h"

namespace tersor::lossless {

struct SeriesOptions {
  size_t farthest = 2048;  // the largest stride to look at; 0: none but those that are given
  size_t segment = 65536;  // values that a table of bins serves at least
  int precision = 14;      // of the tables
  bool quick = true;       // see PlaneOptions
};

// How a series will be coded. cost: bits a value, in 2^-16 bit, on a sample.
template <class U>
struct SeriesPlan {
  Strides strides{};
  U start = 0;
  uint64_t divisor = 1;
  transform::ValueBins<U> bins;
  uint64_t cost = 0;
  U widest = 0;                    // of what the bins hold, from their beginning on
  std::span<const U> differences;  // what the bins hold
};

// U: uint8_t, uint16_t, uint32_t or uint64_t, read as signed numbers. values: 1..2^20. scratch: three
// times as many; the plan goes on using it and the values.
template <class U>
SeriesPlan<U> plan_series(std::span<const U> values, const SeriesOptions& options, std::span<U> scratch);

template <class U>
void encode_series(const SeriesPlan<U>& plan, const SeriesOptions& options, ByteWriter& out);

// Takes a series from the front of `data` and moves `data` behind it. Raises bad_data.
template <class U>
void decode_series(std::span<const uint8_t>& data, std::span<U> values);

}  // namespace tersor::lossless
