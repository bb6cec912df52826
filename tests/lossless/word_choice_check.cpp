#include "lossless/word_choice.h"

#include <cmath>

#include "check.h"
#include "lossless/chunks.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

// `before` bytes of text, then what the element's values look like.
Bytes file_of(Element element, size_t before, size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal(0, 0.02);
  Bytes out(before, 'x');
  const auto put = [&](const void* value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<const uint8_t*>(value)[i]);
  };
  for (size_t i = 0; i < count; ++i) {
    const double wide = normal(random);
    const auto weight = float(wide);
    const auto integer = int64_t(wide * 1e5);
    switch (element) {
      case Element::bf16: put(reinterpret_cast<const uint8_t*>(&weight) + 2, 2); break;
      case Element::fp32: put(&weight, 4); break;
      case Element::fp64: put(&wide, 8); break;
      case Element::int16: put(&integer, 2); break;
      case Element::int32: put(&integer, 4); break;
      default: put(&integer, 8); break;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("word choice: numbers are found wherever they begin, and the chunk shrinks as if they had been named") {
  for (const Element element :
       {Element::bf16, Element::fp32, Element::fp64, Element::int16, Element::int32, Element::int64})
    for (const size_t before : {0, 1, 3, 7, 8}) {
      const Bytes raw = file_of(element, before, 20'000);
      const std::span numbers = std::span<const uint8_t>(raw).subspan(before);
      Bytes want;
      check::each_isa([&] {
        const Bytes coded = encoded(Element::bytes, raw, kDefaultLevel);
        if (want.empty()) want = coded;
        CHECK(coded == want && decoded(coded, raw.size()) == raw);
      });
      CHECK(double(want.size()) < 1.02 * double(encoded(element, numbers, kDefaultLevel).size()) + 64);
    }
}

TEST_CASE("word choice: what has no words stays bytes") {
  std::mt19937 random(4);
  Bytes noise(50'000), skewed(50'000);
  for (auto& byte : noise) byte = uint8_t(random() >> 24);
  for (auto& byte : skewed) byte = uint8_t(std::min(random() >> 24, random() >> 24));
  CHECK(encoded(Element::bytes, noise, kDefaultLevel)[0] == 0);
  CHECK(encoded(Element::bytes, skewed, kDefaultLevel)[0] == 2);
  for (size_t size = 0; size < 100; size += 7) {  // too few to tell
    const Bytes raw = file_of(Element::fp32, 0, size);
    CHECK(!choose_words(raw, nullptr));
  }
}
