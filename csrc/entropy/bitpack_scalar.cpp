#include <algorithm>

#include "entropy/bitpack.h"

namespace tersor::entropy::bitpack {
namespace {

template <class T>
uint32_t pack(std::span<const T> values, int bits, std::span<uint8_t> out) noexcept {
  uint64_t held = 0;
  uint32_t all = 0;
  uint8_t* at = out.data();
  int fill = 0;
  for (const T value : values) {
    all |= value;
    held |= uint64_t(value) << fill;
    for (fill += bits; fill >= 8; fill -= 8, held >>= 8) *at++ = uint8_t(held);
  }
  if (fill > 0) *at = uint8_t(held);
  return all;
}

template <class T>
void unpack(std::span<const uint8_t> data, int bits, std::span<T> out) noexcept {
  constexpr size_t kWindow = 4;  // bytes, for up to 7 bits before a value
  const uint32_t mask = (uint32_t(1) << bits) - 1;
  const size_t whole = data.size() < kWindow ? 0 : (data.size() - kWindow + 1) * 8;  // bits where a window begins
  size_t i = 0, bit = 0;
  for (; i < out.size() && bit < whole; ++i, bit += size_t(bits))
    out[i] = T(load_le<uint32_t>(data.data() + bit / 8) >> (bit % 8) & mask);
  for (; i < out.size(); ++i, bit += size_t(bits)) {
    uint32_t window = 0;
    std::memcpy(&window, data.data() + bit / 8, std::min(kWindow, data.size() - bit / 8));
    out[i] = T(window >> (bit % 8) & mask);
  }
}

}  // namespace

uint32_t pack_scalar(std::span<const uint8_t> values, int bits, std::span<uint8_t> out) noexcept {
  return pack(values, bits, out);
}
uint32_t pack_scalar(std::span<const uint16_t> values, int bits, std::span<uint8_t> out) noexcept {
  return pack(values, bits, out);
}
void unpack_scalar(std::span<const uint8_t> data, int bits, std::span<uint8_t> out) noexcept {
  unpack(data, bits, out);
}
void unpack_scalar(std::span<const uint8_t> data, int bits, std::span<uint16_t> out) noexcept {
  unpack(data, bits, out);
}

}  // namespace tersor::entropy::bitpack
