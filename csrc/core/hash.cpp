// XXH3-128 from its specification (xxHash, doc/xxhash_spec.md, 0.2.0), whose names stand where they help. The seed is 0
// everywhere, so the terms that hold it are gone.
#include "core/hash.h"

#include <cstring>

#include "core/bits.h"
#include "core/isa.h"

namespace tersor {
namespace {

constexpr uint64_t kPrime32_1 = 0x9e3779b1, kPrime32_2 = 0x85ebca77, kPrime32_3 = 0xc2b2ae3d;
constexpr uint64_t kPrime64_1 = 0x9e3779b185ebca87, kPrime64_2 = 0xc2b2ae3d27d4eb4f, kPrime64_3 = 0x165667b19e3779f9,
                   kPrime64_4 = 0x85ebca77c2b2ae63, kPrime64_5 = 0x27d4eb2f165667c5;
constexpr uint64_t kPrimeMx1 = 0x165667919e3779f9, kPrimeMx2 = 0x9fb21c651e98df25;
constexpr size_t kStripe = 64, kBlock = 1024;

alignas(64) constexpr uint8_t kSecret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

constexpr std::array<uint64_t, 8> kInitialLanes = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
                                                   kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};

constexpr Variant<void(std::span<uint64_t, 8>, std::span<const uint8_t>, const uint8_t*) noexcept> kStripes[] = {
    {Isa::scalar, hash_stripes_scalar},
    TERSOR_X86({Isa::avx2, hash_stripes_avx2}, {Isa::avx512, hash_stripes_avx512}, )};

uint64_t secret64(size_t offset) noexcept { return load_le<uint64_t>(kSecret + offset); }
uint32_t secret32(size_t offset) noexcept { return load_le<uint32_t>(kSecret + offset); }

uint64_t avalanche(uint64_t x) noexcept {
  x = (x ^ x >> 37) * kPrimeMx1;
  return x ^ x >> 32;
}

uint64_t avalanche_xxh64(uint64_t x) noexcept {
  x = (x ^ x >> 33) * kPrime64_2;
  x = (x ^ x >> 29) * kPrime64_3;
  return x ^ x >> 32;
}

struct Product {
  uint64_t low, high;
};
Product multiply(uint64_t a, uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide(a) * b;
  return {uint64_t(product), uint64_t(product >> 64)};
}
uint64_t folded(uint64_t a, uint64_t b) noexcept {
  const Product product = multiply(a, b);
  return product.low ^ product.high;
}

Hash128 hash_1_to_3(const uint8_t* data, size_t size) noexcept {
  const uint32_t combined =
      data[size - 1] | uint32_t(size) << 8 | uint32_t(data[0]) << 16 | uint32_t(data[size >> 1]) << 24;
  const uint64_t low = uint64_t(secret32(0) ^ secret32(4)) ^ combined;
  const uint64_t high = uint64_t(secret32(8) ^ secret32(12)) ^ std::rotl(__builtin_bswap32(combined), 13);
  return {avalanche_xxh64(low), avalanche_xxh64(high)};
}

Hash128 hash_4_to_8(const uint8_t* data, size_t size) noexcept {
  const uint64_t first = load_le<uint32_t>(data), last = load_le<uint32_t>(data + size - 4);
  const uint64_t value = secret64(16) ^ secret64(24) ^ (first | last << 32);
  auto [low, high] = multiply(value, kPrime64_1 + (size << 2));
  high += low << 1;
  low ^= high >> 3;
  low = (low ^ low >> 35) * kPrimeMx2;
  return {low ^ low >> 28, avalanche(high)};
}

Hash128 hash_9_to_16(const uint8_t* data, size_t size) noexcept {
  const uint64_t first = load_le<uint64_t>(data), last = load_le<uint64_t>(data + size - 8);
  const uint64_t value = secret64(48) ^ secret64(56) ^ last;
  const Product a = multiply(secret64(32) ^ secret64(40) ^ first ^ last, kPrime64_1);
  const uint64_t high = a.high + value + (value & 0xffffffff) * (kPrime32_2 - 1);
  const uint64_t low = (a.low + (uint64_t(size - 1) << 54)) ^ __builtin_bswap64(high);
  const Product b = multiply(low, kPrime64_2);
  return {avalanche(b.low), avalanche(b.high + high * kPrime64_2)};
}

// Sixteen bytes mixed with sixteen of the secret. The last step of a medium input has seed 0, too: its negation is 0.
uint64_t mix(const uint8_t* data, size_t secret) noexcept {
  return folded(load_le<uint64_t>(data) ^ secret64(secret), load_le<uint64_t>(data + 8) ^ secret64(secret + 8));
}

struct MediumState {
  uint64_t a, b = 0;
  void mix_two(const uint8_t* first, const uint8_t* second, size_t secret) noexcept {
    a = (a + mix(first, secret)) ^ (load_le<uint64_t>(second) + load_le<uint64_t>(second + 8));
    b = (b + mix(second, secret + 16)) ^ (load_le<uint64_t>(first) + load_le<uint64_t>(first + 8));
  }
};

Hash128 hash_17_to_240(const uint8_t* data, size_t size) noexcept {
  MediumState state{size * kPrime64_1};
  if (size <= 128) {
    for (size_t round = (size - 1) / 32 + 1; round-- > 0;) {
      state.mix_two(data + 16 * round, data + size - 16 * round - 16, 32 * round);
    }
  } else {
    for (size_t i = 0; i < 4; ++i) state.mix_two(data + 32 * i, data + 32 * i + 16, 32 * i);
    state.a = avalanche(state.a);
    state.b = avalanche(state.b);
    for (size_t i = 4; i < size / 32; ++i) state.mix_two(data + 32 * i, data + 32 * i + 16, 32 * (i - 4) + 3);
    state.mix_two(data + size - 16, data + size - 32, 103);
  }
  const uint64_t high = state.a * kPrime64_1 + state.b * kPrime64_4 + size * kPrime64_2;
  return {avalanche(state.a + state.b), 0 - avalanche(high)};
}

Hash128 hash_up_to_240(const uint8_t* data, size_t size) noexcept {
  if (size > 16) return hash_17_to_240(data, size);
  if (size > 8) return hash_9_to_16(data, size);
  if (size > 3) return hash_4_to_8(data, size);
  if (size > 0) return hash_1_to_3(data, size);
  return {avalanche_xxh64(secret64(64) ^ secret64(72)), avalanche_xxh64(secret64(80) ^ secret64(88))};
}

uint64_t merged(const std::array<uint64_t, 8>& lanes, uint64_t initial, size_t secret) noexcept {
  for (size_t i = 0; i < 8; i += 2) {
    initial += folded(lanes[i] ^ secret64(secret + 8 * i), lanes[i + 1] ^ secret64(secret + 8 * i + 8));
  }
  return avalanche(initial);
}

// last: the 1..1024 bytes that no full block has taken; the 64 bytes that end there are readable, whatever last's size.
Hash128 finish_long(std::array<uint64_t, 8> lanes, std::span<const uint8_t> last, uint64_t total) noexcept {
  pick(kStripes)(lanes, last.first((last.size() - 1) / kStripe * kStripe), kSecret);
  const uint8_t* const stripe = last.data() + last.size() - kStripe;
  for (size_t lane = 0; lane < 8; ++lane) {
    const uint64_t word = load_le<uint64_t>(stripe + 8 * lane);
    const uint64_t keyed = word ^ secret64(sizeof kSecret - 71 + 8 * lane);
    lanes[lane ^ 1] += word;
    lanes[lane] += (keyed & 0xffffffff) * (keyed >> 32);
  }
  return {merged(lanes, total * kPrime64_1, 11), merged(lanes, ~(total * kPrime64_2), sizeof kSecret - 75)};
}

}  // namespace

std::array<uint8_t, 16> Hash128::bytes() const noexcept {
  std::array<uint8_t, 16> canonical;
  store_le(canonical.data(), __builtin_bswap64(high));
  store_le(canonical.data() + 8, __builtin_bswap64(low));
  return canonical;
}

Hash128 Hash128::of_bytes(std::span<const uint8_t, 16> canonical) noexcept {
  return {__builtin_bswap64(load_le<uint64_t>(canonical.data() + 8)),
          __builtin_bswap64(load_le<uint64_t>(canonical.data()))};
}

std::string Hash128::hex() const {
  std::string text;
  for (const uint8_t byte : bytes()) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

Hash128 hash128(std::span<const uint8_t> data) noexcept {
  if (data.size() <= 240) return hash_up_to_240(data.data(), data.size());
  auto lanes = kInitialLanes;
  const size_t blocks = (data.size() - 1) / kBlock * kBlock;
  pick(kStripes)(lanes, data.first(blocks), kSecret);
  return finish_long(lanes, data.subspan(blocks), data.size());
}

HashStream::HashStream() noexcept : lanes_(kInitialLanes) {}

void HashStream::update(std::span<const uint8_t> data) noexcept {
  total_ += data.size();
  uint8_t* const pending = tail_.data() + kStripe;
  // A full block waits until a byte follows it: the last block of all is treated apart.
  while (!data.empty()) {
    if (pending_ == kBlock) {
      pick(kStripes)(lanes_, {pending, kBlock}, kSecret);
      std::memcpy(tail_.data(), pending + kBlock - kStripe, kStripe);
      pending_ = 0;
    }
    if (pending_ == 0 && data.size() > kBlock) {
      const size_t blocks = (data.size() - 1) / kBlock * kBlock;
      pick(kStripes)(lanes_, data.first(blocks), kSecret);
      std::memcpy(tail_.data(), data.data() + blocks - kStripe, kStripe);
      data = data.subspan(blocks);
    }
    const size_t taken = std::min(data.size(), kBlock - pending_);
    std::memcpy(pending + pending_, data.data(), taken);
    pending_ += taken;
    data = data.subspan(taken);
  }
}

Hash128 HashStream::finish() const noexcept {
  const uint8_t* const pending = tail_.data() + kStripe;
  if (total_ <= 240) return hash_up_to_240(pending, size_t(total_));
  return finish_long(lanes_, {pending, pending_}, total_);
}

}  // namespace tersor
