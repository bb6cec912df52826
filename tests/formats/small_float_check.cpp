#include "formats/small_float.h"

#include <cmath>
#include <vector>

#include "check.h"

using namespace tersor;
using namespace tersor::formats;

namespace {

// Of finite values in ascending order, the nearest to `number`, the one of even bits where two are as near.
struct Value {
  float value;
  int bits;
};
int nearest_bits(const std::vector<Value>& values, float number) {
  int best = 0;
  double least = INFINITY;
  for (const auto& [value, bits] : values) {
    const double off = std::fabs(double(value) - double(number));
    if (off < least || (off == least && bits % 2 == 0)) least = off, best = bits;
  }
  return best;
}

std::vector<float> around(float number) {
  return {std::nextafter(number, -INFINITY), number, std::nextafter(number, INFINITY)};
}

}  // namespace

TEST_CASE("small float: every half is its own value's nearest") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = f32_of_f16(uint16_t(bits));
    if (std::isnan(value)) {
      CHECK(std::isnan(f32_of_f16(f16_of_f32(value))));
      continue;
    }
    CHECK(f16_of_f32(value) == bits);
    const float sign = bits & 0x8000 ? -1.f : 1.f, exponent = float(bits >> 10 & 31), mantissa = float(bits & 1023);
    if (exponent < 31)
      CHECK(value ==
            sign * (exponent > 0 ? std::ldexp(1024 + mantissa, int(exponent) - 25) : std::ldexp(mantissa, -24)));
  }
}

TEST_CASE("small float: halves and bf16 round to the nearest, ties to the even one") {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = f32_of_f16(bits), high = f32_of_f16(uint16_t(bits + 1)), middle = (low + high) / 2;
    const uint16_t even = uint16_t(bits % 2 ? bits + 1 : bits);
    CHECK(f16_of_f32(middle) == even);
    CHECK(f16_of_f32(std::nextafter(middle, 0.f)) == bits);
    CHECK(f16_of_f32(-std::nextafter(middle, INFINITY)) == ((bits + 1) | 0x8000));
  }
  CHECK(f16_of_f32(65519.996f) == 0x7bff && f16_of_f32(65520) == 0x7c00 && f16_of_f32(1e30f) == 0x7c00);
  CHECK(f16_of_f32(-INFINITY) == 0xfc00 && f16_of_f32(0x1p-25f) == 0 && f16_of_f32(-0x1.002p-25f) == 0x8001);
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const uint32_t middle = bits << 16 | 0x8000;
    CHECK(bf16_of_f32(std::bit_cast<float>(middle)) == bits + bits % 2);
    CHECK(bf16_of_f32(std::bit_cast<float>(middle - 1)) == bits);
    CHECK(bf16_of_f32(std::bit_cast<float>(middle + 1)) == bits + 1);
  }
  CHECK(bf16_of_f32(INFINITY) == 0x7f80 && bf16_of_f32(0x1.ffp127f) == 0x7f80);
  CHECK(std::isnan(f32_of_bf16(bf16_of_f32(NAN))));
}

TEST_CASE("small float: elements round to the nearest, ties to the even one, and saturate") {
  for (const SmallFloat& floats : {kE2M1, kE2M3, kE3M2, kE4M3, kE5M2}) {
    std::vector<Value> values;
    for (int bits = 0; bits <= floats.most_code; ++bits) values.push_back({floats.value(uint8_t(bits)), bits});
    CHECK(values.back().value == floats.most);
    CHECK(std::ilogb(floats.most) == floats.top);
    const uint8_t sign = uint8_t(1 << (floats.bits - 1));
    for (size_t i = 0; i < values.size(); ++i) {
      std::vector<float> numbers = around(values[i].value);
      if (i + 1 < values.size())
        for (const float number : around((values[i].value + values[i + 1].value) / 2)) numbers.push_back(number);
      for (const float number : numbers) {
        if (number < 0) continue;
        const int want = nearest_bits(values, number);
        CHECK(floats.code(number) == want);
        CHECK(floats.code(-number) == (want | sign));
        CHECK(floats.rounded(number) == values[size_t(want)].value);
        CHECK(floats.rounded(-number) == -values[size_t(want)].value);
      }
    }
    for (const float large : {floats.most * 1.5f, 1e38f, INFINITY}) {
      CHECK(floats.code(large) == floats.most_code && floats.code(-large) == (floats.most_code | sign));
      CHECK(floats.rounded(-large) == -floats.most);
    }
    CHECK(floats.code(-0.f) == sign && floats.code(-1e-44f) == sign && floats.code(1e-44f) == 0);
    CHECK(std::signbit(floats.rounded(-1e-44f)) && std::signbit(floats.value(sign)));
  }
  CHECK(std::isnan(kE4M3.value(0x7f)) && std::isnan(kE5M2.value(0x7c)) && std::isnan(kE5M2.value(0xff)));
}

TEST_CASE("small float: bytes of e8m0 are powers of two") {
  for (int byte = 0; byte < 255; ++byte) CHECK(f32_of_e8m0(uint8_t(byte)) == std::ldexp(1.f, byte - 127));
  CHECK(std::isnan(f32_of_e8m0(255)));
}
