// Unsigned integers of 1 to 16 bits one behind the other, low bits first. Page: docs/formats/bitpack.md.
#pragma once
#include <cstdint>
#include <span>

#include "core/bits.h"

namespace tersor::entropy::bitpack {

inline constexpr int kMostBits = 16;

// Raises bad_call unless 1 <= bits <= most.
void require_bits(int bits, int most);

// Bytes of `count` values of `bits` bits.
inline uint64_t packed_bytes(uint64_t count, int bits) {
  return ceil_div(checked_mul(count, uint64_t(bits), "packed values"), 8);
}

// values: each below 2^bits, else bad_call with the first that is not. T: uint8_t (bits 1..8) or uint16_t (1..16).
// out: packed_bytes(values.size(), bits) long; the bits behind the last value become 0.
template <class T>
void pack_bits(std::span<const T> values, int bits, std::span<uint8_t> out, int threads);

// data: packed_bytes(out.size(), bits) long, else bad_data. Bits behind the last value are not looked at.
template <class T>
void unpack_bits(std::span<const uint8_t> data, int bits, std::span<T> out, int threads);

// The kernels, for fewer bits than T has. They read and write nothing outside the spans, whose sizes fit.
// Pack gives all values or'ed together, by which the door sees one that is too large; out then holds anything.
template <class T>
using Pack = uint32_t(std::span<const T> values, int bits, std::span<uint8_t> out) noexcept;
template <class T>
using Unpack = void(std::span<const uint8_t> data, int bits, std::span<T> out) noexcept;
Pack<uint8_t> pack_scalar, pack_avx2;
Pack<uint16_t> pack_scalar, pack_avx2;
Unpack<uint8_t> unpack_scalar, unpack_avx2;
Unpack<uint16_t> unpack_scalar, unpack_avx2;

}  // namespace tersor::entropy::bitpack
