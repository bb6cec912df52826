#include "entropy/bitpack.h"

#include <memory>
#include <random>

#include "check.h"
#include "core/error.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

template <class T>
void come_back(int bits, size_t n) {
  std::mt19937 random(uint32_t(n * 17 + size_t(bits)));
  // Allocations of exactly the size, so that a sanitizer sees a read or a write outside.
  const auto values = std::make_unique<T[]>(n), back = std::make_unique<T[]>(n);
  for (size_t i = 0; i < n; ++i) values[i] = T(random() & ((1u << bits) - 1));
  const size_t bytes = size_t(bitpack::packed_bytes(n, bits));
  const auto want = std::make_unique<uint8_t[]>(bytes), got = std::make_unique<uint8_t[]>(bytes);
  bitpack::pack_scalar(std::span<const T>(values.get(), n), bits, {want.get(), bytes});
  check::each_isa([&] {
    bitpack::pack_bits(std::span<const T>(values.get(), n), bits, {got.get(), bytes}, 2);
    CHECK(std::equal(want.get(), want.get() + bytes, got.get()));
    bitpack::unpack_bits({got.get(), bytes}, bits, std::span(back.get(), n), 2);
    CHECK(std::equal(values.get(), values.get() + n, back.get()));
    std::fill_n(got.get(), bytes, uint8_t(0xff)), std::fill_n(back.get(), n, T(0));
  });
}

template <class T>
void find_misfits(int bits, size_t n) {
  const std::vector<T> fits(n, T((1u << bits) - 1));
  std::vector<uint8_t> out(size_t(bitpack::packed_bytes(n, bits)));
  check::each_isa([&] {
    for (size_t place = 0; place < n; ++place)
      for (int bit = bits; bit < int(8 * sizeof(T)); ++bit) {
        std::vector<T> values = fits;
        values[place] = T(1u << bit);
        CHECK(check::error_of([&] { bitpack::pack_bits(std::span<const T>(values), bits, out, 1); }) ==
              text_of("value ", 1u << bit, " at place ", place, " does not fit ", bits, " bits"));
      }
  });
}

}  // namespace

TEST_CASE("bitpack: every width and length, alike on every level and on threads") {
  for (size_t n = 0; n < 600; n += n < 130 ? 1 : 67) {
    for (int bits = 1; bits <= 8; ++bits) come_back<uint8_t>(bits, n);
    for (int bits = 1; bits <= 16; ++bits) come_back<uint16_t>(bits, n);
  }
  for (const int bits : {1, 3, 7}) come_back<uint8_t>(bits, 600011);
  for (const int bits : {5, 12, 15}) come_back<uint16_t>(bits, 600011);
}

TEST_CASE("bitpack: a value that does not fit is found wherever it stands") {
  for (int bits = 1; bits < 8; ++bits) find_misfits<uint8_t>(bits, 100);
  for (int bits = 1; bits < 16; ++bits) find_misfits<uint16_t>(bits, 60);
}

TEST_CASE("bitpack: sizes that differ are refused") {
  std::vector<uint8_t> values(9), bytes(3);
  CHECK(check::error_of([&] { bitpack::pack_bits(std::span<const uint8_t>(values), 3, bytes, 1); }) ==
        "a buffer of 3 bytes, 4 are needed");
  CHECK(check::error_of([&] { bitpack::unpack_bits(bytes, 3, std::span(values), 1); }) ==
        "packed values: 3 bytes, 4 are needed for 9 values of 3 bits");
  CHECK(!check::error_of([&] { bitpack::packed_bytes(~uint64_t(0), 3); }).empty());
}
