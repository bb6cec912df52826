// The reference of XXH3's stripe loop; the names are the specification's (xxHash, doc/xxhash_spec.md, 0.2.0).
#include "core/bits.h"
#include "core/hash.h"

namespace tersor {

void hash_stripes_scalar(std::span<uint64_t, 8> lanes, std::span<const uint8_t> stripes,
                         const uint8_t* secret) noexcept {
  constexpr uint64_t kPrime32_1 = 0x9e3779b1;
  size_t in_block = 0;
  for (size_t at = 0; at < stripes.size(); at += 64) {
    for (size_t lane = 0; lane < 8; ++lane) {
      const uint64_t word = load_le<uint64_t>(stripes.data() + at + 8 * lane);
      const uint64_t keyed = word ^ load_le<uint64_t>(secret + 8 * in_block + 8 * lane);
      lanes[lane ^ 1] += word;
      lanes[lane] += (keyed & 0xffffffff) * (keyed >> 32);
    }
    if (++in_block < 16) continue;
    in_block = 0;
    for (size_t lane = 0; lane < 8; ++lane) {
      const uint64_t mixed = lanes[lane] ^ lanes[lane] >> 47 ^ load_le<uint64_t>(secret + 128 + 8 * lane);
      lanes[lane] = mixed * kPrime32_1;
    }
  }
}

}  // namespace tersor
