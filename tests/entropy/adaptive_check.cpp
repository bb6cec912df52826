#include "entropy/adaptive.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "check.h"
#include "core/error.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;

namespace {

// 0: Gaussian, 1: constant, 2: almost always one symbol, 3: uniform, 4: a walk
Bytes symbols_of(int kind, int bits, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  const int top = (1 << bits) - 1;
  std::normal_distribution<double> normal(top / 2.0, top / 9.0);
  Bytes symbols(n);
  uint8_t at = 0;
  for (auto& s : symbols) switch (kind) {
      case 0: s = uint8_t(std::lround(std::min(double(top), std::max(0.0, normal(random))))); break;
      case 1: s = uint8_t(top); break;
      case 2: s = random() % 500 ? 3 : uint8_t(int(random()) & top); break;
      case 4: s = at = uint8_t((at + int(random() % 3) - 1) & top); break;
      default: s = uint8_t(int(random()) & top);
    }
  return symbols;
}
constexpr int kKinds = 5;

template <class F>
void each_model(const F& f) {
  for (const int bits : {4, 8})
    for (const int order : {0, 1})
      for (const int rate : {4, 7, 9}) f(adaptive::Model{bits, order, rate});
}

Bytes decoded(std::span<const uint8_t> data) {
  Bytes out(size_t(std::min<uint64_t>(adaptive::decoded_size(data), 1 << 22)));
  adaptive::decode(data, out);
  return out;
}

}  // namespace

TEST_CASE("adaptive: short lengths of every kind come back, within the bound") {
  each_model([](adaptive::Model model) {
    for (int kind = 0; kind < kKinds; ++kind)
      for (size_t n = 0; n < 1100; n += n < 66 ? 1 : 73) {
        const Bytes symbols = symbols_of(kind, model.bits, n, uint32_t(n + 1));
        const Bytes data = adaptive::encode(symbols, model);
        CHECK(data.size() <= adaptive::encode_bound(n));
        CHECK(decoded(data) == symbols);
      }
  });
}

TEST_CASE("adaptive: blocks of many symbols, some raw among them") {
  each_model([](adaptive::Model model) {
    Bytes symbols;
    for (const int kind : {0, 3, 4, 1, 3, 3, 2}) {
      const Bytes more = symbols_of(kind, model.bits, 40000, uint32_t(kind));
      symbols.insert(symbols.end(), more.begin(), more.end());
    }
    const Bytes data = adaptive::encode(symbols, model);
    CHECK(data.size() <= adaptive::encode_bound(symbols.size()));
    CHECK(data.size() < symbols.size() * size_t(model.bits) / 8);
    CHECK(decoded(data) == symbols);
  });
}

TEST_CASE("adaptive: kernels write and read nothing but what they are given") {
  each_model([](adaptive::Model model) {
    for (const size_t n : {1u, 1023u, 1024u, 1025u, 1026u, 5003u}) {
      const Bytes symbols = symbols_of(0, model.bits, n, 3), coded = adaptive::encode(symbols, model);
      const auto data = std::make_unique<uint8_t[]>(coded.size()), out = std::make_unique<uint8_t[]>(n);
      std::copy(coded.begin(), coded.end(), data.get());
      adaptive::decode({data.get(), coded.size()}, {out.get(), n});
      CHECK(std::equal(symbols.begin(), symbols.end(), out.get()));
    }
  });
}

TEST_CASE("adaptive: every truncation and many flipped bits end in an error, or in as many symbols") {
  size_t refused = 0;
  each_model([&](adaptive::Model model) {
    for (const size_t n : {40u, 3000u}) {
      const Bytes data = adaptive::encode(symbols_of(0, model.bits, n, 9), model);
      for (size_t cut = 0; cut < data.size(); cut += n > 1000 ? 37 : 1)
        CHECK(!check::error_of([&] { decoded(std::span(data).first(cut)); }).empty());
      std::mt19937 random(11);
      for (int i = 0; i < 200; ++i) {
        Bytes bad = data;
        bad[random() % (i % 2 ? bad.size() : 12)] ^= uint8_t(1 << random() % 8);
        refused += !check::error_of([&] { decoded(bad); }).empty() && n > 1000;  // raw symbols may be any
      }
    }
  });
  CHECK(refused > 2300);  // of 2400: end states tell
}

TEST_CASE("adaptive: a claim beyond what the bytes can hold is refused before anything is allocated") {
  const Bytes bomb = {6, 1, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2};
  CHECK(check::error_of([&] { adaptive::decoded_size(bomb); }).find("symbols claimed by") != std::string::npos);
}
