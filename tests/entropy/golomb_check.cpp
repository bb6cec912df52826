#include "entropy/golomb.h"

#include <algorithm>
#include <memory>
#include <random>

#include "check.h"
#include "core/error.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;

namespace {

// 0: geometric, 1: zeros, 2: of any length, 3: small with huge ones among them, 4: 64 random bits
std::vector<uint64_t> values_of(int kind, size_t n, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::geometric_distribution<uint64_t> geometric(0.01);
  std::vector<uint64_t> values(n);
  for (auto& v : values) switch (kind) {
      case 0: v = geometric(random); break;
      case 1: v = 0; break;
      case 2: v = random() >> random() % 64; break;
      case 3: v = random() % 64 ? random() % 4 : ~uint64_t(0) - random() % 5; break;
      default: v = random();
    }
  return values;
}
constexpr int kKinds = 5;

std::vector<uint64_t> support(double density, uint64_t size, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::bernoulli_distribution taken(density);
  std::vector<uint64_t> positions;
  for (uint64_t i = 0; i < size; ++i)
    if (taken(random)) positions.push_back(i);
  return positions;
}
constexpr double kDensities[] = {0, 0.001, 0.03, 0.5, 0.8, 0.999, 1};

template <class T>
Bytes coded(const std::vector<T>& values, uint64_t divisor = 0, int threads = 1) {
  return golomb::encode(std::span<const T>(values), divisor, false, threads);
}
template <class T>
Bytes gaps(const std::vector<T>& positions, uint64_t size, int threads = 1) {
  return gap::encode(std::span<const T>(positions), size, threads);
}

std::vector<uint64_t> decoded(std::span<const uint8_t> data, int threads = 1) {
  std::vector<uint64_t> out(size_t(golomb::told(data).count));
  golomb::decode(data, std::span(out), threads);
  return out;
}
std::vector<uint64_t> positions_of(std::span<const uint8_t> data, int threads = 1) {
  std::vector<uint64_t> out(size_t(gap::told(data).count));
  gap::decode(data, std::span(out), threads);
  return out;
}

// Truncations and flips of data end in an Error or in something; on allocations of their own size, so that a sanitizer
// sees a read outside.
template <class F>
void damage(const Bytes& data, const F& decode) {
  const auto tried = [&](const Bytes& bad) {
    const auto copy = std::make_unique<uint8_t[]>(bad.size());
    std::copy(bad.begin(), bad.end(), copy.get());
    return check::error_of([&] { decode(std::span<const uint8_t>(copy.get(), bad.size())); });
  };
  for (size_t cut = 0; cut < data.size(); cut += data.size() > 2000 ? 37 : 1)
    CHECK(!tried({data.begin(), data.begin() + long(cut)}).empty());
  std::mt19937 random(7);
  for (int i = 0; i < 600; ++i) {
    Bytes bad = data;
    for (int flips = 0; flips < 1 + i % 3; ++flips)
      bad[random() % (i % 2 ? bad.size() : std::min<size_t>(bad.size(), 40))] ^= uint8_t(1 << random() % 8);
    tried(bad);
  }
}

}  // namespace

TEST_CASE("golomb: every length, kind and divisor comes back") {
  for (int kind = 0; kind < kKinds; ++kind)
    for (size_t n = 0; n < 700; n += n < 66 ? 1 : 61)
      for (const uint64_t divisor : {0, 1, 2, 3, 37, 64, 1000}) {
        const auto values = values_of(kind, n, uint32_t(n + 1));
        CHECK(decoded(coded(values, divisor)) == values);
      }
}

TEST_CASE("golomb: bytes depend on neither threads nor type") {
  for (int kind = 0; kind < kKinds; ++kind) {
    const auto values = values_of(kind, 3 * golomb::kChunk + 99, 3);
    const Bytes want = coded(values);
    CHECK(coded(values, 0, 3) == want);
    CHECK(decoded(want, 3) == values);
  }
  const std::vector<uint8_t> small = {0, 5, 255, 7};
  CHECK(coded(small) == coded(std::vector<int64_t>{0, 5, 255, 7}));
}

TEST_CASE("golomb: a value that a type does not hold, and one below 0, is named") {
  const Bytes data = coded(std::vector<uint64_t>{1, 300, 70000});
  std::vector<uint8_t> out(3);
  CHECK(check::error_of([&] { golomb::decode(data, std::span(out), 1); }) ==
        "value 300 at place 1 does not fit 8 unsigned bits");
  const std::vector<int64_t> negative = {4, std::numeric_limits<int64_t>::min()};
  CHECK(check::error_of([&] { coded(negative); }).find("value -9223372036854775808 at place 1") == 0);
  const Bytes folded = golomb::encode(std::span<const int64_t>(negative), 0, true, 1);
  std::vector<int64_t> back(2);
  golomb::decode(folded, std::span(back), 1);
  CHECK(back == negative);
  CHECK(check::error_of([&] { golomb::decode(folded, std::span(back).first(1), 1); }) ==
        "the stream holds 2 values, the buffer 1");
  std::vector<int32_t> narrow(2);
  CHECK(check::error_of([&] { golomb::decode(folded, std::span(narrow), 1); }) ==
        "value -9223372036854775808 at place 1 does not fit 32 signed bits");
}

TEST_CASE("golomb: damage ends in an error or in values") {
  for (int kind = 0; kind < kKinds; ++kind)
    for (const size_t n : {3u, 200u, 3000u})
      for (const uint64_t divisor : {0, 48})
        damage(coded(values_of(kind, n, 5), divisor), [](auto data) { decoded(data); });
}

TEST_CASE("gap: supports of every density come back, on any number of threads") {
  for (const double density : kDensities)
    for (const uint64_t size : {0u, 1u, 2u, 63u, 64u, 65u, 1000u, 300000u}) {
      const auto positions = support(density, size, uint32_t(size));
      const Bytes data = gaps(positions, size);
      CHECK(gaps(positions, size, 3) == data);
      CHECK(gaps(std::vector<int32_t>(positions.begin(), positions.end()), size) == data);
      CHECK(positions_of(data, 3) == positions);
      CHECK(data.size() <= (size + 7) / 8 + 24);
      CHECK(gap::told(data).size == size);
    }
}

TEST_CASE("gap: damage ends in an error or in positions") {
  for (const double density : kDensities)
    for (const uint64_t size : {40u, 5000u})
      damage(gaps(support(density, size, 4), size), [](auto data) { positions_of(data); });
}

TEST_CASE("gap: a chunk of others never writes outside what is asked for") {
  // Two chunks of 1024 others each; the advances are moved from one to the other and to the positions behind them.
  std::vector<uint64_t> others(2048), positions;
  for (size_t i = 0; i < others.size(); ++i) others[i] = 3 * i / 2;
  for (uint64_t i = 0; i < 4000; ++i)
    if (!std::binary_search(others.begin(), others.end(), i)) positions.push_back(i);
  for (const uint64_t first : {0u, 1000u, 1023u, 1024u, 1534u, 1535u, 1536u, 2000u, 3071u, 4000u})
    for (const uint64_t second : {0u, 1000u, 1024u, 1535u, 1536u, 2464u, 2465u}) {
      std::vector<uint8_t> data = {8, 1, 10, 1};
      const auto varint = [&](uint64_t value) {
        for (; value >= 128; value >>= 7) data.push_back(uint8_t(value | 128));
        data.push_back(uint8_t(value));
      };
      varint(4000), varint(positions.size()), varint(first), varint(second);
      std::vector<std::vector<uint8_t>> chunks;
      for (size_t half = 0; half < 2; ++half) {
        std::vector<uint64_t> values(1024);
        for (size_t i = 0; i < 1024; ++i) {
          const size_t at = half * 1024 + i;
          values[i] = at == 0 ? 0 : others[at] - others[at - 1] - 1;
        }
        chunks.push_back(golomb::encode_chunk(values, 0));
      }
      golomb::append_chunks(data, chunks);
      const auto out = std::make_unique<uint32_t[]>(positions.size());
      const std::string error = check::error_of([&] { gap::decode(data, std::span(out.get(), positions.size()), 2); });
      const bool right = first == others[1023] + 1 && second == others[2047] - others[1023];
      CHECK(error.empty() == right);
      if (right) CHECK(std::equal(positions.begin(), positions.end(), out.get()));
    }
}

TEST_CASE("golomb and gap: claims beyond what the bytes can hold are refused before anything is allocated") {
  const Bytes values = {7, 1, 15, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2};
  CHECK(check::error_of([&] { golomb::told(values); }).find("values claimed by 2 bytes") != std::string::npos);
  const Bytes all = {8, 1, 15, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
  CHECK(check::error_of([&] { gap::told(all); }).find("at most 2^16 for each") != std::string::npos);
}
