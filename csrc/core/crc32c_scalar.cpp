// Eight bytes a step: table k holds the remainder of a byte that k more bytes follow, so that eight look-ups are
// independent of one another (Kounavis and Berry, "Novel Table Lookup-Based Algorithms for CRC Generation", 2008).
#include <array>

#include "core/bits.h"
#include "core/crc32c.h"

namespace tersor {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected: bit 31 is x^0

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? kPolynomial : 0);
    tables[0][byte] = remainder;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = before >> 8 ^ tables[0][before & 0xff];
    }
  }
  return tables;
}
constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32c_scalar(std::span<const uint8_t> data, uint32_t state) noexcept {
  size_t i = 0;
  for (; i + 8 <= data.size(); i += 8) {
    const uint64_t word = load_le<uint64_t>(data.data() + i) ^ state;
    state = 0;
    for (size_t k = 0; k < 8; ++k) state ^= kTables[7 - k][word >> 8 * k & 0xff];
  }
  for (; i < data.size(); ++i) state = state >> 8 ^ kTables[0][(state ^ data[i]) & 0xff];
  return state;
}

}  // namespace tersor
