// How often each byte value occurs.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace tersor::entropy {

using ByteCounts = std::array<uint64_t, 256>;

// Adds to counts.
void count_bytes(std::span<const uint8_t> data, ByteCounts& counts) noexcept;

// Adds the counts of about one byte in `stride`, in runs of 64 at fixed places. Everything for short data and stride 1.
void sample_bytes(std::span<const uint8_t> data, size_t stride, ByteCounts& counts) noexcept;

}  // namespace tersor::entropy
