#include "lossless/scale_choice.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace tersor::lossless {
namespace {

using transform::FloatScale;
using transform::kFloatBits;
__extension__ using Wide = unsigned __int128;

constexpr size_t kSample = 64, kFirst = 8;
constexpr int kMostDecimals = 18;

template <class U>
constexpr int kBias = sizeof(U) == 8 ? 1023 : 127;

template <class U>
FloatScale scale_of(uint64_t mantissa, int exponent) noexcept {
  return {mantissa, uint16_t(exponent + kBias<U> - 2)};
}

// 10^-decimals in so many bits, rounded.
template <class U>
FloatScale decimal_scale(int decimals, int bits) noexcept {
  uint64_t power = 1;
  for (int i = 0; i < decimals; ++i) power *= 10;
  const int length = std::bit_width(power - 1);  // 10^-decimals is at least 2^-length
  const int drop = 64 - bits;
  const Wide whole = (Wide(1) << (63 + length)) / power;  // 2^63 to 2^64
  uint64_t mantissa = uint64_t(std::min<Wide>(whole, ~uint64_t(0)));
  if (drop > 0) {
    mantissa = ((mantissa >> (drop - 1)) + 1) >> 1;
    if (mantissa >> bits) return scale_of<U>(uint64_t(1) << 63, 1 - 63 - length);
    mantissa <<= drop;
  }
  return scale_of<U>(mantissa, -63 - length);
}

// Bits that the sample costs with a scale: sizes of the multiples, and of what is not one. Gives up where the first
// ones do not pay.
template <class U>
size_t cost(const FloatScale& scale, std::span<const U> sample) noexcept {
  using S = std::make_signed_t<U>;
  std::array<U, kSample> multiples, corrections;
  size_t bits = 0, exact = 0;
  for (size_t begin = 0, end = std::min(kFirst, sample.size()); begin < sample.size();
       begin = end, end = sample.size()) {
    transform::split_scaled<U>(scale, sample.subspan(begin, end - begin), multiples.data(), corrections.data());
    for (size_t i = 0; i < end - begin; ++i) {
      const S multiple = S(multiples[i]), correction = S(corrections[i]);
      bits += size_t(std::bit_width(U(multiple < 0 ? 0 - U(multiple) : U(multiple))));
      exact += correction == 0;
      if (correction) bits += 2 + 2 * size_t(std::bit_width(U(correction < 0 ? ~U(correction) : U(correction))));
    }
    if (bits > (kFloatBits<U> - 2) * end) return ~size_t(0);
  }
  return exact * 2 >= sample.size() ? bits : ~size_t(0);  // else chance, and what corrections cost is not known so well
}

template <class U>
std::optional<FloatScale> find(std::span<const uint8_t> raw) noexcept {
  constexpr int kBits = kFloatBits<U>;
  constexpr U kMost = U(~U(0)) >> 1;
  const size_t n = raw.size() / sizeof(U), step = std::max<size_t>(1, n / kSample);
  std::array<U, kSample> room;
  size_t count = 0;
  int lowest = 1 << 20, highest = -lowest;  // exponents of the lowest and the highest bit that is set in any of them
  for (size_t i = 0; i < kSample && i * step < n; ++i) {
    U value;
    std::memcpy(&value, raw.data() + (i * step + (i * 0x9E3779B1u >> 16) % step) * sizeof(U), sizeof(U));
    const int exponent = int((value & kMost) >> (kBits - 1));
    if (exponent == 0 || exponent == int(kMost >> (kBits - 1))) continue;
    room[count++] = value;
    const U mantissa = U((value & ((U(1) << (kBits - 1)) - 1)) | U(1) << (kBits - 1));
    lowest = std::min(lowest, exponent - kBias<U> - (kBits - 1) + std::countr_zero(mantissa));
    highest = std::max(highest, exponent - kBias<U>);
  }
  if (count < kFirst) return std::nullopt;
  const std::span<const U> sample = std::span<const U>(room).first(count);
  std::optional<FloatScale> best;
  size_t least = size_t(kBits - 2) * count;  // what the floats cost, and a bit or two that this must save
  const auto consider = [&](const FloatScale& scale) {
    const size_t bits = cost(scale, sample);
    if (bits < least) least = bits, best = scale;
  };
  // Any floats are multiples of some power of two; few bits between make them numbers.
  if (highest - lowest < (sizeof(U) == 8 ? 32 : 20) && std::abs(lowest) < kBias<U> / 2)
    consider(scale_of<U>(uint64_t(1) << 63, lowest - 63));
  for (int decimals = 1; decimals <= (sizeof(U) == 8 ? kMostDecimals : 9); ++decimals)
    for (const int bits : {64, 53, 24})
      if (sizeof(U) == 8 || bits != 53) consider(decimal_scale<U>(decimals, bits));
  return best;
}

}  // namespace

std::optional<FloatScale> find_scale(std::span<const uint8_t> raw, size_t width) noexcept {
  return width == 8 ? find<uint64_t>(raw) : find<uint32_t>(raw);
}

}  // namespace tersor::lossless
