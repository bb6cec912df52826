#include "entropy/indexed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "check.h"
#include "core/error.h"
#include "entropy/distribution.h"
#include "entropy/indexed_kernels.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;

namespace {

uint32_t q16(double value) { return uint32_t(std::lround(value * 65536)); }

std::shared_ptr<const TableSet> gaussians(int count, double least, double most, int fraction_bits = 0) {
  std::vector<uint32_t> scales;
  for (int i = 0; i < count; ++i)
    scales.push_back(q16(least * std::pow(most / least, i / double(std::max(1, count - 1)))));
  return std::make_shared<TableSet>(make_tables(Family::gaussian, scales, {}, 16, fraction_bits));
}

// Symbols near what the tables of 0.11..64 expect, one in `wild` anywhere.
struct Sample {
  std::vector<int32_t> symbols, means;
  std::vector<uint8_t> indexes;
  std::shared_ptr<const TableSet> tables;

  indexed::Indexes at() const { return at(0, indexes.size()); }
  indexed::Indexes at(size_t from, size_t count) const { return {indexes.data() + from, count, 1}; }
  indexed::Means mean(size_t from, size_t count) const {
    return means.empty() ? indexed::Means() : indexed::Means(means).subspan(from, count);
  }
  Bytes encoded(int threads = 1) const { return indexed::encode(symbols, at(), *tables, means, threads); }
  std::vector<int32_t> decoded(const Bytes& data, int threads = 1) const {
    std::vector<int32_t> out(indexes.size());
    indexed::decode(data, at(), *tables, means, out, threads);
    return out;
  }
};

Sample sample(size_t n, uint32_t seed, int wild = 0, int fraction_bits = -1, double least = 0.11, double most = 64) {
  Sample made;
  made.tables = gaussians(64, least, most, std::max(0, fraction_bits));
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (size_t i = 0; i < n; ++i) {
    made.indexes.push_back(uint8_t(random() % 64));
    const double mean = fraction_bits >= 0 ? double(int32_t(random() % 4096) - 2048) : 0;
    if (fraction_bits >= 0) made.means.push_back(int32_t(mean));
    const double scale = least * std::pow(most / least, made.indexes.back() / 63.0);
    made.symbols.push_back(
        int32_t(std::lround(normal(random) * scale + std::ldexp(mean, -std::max(0, fraction_bits)))));
    if (wild && random() % uint32_t(wild) == 0) made.symbols.back() = int32_t(random());
  }
  return made;
}

}  // namespace

TEST_CASE("indexed: short lengths come back, with escapes and means") {
  for (size_t n = 0; n < 700; n += n < 70 ? 1 : 31)
    for (const int wild : {0, 5})
      for (const int fraction_bits : {-1, 0, 3}) {
        const Sample s = sample(n, uint32_t(n + 1), wild, fraction_bits);
        CHECK(s.decoded(s.encoded()) == s.symbols);
      }
}

TEST_CASE("indexed: every level and number of threads gives the same bytes and reads them") {
  struct {
    size_t symbols;
    int wild, fraction_bits;
    double most;
  } const cases[] = {{5000, 0, -1, 64},     {20001, 300, 4, 64},     {70000, 0, -1, 64},
                     {150000, 1000, -1, 8}, {600000, 100000, 2, 64}, {1200000, 0, -1, 0.2}};
  for (const auto& c : cases) {
    const Sample s = sample(c.symbols, 7, c.wild, c.fraction_bits, 0.11, c.most);
    const Bytes want = s.encoded();
    check::each_isa([&] {
      CHECK(s.encoded(3) == want);
      CHECK(s.decoded(want, 1) == s.symbols);
      CHECK(s.decoded(want, 2) == s.symbols);
    });
  }
}

TEST_CASE("indexed: every machine writes the same stream") {
  Sample s;
  std::vector<uint32_t> scales;  // of integers, as all that goes in here: no library's logarithm decides
  for (uint32_t i = 0; i < 64; ++i) scales.push_back(7209 + i * i * i * 16);
  s.tables = std::make_shared<TableSet>(make_tables(Family::logistic, scales, {}, 16, 2));
  uint64_t random = 1;
  for (size_t i = 0; i < 70000; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    s.indexes.push_back(uint8_t(random >> 33 & 63));
    s.means.push_back(int32_t(random >> 40 & 1023) - 512);
    s.symbols.push_back(int32_t(s.means.back() >> 2) +
                        (random >> 50 & 511 ? int32_t(random >> 60) % 3 - 1 : int32_t(random)));
  }
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const uint8_t byte : s.encoded()) hash = (hash ^ byte) * 1099511628211u;
  CHECK(hash == 0xfb94c9fb95d206b2);
  CHECK(s.decoded(s.encoded()) == s.symbols);
}

TEST_CASE("indexed: calls of any size write and read what one call does") {
  const Sample s = sample(300000, 11, 2000, 3);
  const Bytes want = s.encoded();
  std::mt19937 random(3);
  check::each_isa([&] {
    indexed::Encoder encoder;
    for (size_t at = 0, n; at < s.symbols.size(); at += n) {
      n = std::min<size_t>(s.symbols.size() - at, random() % 5 ? random() % 3000 : random() % 3);
      encoder.write(std::span(s.symbols).subspan(at, n), s.at(at, n), s.tables, s.mean(at, n));
    }
    CHECK(encoder.finish(2) == want);
    CHECK(encoder.symbols() == 0);
    indexed::Decoder decoder(want);
    std::vector<int32_t> out(s.symbols.size());
    for (size_t at = 0, n; at < out.size(); at += n) {
      n = std::min<size_t>(out.size() - at, random() % 5 ? random() % 3000 : random() % 3);
      decoder.read(s.at(at, n), *s.tables, s.mean(at, n), std::span(out).subspan(at, n));
      CHECK(decoder.position() == at + n);
    }
    CHECK(out == s.symbols);
  });
}

TEST_CASE("indexed: a decoder goes to chunks, and tables may change from call to call") {
  const Sample s = sample(600000, 5), other = sample(1000, 6, 50, -1, 1, 4);
  indexed::Encoder encoder;
  encoder.write(s.symbols, s.at(), s.tables, {});
  encoder.write(other.symbols, other.at(), other.tables, {});
  const Bytes data = encoder.finish(1);
  indexed::Decoder decoder(data);
  CHECK(decoder.symbols() == 601000 && decoder.chunk() == 262144);
  std::vector<int32_t> out(601000 - 524288);
  decoder.seek(524288);
  decoder.read(s.at(524288, 600000 - 524288), *s.tables, {}, std::span(out).first(600000 - 524288));
  decoder.read(other.at(), *other.tables, {}, std::span(out).last(1000));
  CHECK(std::equal(other.symbols.begin(), other.symbols.end(), out.end() - 1000));
  CHECK(std::equal(out.begin(), out.end() - 1000, s.symbols.begin() + 524288));
  CHECK(check::error_of([&] { decoder.seek(7); }).find("multiples of 262144") != std::string::npos);
  CHECK(check::error_of([&] {
          decoder.read(s.at(0, 1), *s.tables, {}, std::span(out).first(1));
        }).find("reads 1 symbols, 0 are left") != std::string::npos);
}

TEST_CASE("indexed: symbols by their own intervals are read by their own cdfs") {
  std::mt19937 random(9);
  const size_t n = 5000, length = 7;
  std::vector<uint16_t> cdfs;
  std::vector<int16_t> symbols;
  for (size_t i = 0; i < n; ++i) {
    std::vector<uint16_t> cdf(length);
    for (size_t k = 1; k + 1 < length; ++k) cdf[k] = uint16_t(1 + random() % 65535);
    std::sort(cdf.begin(), cdf.end() - 1);
    cdf.back() = 0;  // 2^16
    size_t k;
    do k = random() % (length - 1);
    while ((k + 2 == length ? 65536u : cdf[k + 1]) == cdf[k]);
    symbols.push_back(int16_t(k));
    cdfs.insert(cdfs.end(), cdf.begin(), cdf.end());
  }
  indexed::Encoder encoder;
  encoder.write_cdfs(cdfs, length, symbols);
  const Bytes data = encoder.finish(1);
  indexed::Decoder decoder(data);
  std::vector<int16_t> out(n);
  for (size_t at = 0; at < n; at += 777) {
    const size_t many = std::min<size_t>(777, n - at);
    decoder.read_cdfs(std::span(cdfs).subspan(at * length, many * length), length, std::span(out).subspan(at, many));
  }
  CHECK(out == symbols);
}

TEST_CASE("indexed: a symbol that has all slots costs nothing, at every level") {
  std::mt19937 random(3);
  const size_t n = 40000, length = 3;
  std::vector<uint16_t> some, all(n * length);  // of every table in `all` the last symbol has all slots
  std::vector<int16_t> symbols, last(n, 1);
  for (size_t i = 0; i < n; ++i) {
    const uint16_t middle = i % 2 ? 0 : uint16_t(1 + random() % 65535);
    some.insert(some.end(), {0, middle, uint16_t(random())});
    symbols.push_back(middle ? int16_t(random() % 2) : 1);
  }
  check::each_isa([&] {
    for (const auto& [cdfs, want] : {std::pair(some, symbols), std::pair(all, last)}) {
      indexed::Encoder encoder;
      encoder.write_cdfs(cdfs, length, want);
      const Bytes data = encoder.finish(1);
      CHECK(cdfs == some || data.size() < 16);
      indexed::Decoder decoder(data);
      std::vector<int16_t> out(n);
      decoder.read_cdfs(cdfs, length, out);
      CHECK(out == want);
    }
  });
  indexed::Encoder encoder;
  const auto error = [&](std::vector<uint16_t> cdf, int16_t symbol) {
    return check::error_of([&] { encoder.write_cdfs(cdf, 3, {&symbol, 1}); });
  };
  CHECK(error({0, 0, 0}, 0).find("has no slot: its cdf goes from 0 to 0") != std::string::npos);
  CHECK(error({0, 9, 0}, 2).find("symbol 0 is 2, its cdf has 2") != std::string::npos);
  CHECK(error({0, 9, 0}, -1).find("symbol 0 is -1") != std::string::npos);
  CHECK(error({0, 9}, 0).find("2 values of cdfs of 3 for 1 symbols") != std::string::npos);
  CHECK(encoder.symbols() == 0);
}

TEST_CASE("indexed: the quotient is exact for every frequency at the ends of its range") {
  std::mt19937_64 random(1);
  bool exact = true;
  for (uint32_t f = 1; f < kTableSlots; ++f) {
    const SymbolEntry entry = symbol_entry(0, f);
    const uint64_t most = (uint64_t(f) << 47) - 1;
    // states whose quotients lie at a multiple of f or one below, where an estimate could slip
    for (const uint64_t q : {most / f, most / f - 1, kStateFloor / f + 1, random() % (most / f) + 1})
      for (const uint64_t x : {q * f, q * f - 1, q * f + f - 1, most}) {
        if (x < kStateFloor || x > most) continue;
        uint64_t state = x;
        uint32_t words[8], *top = words + 8;
        const uint32_t id = 0;
        top = encode_indexed_some(&entry, &id, 1, 0, 1, &state, top);
        exact &= top == words + 8 && state == ((x / f) << 16) + x % f;
      }
  }
  CHECK(exact);
}

TEST_CASE("indexed: all 32-bit symbols, tables of every shape and holes come back on every level") {
  std::vector<TableSet::Frequencies> tables = {
      {-3, {65534, 1, 1}},                       // one likely symbol
      {INT32_MIN, {1, 2, 3, 65530 - 1, 1}},      // at the lower end
      {INT32_MAX - 4, {1, 2, 3, 65530 - 1, 1}},  // at the upper one
      {0, {10, 0, 0, 20, 0, 65536 - 31, 1}},     // holes
      {5, {65536, 0}},                           // everything to one symbol: the escape gets a slot of it
  };
  tables.push_back({-32768, std::vector<uint32_t>(65535, 1)});
  tables.back().frequencies.push_back(1);
  std::vector<uint32_t> steep(3000, 1);
  steep[1500] = 65536 - 3000;
  steep.push_back(1);
  tables.push_back({-1500, steep});
  const auto set = std::make_shared<TableSet>(TableSet::from_frequencies(tables, 16));
  std::mt19937 random(2);
  for (const size_t n : {37u, 3000u, 100000u}) {
    Sample s;
    s.tables = set;
    const int32_t ends[] = {INT32_MIN, INT32_MIN + 1, -1, 0, 1, 4, 5, INT32_MAX - 1, INT32_MAX};
    for (size_t i = 0; i < n; ++i) {
      s.indexes.push_back(uint8_t(random() % tables.size()));
      const uint32_t low = uint32_t(tables[s.indexes.back()].low);
      s.symbols.push_back(random() % 8   ? int32_t(low + random() % 8)
                          : random() % 2 ? ends[random() % 9]
                                         : int32_t(random()));
    }
    const Bytes want = s.encoded();
    check::each_isa([&] {
      CHECK(s.encoded() == want);
      CHECK(s.decoded(want) == s.symbols);
    });
  }
}

TEST_CASE("indexed: wrong calls are told of, and change nothing") {
  const Sample s = sample(5000, 1);
  std::vector<int32_t> out(5000), wrong(s.indexes.begin(), s.indexes.end());
  wrong[4321] = 64;
  const auto error = [&](const auto& f) { return check::error_of(f); };
  CHECK(error([&] { indexed::encode(s.symbols, {wrong.data(), 5000, 4}, *s.tables, {}, 1); }) ==
        "index 64 at symbol 4321: the set has 64 tables");
  wrong[4321] = -7;
  CHECK(error([&] { indexed::encode(s.symbols, {wrong.data(), 5000, 4}, *s.tables, {}, 1); }) ==
        "index -7 at symbol 4321: the set has 64 tables");
  CHECK(error([&] { indexed::encode(s.symbols, s.at(0, 4999), *s.tables, {}, 1); }) == "4999 indexes for 5000 symbols");
  const Bytes data = s.encoded();
  CHECK(error([&] { indexed::decode(data, s.at(0, 4000), *s.tables, {}, std::span(out).first(4000), 1); }) ==
        "the stream holds 5000 symbols, the indexes are 4000");
  indexed::Decoder decoder(data);
  CHECK(error([&] { decoder.read({wrong.data(), 5000, 4}, *s.tables, {}, out); }) ==
        "index -7 at symbol 4321: the set has 64 tables");
  decoder.read(s.at(), *s.tables, {}, out);
  CHECK(out == s.symbols);
  indexed::Encoder encoder;
  encoder.write(s.symbols, s.at(), s.tables, {});
  CHECK(!error([&] { encoder.write(s.symbols, {wrong.data(), 5000, 4}, s.tables, {}); }).empty());
  CHECK(encoder.finish(1) == data);
}

TEST_CASE("indexed: damage, wrong tables and wrong indexes end in an error or wrong symbols, alike on every level") {
  for (const size_t n : {50u, 3000u, 30000u}) {
    const Sample s = sample(n, 4, 200);
    const Bytes data = s.encoded();
    std::mt19937 random(8);
    const auto decode_to = [&](const Bytes& bytes, const Sample& as) {
      check::alike_on_each_isa(4 * n, [&](std::vector<uint8_t>& out) {
        std::vector<int32_t> symbols(n);
        indexed::decode(bytes, as.at(), *as.tables, {}, symbols, 1);
        std::memcpy(out.data(), symbols.data(), out.size());
      });
    };
    for (int i = 0; i < 60; ++i) {
      Bytes bad = data;
      if (i % 2)
        bad.resize(random() % bad.size());
      else
        bad[random() % std::min<size_t>(bad.size(), i % 4 ? 40 : bad.size())] ^= uint8_t(1 << random() % 8);
      decode_to(bad, s);
    }
    Sample other = s;
    other.tables = gaussians(64, 0.2, 30);
    decode_to(data, other);
    other = s;
    for (auto& index : other.indexes) index = uint8_t(random() % 64);
    decode_to(data, other);
  }
}

TEST_CASE("indexed: side information is at most 16 bytes below 4096 symbols, and lanes cost 4 bytes each") {
  for (const double most : {0.15, 1.0, 64.0})
    for (const size_t n : {1u, 10u, 100u, 1000u, 4095u, 70000u, 1000000u}) {
      const Sample s = sample(n, 21, 0, -1, 0.11, most);
      double bits = 0;
      for (size_t i = 0; i < n; ++i) {
        const TableRow& row = s.tables->rows()[s.indexes[i]];
        const uint32_t symbol = std::min(uint32_t(s.symbols[i]) - uint32_t(row.low), row.count);
        bits -= std::log2(s.tables->entries()[row.entry + symbol].frequency / 65536.0);
        if (symbol == row.count) bits += 8;
      }
      const Bytes data = s.encoded();
      const double over = double(data.size()) - bits / 8;
      const int lanes = 1 << (data[2] & 7);
      CHECK(over <= (n < 4096 ? 16.99 : 64 + 4 * lanes + bits / 8 * (lanes == 32 ? 0.002 : 0.001)));
    }
}
