#include "transform/difference.h"

#include <cstring>
#include <type_traits>

#include "core/error.h"

namespace tersor::transform {
namespace {

// Widths are template arguments so that compilers unroll the planes and vectorize the elements. Arrays need not be
// aligned; 512 elements at a time stay in the L1 cache between the two loops.
constexpr size_t kBlock = 512;

template <class Word>
void subtract(const uint8_t* from, const uint8_t* base, size_t count, uint8_t* const* planes) noexcept {
  for (size_t at = 0; at < count; at += kBlock) {
    const size_t n = count - at < kBlock ? count - at : kBlock;
    Word zigzag[kBlock];
    for (size_t i = 0; i < n; ++i) {
      Word a, b;
      std::memcpy(&a, from + (at + i) * sizeof a, sizeof a), std::memcpy(&b, base + (at + i) * sizeof b, sizeof b);
      const Word d = Word(a - b);
      zigzag[i] = Word(Word(d << 1) ^ Word(std::make_signed_t<Word>(d) >> (8 * sizeof d - 1)));
    }
    for (size_t byte = 0; byte < sizeof(Word); ++byte) {
      uint8_t* const plane = planes[byte] + at;
      for (size_t i = 0; i < n; ++i) plane[i] = uint8_t(zigzag[i] >> (8 * byte));
    }
  }
}

template <class Word>
void add(const uint8_t* const* planes, const uint8_t* base, size_t count, uint8_t* sum) noexcept {
  for (size_t at = 0; at < count; at += kBlock) {
    const size_t n = count - at < kBlock ? count - at : kBlock;
    Word zigzag[kBlock];
    for (size_t i = 0; i < n; ++i) zigzag[i] = planes[0][at + i];
    for (size_t byte = 1; byte < sizeof(Word); ++byte) {
      const uint8_t* const plane = planes[byte] + at;
      for (size_t i = 0; i < n; ++i) zigzag[i] = Word(zigzag[i] | Word(plane[i]) << (8 * byte));
    }
    for (size_t i = 0; i < n; ++i) {
      Word b;
      std::memcpy(&b, base + (at + i) * sizeof b, sizeof b);
      const Word a = Word(Word(Word(zigzag[i] >> 1) ^ Word(-Word(zigzag[i] & 1))) + b);
      std::memcpy(sum + (at + i) * sizeof a, &a, sizeof a);
    }
  }
}

}  // namespace

void subtract_to_planes(size_t width, std::span<const uint8_t> from, std::span<const uint8_t> base,
                        uint8_t* const* planes) noexcept {
  TERSOR_ASSERT(from.size() == base.size() && from.size() % width == 0);
  const size_t count = from.size() / width;
  switch (width) {
    case 1: return subtract<uint8_t>(from.data(), base.data(), count, planes);
    case 2: return subtract<uint16_t>(from.data(), base.data(), count, planes);
    case 4: return subtract<uint32_t>(from.data(), base.data(), count, planes);
    default: return subtract<uint64_t>(from.data(), base.data(), count, planes);
  }
}

void add_from_planes(size_t width, const uint8_t* const* planes, std::span<const uint8_t> base,
                     std::span<uint8_t> sum) noexcept {
  TERSOR_ASSERT(sum.size() == base.size() && sum.size() % width == 0);
  const size_t count = sum.size() / width;
  switch (width) {
    case 1: return add<uint8_t>(planes, base.data(), count, sum.data());
    case 2: return add<uint16_t>(planes, base.data(), count, sum.data());
    case 4: return add<uint32_t>(planes, base.data(), count, sum.data());
    default: return add<uint64_t>(planes, base.data(), count, sum.data());
  }
}

}  // namespace tersor::transform
