// Difference chunks: every width and kind of change comes back, alike on every level; damage is an error.
#include "lossless/difference.h"

#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::lossless;
using Bytes = std::vector<uint8_t>;

namespace {

Bytes noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes data(bytes);
  for (auto& byte : data) byte = uint8_t(random());
  return data;
}

// Elements of `width` bytes, one in `one_in` of them moved by at most `reach` steps up or down.
Bytes moved(const Bytes& base, size_t width, uint32_t one_in, uint32_t reach, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes data = base;
  for (size_t at = 0; at + width <= data.size(); at += width) {
    if (random() % one_in) continue;
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= uint64_t(data[at + i]) << (8 * i);
    value += random() % (2 * uint64_t(reach) + 1) - reach;
    for (size_t i = 0; i < width; ++i) data[at + i] = uint8_t(value >> (8 * i));
  }
  return data;
}

Bytes coded(const Bytes& raw, const Bytes& base, size_t width, int level) {
  Bytes out(difference_bound(raw.size()));
  out.resize(encode_difference(width == 2 ? Element::bf16 : Element::bytes, width, raw, base, level, out));
  return out;
}

Bytes decoded(const Bytes& data, const Bytes& base) {
  Bytes raw(base.size());
  decode_difference(data, base, raw);
  return raw;
}

}  // namespace

TEST_CASE("difference: every width, length and amount of change comes back, the same bytes from every ISA") {
  uint32_t seed = 1;
  for (const size_t width : {1u, 2u, 4u, 8u})
    for (const size_t bytes : {1u, 7u, 8u, 1000u, 4096u * 3, 200'000u, 262'147u})
      for (const uint32_t one_in : {1u, 50u})
        for (const uint32_t reach : {0u, 1u, 300u, 0x7fffffffu}) {
          const Bytes base = noise(bytes, ++seed), raw = moved(base, width, one_in, reach, seed);
          const Bytes want = coded(raw, base, width, 4);
          CHECK(want.size() <= difference_bound(bytes));
          check::each_isa([&] {
            CHECK(coded(raw, base, width, 4) == want);
            CHECK(decoded(want, base) == raw);
          });
        }
}

TEST_CASE("difference: one step in 2 % of 16-bit weights costs what the page says; no base costs a byte") {
  const Bytes base = noise(size_t(1) << 20, 3), raw = moved(base, 2, 50, 1, 4);
  const double bits = 8.0 * double(coded(raw, base, 2, 4).size()) / double(raw.size() / 2);
  CHECK(bits < 0.15);  // a third of the moves is by 0: 1.33 %, entropy 0.115
  CHECK(coded(base, base, 2, 4).size() == 1);
  const Bytes other = noise(size_t(1) << 20, 5);
  for (const int level : {1, 4, 9}) {
    Bytes alone(chunk_bound(raw.size()));
    alone.resize(encode_chunk(Element::bf16, raw, level, alone));
    CHECK(coded(raw, other, 2, level).size() == alone.size() + 1);
  }
}

TEST_CASE("difference: every truncation is an error, every changed bit an error or a whole result") {
  const Bytes base = noise(9000, 1), raw = moved(base, 2, 3, 40, 2), data = coded(raw, base, 2, 4);
  for (size_t cut = 0; cut < data.size(); ++cut) {
    const Bytes bad(data.begin(), data.begin() + long(cut));
    CHECK(!check::error_of([&] { decoded(bad, base); }).empty());
  }
  for (size_t bit = 0; bit < 8 * data.size(); ++bit) {
    Bytes bad = data;
    bad[bit / 8] ^= uint8_t(1 << bit % 8);
    try {
      decoded(bad, base);
    } catch (const Error& error) {
      CHECK(error.code() == Code::bad_data);
    }
  }
}

TEST_CASE("difference: the example of the page") {
  const Bytes base = {0x80, 0x3f, 0x80, 0x3f, 0x00, 0xbf, 0x81, 0x3f};
  CHECK(decoded({2, 2, 0, 0, 2, 0, 1, 1, 0}, base) == Bytes({0x80, 0x3f, 0x81, 0x3f, 0x00, 0xbf, 0x80, 0x3f}));
}

TEST_CASE("difference: hostile heads are refused by name, and calls that cannot be meant") {
  const Bytes base(12, 1);
  const auto refused = [&](const Bytes& data) { return check::error_of([&] { decoded(data, base); }); };
  CHECK(refused({3}).find("way 3") != std::string::npos);
  CHECK(refused({1, 0}).find("1 bytes too many") != std::string::npos);
  CHECK(refused({2, 3, 1, 0}).find("elements of 3") != std::string::npos);
  CHECK(refused({2, 8, 1, 0}).find("12 bytes in elements of 8") != std::string::npos);
  CHECK(refused({2, 1, 1, 0, 9}).find("too many") != std::string::npos);
  Bytes out(100);
  const auto called = [&](size_t width, size_t bytes) {
    return check::error_of([&] { encode_difference(Element::bytes, width, base, Bytes(bytes), 4, out); });
  };
  CHECK(called(3, 12).find("elements of 3") != std::string::npos);
  CHECK(called(2, 11).find("a base of 11 bytes for 12") != std::string::npos);
  // Whatever the data, so equal ones too.
  CHECK(check::error_of([&] { encode_difference(Element::bytes, 2, base, base, 0, out); }).find("level") == 0);
  const Bytes none;
  CHECK(check::error_of([&] { encode_difference(Element::bytes, 2, none, none, 4, out); }).find("a chunk has 1..") ==
        0);
}
