// XXH3-128 with seed 0: names content (tensors, bases). For identity, not against an adversary.
// The result equals other implementations' (xxh128sum); bytes() is the canonical big-endian form that they print.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>

namespace tersor {

struct Hash128 {
  uint64_t low = 0, high = 0;
  auto operator<=>(const Hash128&) const = default;
  std::array<uint8_t, 16> bytes() const noexcept;
  std::string hex() const;
};

Hash128 hash128(std::span<const uint8_t> data) noexcept;

}  // namespace tersor
