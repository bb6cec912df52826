#include "entropy/rans8.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "check.h"
#include "core/error.h"
#include "entropy/histogram.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;

namespace {

// 0: geometric, 1: all 256 near a Gaussian, 2: far apart small alphabet, 3: almost always one symbol, 4: uniform
Bytes symbols_of(int kind, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::geometric_distribution<int> geometric(0.385);
  std::normal_distribution<double> normal(128, 44);
  Bytes symbols(n);
  for (auto& s : symbols) switch (kind) {
      case 0: s = uint8_t(100 + std::min(31, geometric(random))); break;
      case 1: s = uint8_t(std::lround(std::min(255.0, std::max(0.0, normal(random))))); break;
      case 2: s = uint8_t(40 * (random() % 7)); break;
      case 3: s = random() % 1000 ? 7 : uint8_t(random()); break;
      default: s = uint8_t(random());
    }
  return symbols;
}

Bytes decoded(const Bytes& data, const Table* table = nullptr, int threads = 1) {
  Bytes out(size_t(rans8::decoded_size(data)));
  rans8::decode(data, table, out, threads);
  return out;
}

constexpr rans8::Mode kModes[] = {rans8::Mode::alias, rans8::Mode::contiguous};

}  // namespace

TEST_CASE("rans8: short lengths, every kind, both modes, come back") {
  for (int kind = 0; kind < 5; ++kind)
    for (size_t n = 0; n < 700; n += n < 70 ? 1 : 31)
      for (const auto mode : kModes) {
        const Bytes symbols = symbols_of(kind, n, uint32_t(n + 1));
        CHECK(decoded(rans8::encode(symbols, nullptr, mode, 1)) == symbols);
      }
}

TEST_CASE("rans8: every level and number of threads gives the same bytes and reads them") {
  for (int kind = 0; kind < 5; ++kind)
    for (const size_t n : {4095u, 4096u, 5000u, 49152u, 131072u, 262144u, 300001u, 1048576u + 5000u})
      for (const auto mode : kModes) {
        const Bytes symbols = symbols_of(kind, n, 3);
        const Bytes want = rans8::encode(symbols, nullptr, mode, 1);
        check::each_isa([&] {
          CHECK(rans8::encode(symbols, nullptr, mode, 3) == want);
          CHECK(decoded(want, nullptr, 2) == symbols);
        });
      }
}

TEST_CASE("rans8: a given table serves many streams, and must know every symbol") {
  const Bytes symbols = symbols_of(1, 100000, 1);
  ByteCounts counts{};
  count_bytes(symbols, counts);
  for (auto& count : counts) count += 1;
  const Table table = Table::from_counts(counts);
  for (const auto mode : kModes) {
    const Bytes data = rans8::encode(symbols, &table, mode, 2);
    CHECK(decoded(data, &table) == symbols);
    CHECK(!check::error_of([&] { decoded(data); }).empty());
  }
  counts[128] = 0;
  const Table lacking = Table::from_counts(counts);
  CHECK(check::error_of([&] { rans8::encode(symbols, &lacking, rans8::Mode::alias, 1); }).find("symbol 128 occurs") ==
        0);
}

TEST_CASE("rans8: size over the entropy") {
  for (const double stop : {0.385, 0.5})
    for (const size_t n : {size_t(64000), size_t(65536), size_t(1) << 20, size_t(3) << 20}) {
      std::mt19937 random(5);
      std::geometric_distribution<int> geometric(stop);
      Bytes symbols(n);
      for (auto& s : symbols) s = uint8_t(std::min(31, geometric(random)));
      ByteCounts counts{};
      count_bytes(symbols, counts);
      double entropy = 0;
      for (const uint64_t c : counts)
        if (c) entropy -= double(c) * std::log2(double(c) / double(n)) / 8;
      const double table = 60, groups = 8.0 * double((n + (1 << 20) - 1) >> 20);
      const double allowed = n < 100000 ? entropy * 1.005 + 64 : entropy * 1.0025 + 16 * groups + table;
      const Bytes data = rans8::encode(symbols, nullptr, rans8::Mode::alias, 1);
      CHECK(double(data.size()) <= allowed);
    }
}

TEST_CASE("rans8: every truncation and many flipped bits end in an error or the symbols") {
  for (int kind = 0; kind < 4; ++kind)
    for (const auto mode : kModes)
      for (const size_t n : {300u, 5000u}) {
        const Bytes symbols = symbols_of(kind, n, 9);
        const Bytes data = rans8::encode(symbols, nullptr, mode, 1);
        const auto tried = [&](const Bytes& bad) {
          try {
            Bytes out(size_t(std::min<uint64_t>(rans8::decoded_size(bad), 1 << 22)));
            rans8::decode(bad, nullptr, out, 1);
          } catch (const Error&) {
          }
        };
        for (size_t cut = 0; cut < data.size(); cut += n > 1000 ? 7 : 1) {
          const Bytes bad(data.begin(), data.begin() + long(cut));
          bool raised = false;
          try {
            (void)decoded(bad);
          } catch (const Error&) {
            raised = true;
          }
          CHECK(raised);
        }
        std::mt19937 random(11);
        for (int i = 0; i < 600; ++i) {
          Bytes bad = data;
          bad[random() % bad.size()] ^= uint8_t(1 << random() % 8);
          check::each_isa([&] { tried(bad); });
        }
      }
}

TEST_CASE("rans8: a claim beyond what the bytes can hold is refused before anything is allocated") {
  const Bytes bomb = {1, 1, 0, 20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2};
  CHECK(check::error_of([&] { rans8::decoded_size(bomb); }).find("symbols claimed by") != std::string::npos);
}
