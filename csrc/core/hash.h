// XXH3-128 with seed 0: names content (tensors, bases). For identity, not against an adversary.
// The result equals other implementations' (xxh128sum); bytes() is the canonical big-endian form that they print.
#pragma once
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tersor {

struct Hash128 {
  uint64_t low = 0, high = 0;
  auto operator<=>(const Hash128&) const = default;
  std::array<uint8_t, 16> bytes() const noexcept;
  static Hash128 of_bytes(std::span<const uint8_t, 16> canonical) noexcept;
  std::string hex() const;
};

Hash128 hash128(std::span<const uint8_t> data) noexcept;

// The same hash of bytes that come in pieces, cut anywhere.
class HashStream {
 public:
  HashStream() noexcept;
  void update(std::span<const uint8_t> data) noexcept;
  Hash128 finish() const noexcept;

 private:
  static constexpr size_t kStripe = 64, kBlock = 1024;
  std::array<uint64_t, 8> lanes_;
  // The last stripe of all may reach back into the block before: its bytes stand ahead of the pending ones.
  std::array<uint8_t, kStripe + kBlock> tail_;
  size_t pending_ = 0;
  uint64_t total_ = 0;
};

// Takes stripes of 64 bytes from the start of a block of 1024 on and scrambles behind every full block.
// stripes.size() is a multiple of 64; secret has 192 bytes.
void hash_stripes_scalar(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes,
                         const uint8_t* secret) noexcept;
void hash_stripes_avx2(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes, const uint8_t* secret) noexcept;
void hash_stripes_avx512(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes,
                         const uint8_t* secret) noexcept;

}  // namespace tersor
