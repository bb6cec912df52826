// Integers cut into the number of the bin that holds them and the bits of their place in it. Bins lie side by side,
// each 2^bits wide, so that a model of some 256 bins follows any law of values and what is left looks random.
// Deltas along one or two strides come before. All arithmetic is modulo 2^width. Page: docs/formats/lossless.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace tersor::transform {

inline constexpr size_t kMostBins = 256;

// U: uint8_t, uint16_t, uint32_t or uint64_t, here and below.
template <class U>
struct ValueBins {
  size_t count;  // 1..kMostBins
  // Lowest value and bits of each bin, ascending from first[0] without gaps. All 256 can be looked up: those behind
  // the last are zeros.
  U first[kMostBins];
  uint8_t bits[kMostBins];  // 0..8 * sizeof(U)
};

// Bins for a value: built once for a chunk, from bins that hold every value that will be asked for.
template <class U>
class BinFinder {
 public:
  // Scratch for so many values: a power of two; more are quicker to use and slower to build.
  static constexpr size_t cells_for(size_t values) noexcept {
    size_t cells = 1024;
    while (cells < 65536 && cells * 4 < values) cells *= 2;
    return cells;
  }
  // cells: scratch that lives as long as the finder. widest: the largest of value - bins.first[0].
  BinFinder(const ValueBins<U>& bins, U widest, std::span<uint16_t> cells) noexcept;
  void find(std::span<const U> values, uint8_t* names) const noexcept;

 private:
  const ValueBins<U>& bins_;
  std::span<uint16_t> cells_;  // a bin and how many halvings are needed from it on, for each cell of values
  int shift_ = 0;
};

// Appends each value's place in its bin to `to`, lowest bits first, without gaps. to: as many bytes as all bits need,
// and 8 more.
template <class U>
void put_places(const ValueBins<U>& bins, std::span<const U> values, const uint8_t* names, uint8_t* to) noexcept;

// Where the next place lies in `bytes`.
struct PlaceReader {
  std::span<const uint8_t> bytes;
  size_t bit = 0;
};

// The inverse of find and put_places together: values from names and places. False when the bits end too early.
template <class U>
bool take_values(const ValueBins<U>& bins, const uint8_t* names, PlaceReader& places, std::span<U> values) noexcept;

// to[i] = from[i] - from[i - stride], nothing subtracted from the first ones. Not in place.
template <class U>
void subtract_stride(std::span<const U> from, size_t stride, U* to) noexcept;

// The inverse, in place, for values[begin, end) behind those that are done.
template <class U>
void add_stride(U* values, size_t begin, size_t end, size_t stride) noexcept;

// Floats as integers of the same order, and back: the number that its other bits are, negative where the sign is set;
// so low zeros stay low zeros. -0 is the least of all.
template <class U>
constexpr U order_float(U bits) noexcept {
  constexpr U kSign = U(U(1) << (8 * sizeof(U) - 1));
  return bits > kSign ? U(kSign - bits) : bits;
}

// Bits that eight places and the load of the last of them may take.
template <class U>
inline constexpr size_t kEightsSpare = 8 * 8 * sizeof(U) + 64;

// Values in eights, as long as eight more are wanted and begin at bit `last` or before, behind which every load of 64
// bits still lies inside; kEightsSpare behind `last` the bytes end. Returns how many and moves `bit` on.
template <class U>
using TakeEights = size_t(const ValueBins<U>& bins, const uint8_t* names, size_t count, const uint8_t* bytes,
                          size_t last, size_t& bit, U* values) noexcept;
TakeEights<uint8_t> take_eights_scalar, take_eights_avx2;
TakeEights<uint16_t> take_eights_scalar, take_eights_avx2, take_eights_avx512vbmi;
TakeEights<uint32_t> take_eights_scalar, take_eights_avx2, take_eights_avx512vbmi;
TakeEights<uint64_t> take_eights_scalar, take_eights_avx2, take_eights_avx512vbmi;

template <class U>
using AddStride = void(U* values, size_t begin, size_t end, size_t stride) noexcept;
AddStride<uint8_t> add_stride_scalar, add_stride_avx2, add_stride_avx512vbmi;
AddStride<uint16_t> add_stride_scalar, add_stride_avx2, add_stride_avx512vbmi;
AddStride<uint32_t> add_stride_scalar, add_stride_avx2, add_stride_avx512vbmi;
AddStride<uint64_t> add_stride_scalar, add_stride_avx2, add_stride_avx512vbmi;

}  // namespace tersor::transform
