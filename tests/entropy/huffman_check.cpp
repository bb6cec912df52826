#include "entropy/huffman.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <queue>
#include <random>

#include "check.h"
#include "core/error.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;

namespace {

// 0: geometric, 1: all 256 near a Gaussian, 2: two symbols, 3: almost always one symbol, 4: uniform, 5: Fibonacci,
// whose unlimited codes would have one length each
Bytes symbols_of(int kind, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::geometric_distribution<int> geometric(0.385);
  std::normal_distribution<double> normal(128, 44);
  std::vector<double> fibonacci(24, 1.0);
  for (size_t i = 2; i < fibonacci.size(); ++i) fibonacci[i] = fibonacci[i - 1] + fibonacci[i - 2];
  std::discrete_distribution<int> steep(fibonacci.begin(), fibonacci.end());
  Bytes symbols(n);
  for (auto& s : symbols) switch (kind) {
      case 0: s = uint8_t(100 + std::min(31, geometric(random))); break;
      case 1: s = uint8_t(std::lround(std::min(255.0, std::max(0.0, normal(random))))); break;
      case 2: s = uint8_t(random() % 3 ? 255 : 0); break;
      case 3: s = random() % 1000 ? 7 : uint8_t(random()); break;
      case 5: s = uint8_t(steep(random)); break;
      default: s = uint8_t(random());
    }
  return symbols;
}
constexpr int kKinds = 6;

Bytes decoded(const Bytes& data, int threads = 1) {
  Bytes out(size_t(huffman::decoded_size(data)));
  huffman::decode(data, out, threads);
  return out;
}

// The cost of an unlimited Huffman code in bits: the sum of all joined weights.
uint64_t huffman_cost(const ByteCounts& counts) {
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue;
  for (const uint64_t count : counts)
    if (count) queue.push(count);
  uint64_t cost = 0;
  while (queue.size() > 1) {
    const uint64_t a = queue.top();
    queue.pop();
    const uint64_t b = queue.top();
    queue.pop();
    cost += a + b, queue.push(a + b);
  }
  return cost;
}

// The least cost of a code of at most `most` bits for ascending counts, by trying how many leaves stand at each depth.
uint64_t least_by_trial(std::span<const uint64_t> ascending, size_t left, int depth, int most, uint64_t nodes) {
  if (left == 0) return nodes == 0 ? 0 : ~uint64_t(0);
  if (depth > most || nodes == 0) return ~uint64_t(0);
  uint64_t best = ~uint64_t(0), here = 0;
  for (size_t leaves = 0; leaves <= std::min<uint64_t>(left, nodes); ++leaves) {
    if (leaves > 0) here += ascending[left - leaves] * uint64_t(depth);
    const uint64_t below = least_by_trial(ascending, left - leaves, depth + 1, most, 2 * (nodes - leaves));
    if (below != ~uint64_t(0)) best = std::min(best, here + below);
  }
  return best;
}

uint64_t cost(const ByteCounts& counts, const huffman::Lengths& lengths) {
  uint64_t bits = 0;
  for (size_t s = 0; s < 256; ++s) bits += counts[s] * lengths[s];
  return bits;
}

}  // namespace

TEST_CASE("huffman: lengths are complete, within the limit, and cost least") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int most = 3 + int(random() % 10);
    const size_t symbols = 2 + random() % (std::min<size_t>(256, size_t(1) << most) - 1);
    ByteCounts counts{};
    for (size_t s = 0; s < symbols; ++s) counts[(s * 83) % 256] = 1 + (random() >> (random() % 32));
    const huffman::Lengths lengths = huffman::limited_lengths(counts, most);
    uint64_t kraft = 0;
    for (size_t s = 0; s < 256; ++s) {
      CHECK((lengths[s] > 0) == (counts[s] > 0) && lengths[s] <= most);
      if (lengths[s]) kraft += uint64_t(1) << (12 - lengths[s]);
    }
    CHECK(kraft == 4096);
    const uint64_t free = huffman_cost(counts), found = cost(counts, lengths);
    CHECK(found >= free);
    if (symbols <= 9) {
      std::vector<uint64_t> ascending;
      for (const uint64_t count : counts)
        if (count) ascending.push_back(count);
      std::sort(ascending.begin(), ascending.end());
      CHECK(found == least_by_trial(ascending, ascending.size(), 1, most, 2));
    }
    // Where Huffman's own code is within the limit, ours costs the same: flat counts give such.
    for (uint64_t& count : counts)
      if (count) count = 1000 + random() % 900;
    if (most >= 9) CHECK(cost(counts, huffman::limited_lengths(counts, most)) == huffman_cost(counts));
  }
}

TEST_CASE("huffman: short lengths and every kind come back") {
  for (int kind = 0; kind < kKinds; ++kind)
    for (size_t n = 0; n < 1500; n += n < 70 ? 1 : 31) {
      const Bytes symbols = symbols_of(kind, n, uint32_t(n + 1));
      CHECK(decoded(huffman::encode(symbols, 1)) == symbols);
    }
}

TEST_CASE("huffman: every level and number of threads gives the same bytes and reads them") {
  for (int kind = 0; kind < kKinds; ++kind)
    for (const size_t n : {4096u, 30000u, 300001u, 3 * 1048576u + 5000u}) {
      const Bytes symbols = symbols_of(kind, n, 3);
      const Bytes want = huffman::encode(symbols, 1);
      check::each_isa([&] {
        CHECK(huffman::encode(symbols, 3) == want);
        CHECK(decoded(want, 2) == symbols);
      });
    }
}

TEST_CASE("huffman: chunks that are constant or do not gain, among others") {
  Bytes symbols = symbols_of(0, 2 << 20, 4);
  const Bytes noise = symbols_of(4, 1 << 20, 5);
  symbols.insert(symbols.end(), noise.begin(), noise.end());
  symbols.resize(symbols.size() + (1 << 20), 9);
  symbols.insert(symbols.end(), 100, 101);
  const Bytes data = huffman::encode(symbols, 2);
  CHECK(data.size() < symbols.size() * 2 / 3);
  CHECK(decoded(data, 2) == symbols);
}

TEST_CASE("huffman: size over the cost of the best code") {
  for (const int kind : {0, 1, 5})
    for (const size_t n : {size_t(100000), size_t(1) << 20}) {
      const Bytes symbols = symbols_of(kind, n, 5);
      ByteCounts counts{};
      count_bytes(symbols, counts);
      const double least = double(cost(counts, huffman::limited_lengths(counts, 12))) / 8;
      const double size = double(huffman::encode(symbols, 1).size());
      CHECK(size >= least);
      CHECK(size <= least * (1 + 1.0 / 1024) * 1.0045 + 150);  // lengths of 11 bits, gaps and starts, the head
    }
}

TEST_CASE("huffman: kernels write and read nothing but what they are given") {
  // Allocations of exactly the stream's and the symbols' size, so that a sanitizer sees a read or a write outside.
  std::mt19937 random(6);
  for (int kind = 0; kind < kKinds; ++kind)
    for (int round = 0; round < 12; ++round) {
      const size_t n = 2 + random() % (round < 6 ? 200 : 40000);
      const Bytes symbols = symbols_of(kind, n, uint32_t(round));
      const Bytes coded = huffman::encode(symbols, 1);
      check::each_isa([&] {
        const auto data = std::make_unique<uint8_t[]>(coded.size());
        const auto out = std::make_unique<uint8_t[]>(n);
        std::copy(coded.begin(), coded.end(), data.get());
        huffman::decode({data.get(), coded.size()}, {out.get(), n}, 1);
        CHECK(std::equal(symbols.begin(), symbols.end(), out.get()));
      });
    }
}

TEST_CASE("huffman: every truncation and many flipped bits end in an error or the same symbols on every level") {
  for (int kind = 0; kind < kKinds; ++kind)
    for (const size_t n : {300u, 30000u}) {
      const Bytes symbols = symbols_of(kind, n, 9);
      const Bytes data = huffman::encode(symbols, 1);
      for (size_t cut = 0; cut < data.size(); cut += n > 1000 ? 37 : 1) {
        const Bytes bad(data.begin(), data.begin() + long(cut));
        CHECK(!check::error_of([&] { decoded(bad); }).empty());
      }
      std::mt19937 random(11);
      for (int i = 0; i < 800; ++i) {
        Bytes bad = data;
        bad[random() % (i % 2 ? bad.size() : std::min<size_t>(bad.size(), 200))] ^= uint8_t(1 << random() % 8);
        bool first = true;
        Bytes want;
        check::each_isa([&] {
          Bytes got;
          try {
            got.resize(size_t(std::min<uint64_t>(huffman::decoded_size(bad), 1 << 22)));
            huffman::decode(bad, got, 1);
          } catch (const Error&) {
            got.clear();
          }
          if (first) want = got, first = false;
          CHECK(got == want);
        });
      }
    }
}

TEST_CASE("huffman: a claim beyond what the bytes can hold is refused before anything is allocated") {
  const Bytes bomb = {2, 1, 20, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2};
  CHECK(check::error_of([&] { huffman::decoded_size(bomb); }).find("symbols claimed by") != std::string::npos);
}
