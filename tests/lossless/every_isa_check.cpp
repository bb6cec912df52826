// Chunks of many kinds of data: the same bytes from every ISA level, and back on every one.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "lossless/chunk.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

// What breaks coders: frequencies that are powers of two (whole buckets of an alias table), values that occur once,
// at the very end, alphabets on either side of 32, parts that differ, and floats of every scale.
std::vector<uint8_t> data_of(int kind, size_t size, size_t width, std::mt19937& random) {
  std::vector<uint8_t> data(size);
  const uint32_t alphabet = 1 + random() % (random() % 2 ? 256 : 40);
  std::normal_distribution<float> normal(0.0f, std::ldexp(1.0f, int(random() % 40) - 20));
  for (size_t i = 0; i < size; ++i) {
    switch (kind) {
      case 0: data[i] = uint8_t(random() >> 24); break;
      case 1: data[i] = uint8_t(random() % alphabet); break;
      case 2: data[i] = uint8_t((random() % alphabet) * (random() % alphabet) / alphabet); break;
      case 3: data[i] = random() % 1000 ? 0 : uint8_t(random()); break;
      case 4: data[i] = uint8_t(i < size / 2 ? random() % alphabet : 200 + random() % 30); break;
      case 5: data[i] = uint8_t(std::countl_zero(uint32_t(i) * 2654435761u | 1)); break;
      default: break;
    }
  }
  for (size_t i = 0; kind > 5 && i + 4 <= size; i += width) {
    auto bits = std::bit_cast<uint32_t>(kind == 7 && random() % 50 == 0 ? 0.0f : normal(random));
    if (kind == 8 && random() % 20 == 0) bits = uint32_t(random());
    if (kind == 6) bits &= 0xffff0000;
    const size_t part = std::min<size_t>(width, 4);
    std::memcpy(data.data() + i, reinterpret_cast<const uint8_t*>(&bits) + (4 - part), part);
  }
  for (size_t i = random() % 4; i > 0; --i) data[size - 1 - random() % std::min<size_t>(size, 100)] = uint8_t(random());
  return data;
}

}  // namespace

TEST_CASE("lossless: chunks of every kind, size and level: same bytes from every ISA, and back on every one") {
  std::mt19937 random(7);
  for (int round = 0; round < 240; ++round) {
    const auto element = Element(random() % kElements);
    const size_t width = size_t("\1\2\2\4\1\2\4\10\10"[int(element)]);
    const size_t sizes[] = {1 + random() % 300, 1 + random() % 6000, 4000 + random() % 200, 1 + random() % 100'000,
                            200'000 + random() % 100'000};
    size_t size = sizes[random() % 5];
    if (round % 60 == 59) size = kChunkBytes - random() % 5;
    if (random() % 8) size = std::max(width, size / width * width);
    const auto raw = data_of(round % 9, size, width, random);
    const int level = 1 + int(random() % 9);
    std::vector<uint8_t> first;
    for (int encoding = 0; encoding <= int(machine_isa()); ++encoding) {
      hold_isa(Isa(encoding));
      std::vector<uint8_t> coded(chunk_bound(size));
      coded.resize(encode_chunk(element, raw, level, coded));
      if (first.empty()) first = coded;
      CHECK(coded == first);
    }
    for (int decoding = 0; decoding <= int(machine_isa()); ++decoding) {
      hold_isa(Isa(decoding));
      std::vector<uint8_t> back(size);
      decode_chunk(first, back);
      CHECK(back == raw);
    }
  }
  hold_isa(machine_isa());
}
