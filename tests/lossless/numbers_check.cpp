// Chunks of numbers: every way of coding them is taken, comes back on every ISA level, is never larger than bytes are,
// and damage ends in an error or a whole result.
#include "lossless/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "lossless/chunks.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

constexpr Element kNumbers[] = {Element::int8, Element::int16, Element::int32, Element::int64,
                                Element::fp64, Element::fp32,  Element::fp16,  Element::bf16};
size_t width_of(Element element) { return size_t("\1\2\2\4\1\2\4\10\10"[int(element)]); }

enum class Law { smooth, sorted, few, multiples, runs, sparse, random, small, extremes, scaled, points };
constexpr Law kLaws[] = {Law::smooth, Law::sorted, Law::few,      Law::multiples, Law::runs,  Law::sparse,
                         Law::random, Law::small,  Law::extremes, Law::scaled,    Law::points};

Bytes numbers_of(Law law, Element element, size_t count, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, 1);
  const size_t width = width_of(element);
  const bool floats = element == Element::fp64 || element == Element::fp32;
  Bytes raw(count * width);
  int64_t value = 1000;
  for (size_t i = 0; i < count; ++i) {
    switch (law) {
      case Law::smooth:  // rows of 100, which resemble each other
        value = int64_t(40 * std::sin(double(i % 100) / 9) + 30 * std::cos(double(i / 100) / 7) + normal(random));
        break;
      case Law::sorted: value += int64_t(random() % 7); break;
      case Law::few: value = int64_t(uint64_t(random() % 50) * 0x9E3779B97F4A7C15u); break;
      case Law::multiples: value = int64_t(random() % 9000) * 40; break;
      case Law::runs: value = random() % 30 ? value : int64_t(random()); break;
      case Law::sparse: value = random() % 12 ? 0 : int64_t(random() >> (random() % 64)); break;
      case Law::random: value = int64_t(random()); break;
      case Law::small: value = int64_t(random() % 2); break;
      case Law::extremes:
        value = random() % 9 ? int64_t(normal(random) * 5) : random() % 2 ? INT64_MAX : INT64_MIN;
        break;
      case Law::scaled: value = int64_t(normal(random) * 400); break;
      case Law::points:
        value = int64_t(i % 3 * 50 + random() % (i % 3 == 2 ? 2 : 30));
        break;  // each axis its own range
    }
    uint64_t bits = uint64_t(value);
    if (law == Law::extremes && uint64_t(value) + 1000 > 2000) bits >>= 64 - 8 * width;
    if (floats && (law == Law::scaled || law == Law::smooth || law == Law::sorted || law == Law::points)) {
      const double scaled = double(value) * 0.01;
      const float narrow = float(scaled);
      uint32_t narrow_bits;
      std::memcpy(&bits, &scaled, 8), std::memcpy(&narrow_bits, &narrow, 4);
      if (element == Element::fp32) bits = narrow_bits;
    }
    std::memcpy(raw.data() + i * width, &bits, width);
  }
  return raw;
}

}  // namespace

TEST_CASE("numbers: every law, element, level and size comes back, the same bytes from every ISA") {
  std::set<int> methods;
  for (const Element element : kNumbers)
    for (const Law law : kLaws)
      for (const int level : {1, kDefaultLevel, 9})
        for (const size_t count : {1, 2, 7, 65, 1000, 20'001}) {
          const Bytes raw = numbers_of(law, element, count, uint32_t(count));
          Bytes want;
          check::each_isa([&] {
            const Bytes coded = encoded(element, raw, level);
            if (want.empty()) want = coded;
            CHECK(coded == want && decoded(coded, raw.size()) == raw);
          });
          const bool words = element == Element::bf16 || element == Element::fp16 || element == Element::fp32;
          CHECK(words || count < 8 || want.size() <= encoded(Element::bytes, raw, level).size() + raw.size() / 200);
          methods.insert(want[0]);
        }
  for (int method = 0; method <= kRecords; ++method) CHECK(methods.contains(method));
}

TEST_CASE("numbers: whole chunks") {
  for (const Element element : kNumbers)
    for (const Law law : kLaws) {
      const Bytes raw = numbers_of(law, element, kChunkBytes / width_of(element), 3);
      CHECK(decoded(encoded(element, raw, kDefaultLevel), raw.size()) == raw);
    }
}

TEST_CASE("numbers: what is in them is found") {
  const auto bits = [](Law law, Element element) {
    const size_t count = kChunkBytes / width_of(element);
    return 8 * double(encoded(element, numbers_of(law, element, count, 1), kDefaultLevel).size()) / double(count);
  };
  CHECK(bits(Law::smooth, Element::int32) < 3.4);      // the noise of two differences, sigma 2
  CHECK(bits(Law::sorted, Element::int64) < 2.84);     // log2(7) = 2.807
  CHECK(bits(Law::few, Element::int64) < 5.69);        // log2(50) = 5.644
  CHECK(bits(Law::multiples, Element::int32) < 13.2);  // log2(9000) = 13.136
  CHECK(bits(Law::small, Element::int8) < 1.01);       // packed
  CHECK(bits(Law::scaled, Element::fp64) < 10.8);      // log2(400 * sqrt(2 pi e)) = 10.69
  CHECK(bits(Law::scaled, Element::fp32) < 10.8);
  CHECK(bits(Law::points, Element::fp32) < 3.7);  // (2 * log2(30) + 1) / 3 = 3.605
  CHECK(bits(Law::points, Element::int16) < 3.7);
}

TEST_CASE("numbers: at odd addresses") {
  for (const Element element : kNumbers) check_at_odd_addresses(element, numbers_of(Law::smooth, element, 5000, 3));
}

TEST_CASE("numbers: every truncation is an error, every changed bit an error or a whole result") {
  std::mt19937 random(6);
  for (const Element element : kNumbers)
    for (const Law law : kLaws) {
      const Bytes raw = numbers_of(law, element, 3000, 7), coded = encoded(element, raw, kDefaultLevel);
      check_damage(coded, raw.size(), 150, 97, 150, 120, random);
      // Of two values that cost a bit each, one more or less may be read as well, and of zeros in a map; the container
      // knows how many there are.
      for (const size_t size : {raw.size() - 8, raw.size() + 8})
        CHECK(law == Law::small || coded[0] == kSparse || !check::error_of([&] { decoded(coded, size); }).empty());
    }
}

TEST_CASE("numbers: hostile heads are refused by name") {
  const auto refused = [](Bytes coded, size_t size) { return check::error_of([&] { decoded(coded, size); }); };
  CHECK(refused({5, 3, 0}, 6) == "lossless numbers: a width of 3 bytes");
  CHECK(refused({5, 4, 0}, 6) == "lossless numbers: 6 bytes are not 1..1048576 in units of 4");
  CHECK(refused({7, 8}, 8) == "lossless numbers: packed to 8 bits");
  CHECK(refused({7, 1, 1, 0}, 7) == "lossless numbers: 7 bytes are not 1..1048576 in units of 8");
  CHECK(refused({5, 2, 2}, 4) == "lossless numbers: order is 2, 0 and 1 are known");
  CHECK(refused({5, 2, 0, 3}, 4) == "lossless series: 3 strides, at most 2 are known");
  CHECK(refused({5, 2, 0, 1, 0}, 4) == "lossless series: a stride of 0, 1..1048576 are allowed");
  CHECK(refused({5, 2, 0, 1, 1, 128, 128, 8}, 4) == "lossless series: 65536 is outside of 16 bits");
  CHECK(refused({5, 2, 0, 0, 0, 0}, 4) == "lossless series: a divisor of 0");
  CHECK(refused({5, 2, 0, 0, 0, 1, 0}, 4) == "lossless series: 0 bins, 1..256 are allowed");
  CHECK(refused({5, 2, 0, 0, 0, 1, 1, 0, 17}, 4) == "lossless series: 1 bins of 17 bits, 1 of at most 16 are left");
  CHECK(refused({5, 2, 0, 0, 0, 1, 1, 0, 128, 0}, 4) == "lossless series: 2 bins of 0 bits, 1 of at most 16 are left");
  CHECK(refused({5, 2, 0, 0, 0, 1, 1, 0, 8, 1, 9}, 4) == "lossless series: 1 bytes of places are too few");
  CHECK(refused({5, 2, 0, 0, 0, 1, 1, 0, 8, 3, 9, 9, 9}, 4) == "lossless series: 3 bytes of places, 2 are needed");
  CHECK(refused({5, 2, 0, 0, 0, 1, 2, 0, 128, 0, 1, 2, 0}, 4).find("lossless plane: value") == std::string::npos);
  CHECK(refused({5, 2, 0, 0, 0, 1, 2, 0, 128, 0, 1, 2, 0}, 4) == "lossless series: bin 2 of 2");
  CHECK(refused({6, 2, 0, 3}, 4) == "lossless numbers: 3 values for 2 ranks");
  CHECK(refused({6, 2, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0}, 4) == "lossless numbers: rank 1 of 1");
  CHECK(refused({8, 1, 1, 0, 1, 0}, 4) == "lossless numbers: 0 values that are not zero in a map of 4");
  CHECK(refused({8, 1, 1, 16, 1, 0}, 4) == "lossless numbers: 1 values that are not zero in a map of 4");
  CHECK(refused({8, 1, 1, 1, 14, 9, 1, 1, 10, 9, 1, 1, 6, 9, 1, 1, 1, 0, 7}, 4) ==
        "lossless numbers: parts nested deeper than 3");
  CHECK(refused({12, 1, 4, 0, 18, 12, 1, 4, 0, 13, 12, 1, 4, 0, 8, 11, 4, 0, 0, 0, 0, 0, 0, 0}, 4) ==
        "lossless numbers: parts nested deeper than 3");
  CHECK(refused({9, 1, 5}, 4) == "lossless numbers: 5 runs of 4 values");
  CHECK(refused({9, 1, 1, 2, 0, 7, 0, 0, 1, 1, 8, 0, 0}, 4) == "lossless numbers: a run of 4 more values, 4 are left");
  CHECK(refused({9, 1, 1, 2, 0, 7, 0, 0, 1, 1, 4, 0, 0}, 4) == "lossless numbers: runs of 3 values, 4 are needed");
  CHECK(refused({11, 2}, 4) == "lossless numbers: scaled words of 2 bytes");
  CHECK(refused({11, 4, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0}, 4) ==
        "lossless numbers: a step of 9151314442816847872, its highest bit is needed");
}

TEST_CASE("numbers: the largest divisor times the largest value is modulo 2^16 as the page says") {
  // Series, width 2, order 0, no strides, start 0, divisor 65535, one bin of 0 bits at -1, no places.
  const Bytes chunk = {5, 2, 0, 0, 0, 0xff, 0xff, 3, 1, 1, 0, 0};
  Bytes raw(2);
  decode_chunk(chunk, raw);
  CHECK(raw == Bytes({1, 0}));  // 65535 * 65535
}

TEST_CASE("numbers: values that all hash alike take no longer than others") {
  const uint64_t inverse = [] {  // of the hash's multiplier, modulo 2^64
    uint64_t x = 1;
    for (int i = 0; i < 6; ++i) x *= 2 - 0x9E3779B97F4A7C15u * x;
    return x;
  }();
  std::vector<uint64_t> values(kChunkBytes / 8);
  for (size_t i = 0; i < values.size(); ++i) values[i] = (i % 256 ? i / 2 % 65000 : i / 2 % 7) * inverse;
  Bytes raw(kChunkBytes), coded(chunk_bound(raw.size())), back(raw.size());
  std::memcpy(raw.data(), values.data(), raw.size());
  coded.resize(encode_chunk(Element::int64, raw, kDefaultLevel, coded));
  decode_chunk(coded, back);
  CHECK(back == raw);
}

TEST_CASE("numbers: weights have no pattern") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> weights(100'000);
  for (float& weight : weights) weight = normal(random);
  CHECK(!has_pattern({reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4}, 4));
  std::sort(weights.begin(), weights.end());
  CHECK(has_pattern({reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4}, 4));
}
