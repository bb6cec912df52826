#include "entropy/table_set.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "check.h"
#include "core/error.h"
#include "entropy/distribution.h"
#include "entropy/table_hash.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

uint32_t q_scale(double scale) { return uint32_t(std::lround(scale * 65536)); }

std::vector<uint32_t> frequencies_of(const TableSet& set, size_t table) {
  const TableRow& row = set.rows()[table];
  std::vector<uint32_t> found;
  for (uint32_t s = 0; s <= row.count; ++s) found.push_back(set.entries()[row.entry + s].frequency);
  return found;
}

bool same(const TableSet& a, const TableSet& b) {
  if (a.tables() != b.tables() || a.precision() != b.precision() || a.fraction_bits() != b.fraction_bits())
    return false;
  for (size_t t = 0; t < a.tables(); ++t)
    if (a.rows()[t].low != b.rows()[t].low || frequencies_of(a, t) != frequencies_of(b, t)) return false;
  return std::ranges::equal(a.buckets(), b.buckets()) && std::ranges::equal(a.places(), b.places());
}

TableSet read(const TableSet& set) {
  std::vector<uint8_t> bytes;
  set.serialize(bytes);
  return TableSet::parse(bytes);
}

}  // namespace

TEST_CASE("table set: every slot is found through its bucket or by searching") {
  std::mt19937 random(1);
  std::vector<Masses> tables;
  for (int t = 0; t < 40; ++t) {
    Masses masses;
    masses.low = int32_t(random() % 1000) - 500;
    const size_t n = 1 + random() % (t % 4 ? 40 : 4000);
    for (size_t s = 0; s < n; ++s)
      masses.mass.push_back(random() % 3 ? random() % 100 : random() % 1000000 * (random() % 2));
    masses.mass[random() % n] += 1000000;
    masses.outside = random() % 1000;
    tables.push_back(masses);
  }
  const TableSet set = TableSet::from_masses(tables, 16);
  bool found = true;
  for (size_t t = 0; t < set.tables(); ++t) {
    const TableRow& row = set.rows()[t];
    const SymbolEntry* entry = &set.entries()[row.entry];
    const uint64_t place = set.places()[t];
    found &= int32_t(place >> 32) == row.low;
    for (uint32_t slot = 0, s = 0; slot < kTableSlots; ++slot) {
      while (entry[s].start + entry[s].frequency <= slot) ++s;
      const uint64_t bucket = set.buckets()[(place & 0xffffff) + (slot >> (place >> 24 & 255))];
      const uint32_t start = bucket & 0xffff, one = bucket >> 16 & 0xffff, two = bucket >> 32 & 0xffff;
      const auto first = uint32_t(bucket >> 48);
      if (slot - start < one)
        found &= first == s;
      else if (slot - start - one < two)
        found &= first + 1 == s;
      else
        found &= first <= s;  // by searching
    }
  }
  CHECK(found);
}

TEST_CASE("table set: bytes give the same tables back, at every precision") {
  for (int precision = 12; precision <= 16; ++precision) {
    std::vector<uint32_t> scales = {q_scale(0.11), q_scale(1), q_scale(20)};
    const TableSet set = make_tables(Family::laplace, scales, {}, precision, 2);
    CHECK(same(set, read(set)));
    for (size_t t = 0; t < set.tables(); ++t)
      for (const uint32_t f : frequencies_of(set, t)) CHECK(f % (1u << (16 - precision)) == 0);
  }
  const TableSet odd = TableSet::from_frequencies({{-7, {0, 0, 4096, 0}}, {INT32_MIN, {1, 0, 4094, 1}}}, 12);
  CHECK(same(odd, read(odd)));
  CHECK(odd.rows()[0].low == -5 && odd.rows()[0].count == 1);
}

TEST_CASE("table set: masses are rounded to what costs least within a hair") {
  // Cross-entropy of the masses under the table against their entropy: below 0.0005 bit for tables that fit their
  // slots.
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    Masses masses;
    double total = 0;
    for (size_t s = 0, n = 2 + random() % 300; s < n; ++s) {
      masses.mass.push_back(1000 + random() % 1000000);
      total += double(masses.mass.back());
    }
    const TableSet set = TableSet::from_masses({&masses, 1}, 16);
    const auto f = frequencies_of(set, 0);
    CHECK(f.size() == masses.mass.size() + 1);
    double loss = 0;
    for (size_t s = 0; s < masses.mass.size(); ++s) {
      const double p = double(masses.mass[s]) / total;
      loss += p * std::log2(p / (f[s] / 65536.0));
    }
    CHECK(loss < 0.0005);
  }
}

TEST_CASE("table set: tails are those of the real distributions to a thousandth of a slot") {
  const Shape gaussian(Family::gaussian, 0), laplace(Family::laplace, 0), logistic(Family::logistic, 0);
  const Shape cauchy(Family::student_t, 256), three(Family::student_t, 3 * 256);
  double worst = 0;
  const auto compare = [&](const Shape& shape, uint64_t position, double want) {
    worst = std::max(worst, std::abs(std::ldexp(double(shape.tail(position)), -Shape::kTailBits) - want));
  };
  for (double z = 0; z < 1000; z = z < 40 ? z + 0.0037 : z * 1.01) {
    const auto position = uint64_t(std::llround(std::ldexp(z, Shape::kPositionBits)));
    const double x = std::ldexp(double(position), -Shape::kPositionBits), r3 = x / std::sqrt(3.0);
    compare(gaussian, position, 0.5 * std::erfc(x / std::sqrt(2.0)));
    compare(laplace, position, 0.5 * std::exp(-x));
    compare(logistic, position, 1 / (1 + std::exp(x)));
    compare(cauchy, position, 0.5 - std::atan(x) / M_PI);
    compare(three, position, 0.5 - (r3 / (1 + r3 * r3) + std::atan(r3)) / M_PI);
  }
  CHECK(worst * 65536 < 0.001);
}

TEST_CASE("table set: every machine builds the same tables") {
  CHECK(table_hash() == 0x3d484719061d6520);  // aarch64 runs this too, and test_table_set.py other compilers
}

TEST_CASE("table set: parameters out of range are told of") {
  const auto error = [](const auto& f) { return check::error_of(f); };
  const std::vector<uint32_t> tiny = {255}, fine = {65536}, none;
  const std::vector<Masses> empty(1), many(4097, Masses{0, {1}, 0});
  CHECK(error([&] { make_tables(Family::gaussian, tiny, {}, 16, 0); }).find("1/256..8192 are allowed") !=
        std::string::npos);
  CHECK(error([&] { make_tables(Family::gaussian, none, {}, 16, 0); }).find("0 tables") != std::string::npos);
  CHECK(error([&] { make_tables(Family::gaussian, fine, {}, 17, 0); }).find("12..16") != std::string::npos);
  CHECK(error([&] { make_tables(Family::gaussian, fine, {}, 16, 5); }).find("fraction bits") != std::string::npos);
  CHECK(error([&] { make_tables(Family::student_t, fine, {}, 16, 0); }).find("degrees of freedom") !=
        std::string::npos);
  CHECK(error([&] { TableSet::from_masses(empty, 16); }).find("no symbol of a table") != std::string::npos);
  CHECK(error([&] { TableSet::from_masses(many, 16); }).find("4097 tables") != std::string::npos);
  const std::vector<int32_t> cdf = {0, 1, 1, 4095, 4096}, flat = {0, 4096}, falling = {0, 5, 4, 4096},
                             low = {0, 5, 4095};
  CHECK(same(TableSet::from_cdfs(std::vector{TableSet::Cdf{-5, cdf}}, 12),
             TableSet::from_frequencies({{-5, {1, 0, 4094, 1}}}, 12)));
  for (const auto& [bad, what] :
       {std::pair(flat, "cdf 0 has 2 values"), std::pair(falling, "does not rise from 0 to 4096"),
        std::pair(low, "goes from 0 to 4095")})
    CHECK(error([&] { TableSet::from_cdfs(std::vector{TableSet::Cdf{0, bad}}, 12); }).find(what) != std::string::npos);
  CHECK(error([&] { TableSet::from_frequencies({{0, {1, 2}}}, 12); }).find("sum to 3") != std::string::npos);
  CHECK(error([&] { TableSet::from_frequencies({{0, {0, 4096}}}, 12); }).find("but its escape") != std::string::npos);
  CHECK(error([&] { TableSet::from_frequencies({{INT32_MAX, {1, 1, 4094}}}, 12); }).find("above 2^31") !=
        std::string::npos);
  const double bad[] = {0.5, -0.1};
  CHECK(error([&] { masses_of_pmf(0, bad, 0); }).find("probability 1 is -0.1") != std::string::npos);
}

TEST_CASE("table set: truncated and flipped bytes are refused or read, never more than they can justify") {
  const TableSet set = make_tables(Family::gaussian, std::vector<uint32_t>{65536, 300000}, {}, 16, 0);
  std::vector<uint8_t> bytes;
  set.serialize(bytes);
  for (size_t cut = 0; cut < bytes.size(); ++cut)
    CHECK(!check::error_of([&] { TableSet::parse(std::span(bytes).first(cut)); }).empty());
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto bad = bytes;
    bad[bit / 8] ^= uint8_t(1 << bit % 8);
    const std::string error = check::error_of([&] { CHECK(TableSet::parse(bad).entries().size() < 1 << 21); });
    CHECK(error.empty() || error.find("table") != std::string::npos);
  }
}
