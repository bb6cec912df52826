// Floats of at most 16 bits: the value of their bits, and the bits nearest to a value. Ties go to the even one.
// Pages: docs/formats/int_group.md (scales), docs/formats/float_group.md (elements).
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tersor::formats {

inline float f32_of_f16(uint16_t half) noexcept {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
  if (exponent == 0) {
    const float value = float(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | mantissa << 13);
}

// Beyond 65504 by half a step and more: infinite.
inline uint16_t f16_of_f32(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000;
  uint32_t size = bits & 0x7fffffff;
  if (size >= 0x47800000) return uint16_t(sign | (size > 0x7f800000 ? 0x7e00 : 0x7c00));
  // 0.5 has steps of 2^-24, half's smallest, so that adding it rounds.
  if (size < 0x38800000)
    return uint16_t(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000));
  size += 0xc8000fff + (size >> 13 & 1);  // the exponent is 112 less
  return uint16_t(sign | size >> 13);
}

inline float f32_of_bf16(uint16_t bits) noexcept { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline uint16_t bf16_of_f32(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// 2^(byte - 127). 255 stands for no number, and formats refuse it.
inline float f32_of_e8m0(uint8_t byte) noexcept {
  return byte == 0     ? 0x1p-127f
         : byte == 255 ? std::numeric_limits<float>::quiet_NaN()
                       : std::bit_cast<float>(uint32_t(byte) << 23);
}

// A float of at most 8 bits: sign, exponent, mantissa from the top. Exponent 0 holds the numbers below 2^least.
struct SmallFloat {
  int bits, mantissa_bits;
  int least;          // exponent of the smallest normal number
  int top;            // exponent of the largest number
  float most;         // the largest finite number
  uint8_t most_code;  // its bits; those between it and the sign stand for no finite number

  float value(uint8_t code) const noexcept {
    const uint8_t size = uint8_t(code & ((1 << (bits - 1)) - 1));
    const int exponent = size >> mantissa_bits, mantissa = size & ((1 << mantissa_bits) - 1);
    const float found = size > most_code ? std::numeric_limits<float>::quiet_NaN()
                        : exponent
                            ? std::ldexp(float(mantissa + (1 << mantissa_bits)), exponent - 1 + least - mantissa_bits)
                            : std::ldexp(float(mantissa), least - mantissa_bits);
    return code >> (bits - 1) & 1 ? -found : found;
  }

  // The nearest of these floats, in their bits or as it is. Saturates; the value is a number. -0 keeps its sign, and
  // so does what rounds to it.
  uint8_t code(float number) const noexcept {
    const Steps found = steps_of(number);
    const uint32_t size = (uint32_t(found.exponent - least) << mantissa_bits) + uint32_t(found.steps);
    return uint8_t(std::bit_cast<uint32_t>(number) >> 31 << (bits - 1) | size);
  }
  float rounded(float number) const noexcept {
    const Steps found = steps_of(number);
    return std::copysign(found.steps * power(found.exponent - mantissa_bits), number);
  }

 private:
  struct Steps {
    int exponent;  // of the value's binade
    float steps;   // how many of that binade's
  };
  static float power(int exponent) noexcept { return std::bit_cast<float>(uint32_t(127 + exponent) << 23); }
  Steps steps_of(float number) const noexcept {
    const float size = std::min(std::fabs(number), most);
    const int exponent = std::max(int(std::bit_cast<uint32_t>(size) >> 23) - 127, least);
    // The product is exact; 2^23 has steps of 1, so that adding it rounds.
    return {exponent, (size * power(mantissa_bits - exponent) + 0x1p23f) - 0x1p23f};
  }
};

inline constexpr SmallFloat kE4M3{8, 3, -6, 8, 448, 0x7e};
inline constexpr SmallFloat kE5M2{8, 2, -14, 15, 57344, 0x7b};
inline constexpr SmallFloat kE2M3{6, 3, 0, 2, 7.5f, 0x1f};
inline constexpr SmallFloat kE3M2{6, 2, -2, 4, 28, 0x1f};
inline constexpr SmallFloat kE2M1{4, 1, 0, 2, 6, 0x07};

}  // namespace tersor::formats
