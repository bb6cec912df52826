// Which neighbors predict a value best: none, the one before, the one a row before, or both.
// Page: docs/formats/lossless.md, "series".
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::lossless {

inline constexpr size_t kMostStrides = 2;

// Widths that matrices often have: columns of their own scale are found though the values between look random.
inline constexpr size_t kUsualRows[] = {256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096};

// Strides to subtract along, one after the other; 0 where there are fewer.
using Strides = std::array<size_t, kMostStrides>;

// The difference that subtracting along these strides leaves at place `at`; what lies before the values counts as
// start.
template <class U>
U difference(std::span<const U> values, U start, const Strides& strides, size_t at) noexcept {
  const auto once = [&](size_t i) noexcept {
    return U(values[i] - (strides[0] && i >= strides[0] ? values[i - strides[0]] : start));
  };
  return strides[1] && at >= strides[1] ? U(once(at) - once(at - strides[1])) : once(at);
}

// The strides that promise the smallest differences, and the bits these cost on a sample, in 2^-16 bit a value.
struct StrideChoice {
  Strides strides{};
  uint64_t cost = ~uint64_t(0);
};

// farthest: the largest stride to look at. plain: what the values cost without; only where strides up to 4 do better
// the farther ones are looked at up to `farthest`, else up to a twelfth of it. Raises environment when memory is short.
template <class U>
StrideChoice choose_strides(std::span<const U> values, size_t farthest, uint64_t plain);

}  // namespace tersor::lossless
