#include "core/crc32c.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "check.h"
#include "core/isa.h"

using namespace tersor;

namespace {

std::span<const uint8_t> bytes_of_text(const char* text) {
  return {reinterpret_cast<const uint8_t*>(text), std::strlen(text)};
}

// One bit at a time, straight from the definition.
uint32_t bit_by_bit(std::span<const uint8_t> data) {
  uint32_t state = ~uint32_t(0);
  for (const uint8_t byte : data) {
    state ^= byte;
    for (int bit = 0; bit < 8; ++bit) state = state >> 1 ^ (state & 1 ? 0x82f63b78 : 0);
  }
  return ~state;
}

}  // namespace

TEST_CASE("crc32c: the values of RFC 3720") {
  std::vector<uint8_t> data(32, 0);
  CHECK(crc32c(data) == 0x8a9136aa);
  std::fill(data.begin(), data.end(), uint8_t(0xff));
  CHECK(crc32c(data) == 0x62a8ab43);
  std::iota(data.begin(), data.end(), uint8_t(0));
  CHECK(crc32c(data) == 0x46dd794e);
  std::reverse(data.begin(), data.end());
  CHECK(crc32c(data) == 0x113fdb5c);
  CHECK(crc32c(bytes_of_text("123456789")) == 0xe3069283);
  CHECK(crc32c({}) == 0);
}

TEST_CASE("crc32c: every level equals the definition, at every length, alignment and cut") {
  std::vector<uint8_t> data(40'000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = uint8_t(uint32_t(i) * 2654435761u >> 24);
  for (int level = 0; level <= int(machine_isa()); ++level) {
    hold_isa(Isa(level));
    for (size_t length = 0; length < 1700; ++length) {
      const auto part = std::span(data).subspan(length % 9, length);
      CHECK(crc32c(part) == bit_by_bit(part));
    }
    for (const size_t length : {size_t(12'287), size_t(12'288), size_t(12'289), size_t(24'577), data.size()}) {
      const auto part = std::span(data).first(length);
      const uint32_t whole = bit_by_bit(part);
      CHECK(crc32c(part) == whole);
      for (const size_t cut : {size_t(1), length / 3, length - 1}) {
        CHECK(crc32c(part.subspan(cut), crc32c(part.first(cut))) == whole);
      }
    }
  }
  hold_isa(machine_isa());
}
