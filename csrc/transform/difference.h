// Differences of integers to others, small ones first: 0, -1, 1, -2, ... become 0, 1, 2, 3, ... (zigzag), modulo
// 2^(8 width), and are cut into planes of their bytes, the lowest first.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::transform {

inline constexpr size_t kMostWidth = 8;

// Elements of `width` bytes (1, 2, 4 or 8), little-endian. planes: `width` of them, each base.size() / width long.
void subtract_to_planes(size_t width, std::span<const uint8_t> from, std::span<const uint8_t> base,
                        uint8_t* const* planes) noexcept;

// The reverse. sum and base are equally long, a multiple of width.
void add_from_planes(size_t width, const uint8_t* const* planes, std::span<const uint8_t> base,
                     std::span<uint8_t> sum) noexcept;

}  // namespace tersor::transform
