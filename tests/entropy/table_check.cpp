#include "entropy/table.h"

#include <cmath>
#include <numeric>
#include <random>

#include "check.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

std::vector<uint64_t> counts_of(size_t symbols, double shape, uint32_t seed) {
  std::mt19937 random(seed);
  std::exponential_distribution<double> draw(1);
  std::vector<uint64_t> counts(symbols);
  for (auto& c : counts) c = uint64_t(1000 * std::pow(draw(random), shape));
  counts[symbols / 2] += 1;
  return counts;
}

double bits(const std::vector<uint64_t>& counts, const Table& table) {
  double sum = 0;
  for (size_t s = 0; s < counts.size(); ++s)
    if (counts[s]) sum += double(counts[s]) * (table.precision() - std::log2(table.frequencies()[s]));
  return sum;
}

}  // namespace

TEST_CASE("table: sums are exact, counted symbols keep a slot, the rounding is optimal") {
  for (const size_t symbols : {2u, 3u, 30u, 256u})
    for (const double shape : {0.5, 2.0, 6.0})
      for (int precision = 12; precision <= 16; ++precision) {
        const auto counts = counts_of(symbols, shape, uint32_t(symbols));
        const Table table = Table::from_counts(counts, precision);
        const auto f = table.frequencies();
        CHECK(std::accumulate(f.begin(), f.end(), 0u) == 1u << precision);
        for (size_t s = 0; s < symbols; ++s) CHECK((counts[s] > 0) == (f[s] > 0));
        // No exchange of one slot between two symbols helps, which for a convex cost means that nothing does.
        const double cost = bits(counts, table);
        std::mt19937 random(1);
        for (int i = 0; i < 200; ++i) {
          const size_t a = random() % symbols, b = random() % symbols;
          if (a == b || f[a] < 2 || f[b] == 0) continue;
          std::vector<uint32_t> other(f.begin(), f.end());
          --other[a], ++other[b];
          CHECK(bits(counts, Table::from_frequencies(other, precision)) >= cost * (1 - 1e-8));
        }
      }
}

TEST_CASE("table: bytes come back, short or changed bytes do not pass for another sum") {
  for (const size_t symbols : {1u, 2u, 31u, 256u, 5000u}) {
    const Table table = Table::from_counts(counts_of(symbols, 3, 4));
    std::vector<uint8_t> bytes;
    table.serialize(bytes);
    std::span<const uint8_t> rest = bytes;
    const Table back = Table::parse(rest);
    CHECK(rest.empty());
    CHECK(back.precision() == table.precision() && back.has_escape() == table.has_escape());
    CHECK(std::equal(back.frequencies().begin(), back.frequencies().end(), table.frequencies().begin(),
                     table.frequencies().end()));
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      std::span<const uint8_t> part(bytes.data(), cut);
      CHECK(!check::error_of([&] { Table::parse(part); }).empty());
    }
    for (size_t i = 0; i < bytes.size() * 8; ++i) {
      auto bad = bytes;
      bad[i / 8] ^= uint8_t(1 << i % 8);
      std::span<const uint8_t> changed = bad;
      check::error_of([&] {
        const Table parsed = Table::parse(changed);
        const auto f = parsed.frequencies();
        CHECK(std::accumulate(f.begin(), f.end(), 0u) == 1u << parsed.precision());
      });
    }
  }
}

TEST_CASE("table: more symbols than slots share an escape") {
  std::vector<uint64_t> counts(10000, 3);
  counts[77] = 100000;
  const Table table = Table::from_counts(counts, 12);
  CHECK(table.has_escape());
  CHECK(table.frequencies().size() == 10001 && table.frequencies()[10000] > 0 && table.frequencies()[77] > 1000);
}

TEST_CASE("table: cost_q16 is the logarithm, in integers") {
  for (uint32_t part = 1; part < 70000; part = part * 5 / 4 + 1)
    CHECK(std::abs(double(cost_q16(part, 1u << 20)) / 65536 - (20 - std::log2(double(part)))) < 1e-4);
}

TEST_CASE("table: calls that cannot be meant") {
  CHECK(check::error_of([] { Table::from_counts(std::vector<uint64_t>(5)); }) ==
        "no symbol is counted: a table needs at least one");
  CHECK(check::error_of([] { Table::from_counts(std::vector<uint64_t>(5, 1), 11); }) ==
        "a table's precision is in 12..16, not 11");
  CHECK(check::error_of([] { Table::from_frequencies({4095, 2}, 12); }) == "frequencies sum to 4097, not to 2^12");
}
