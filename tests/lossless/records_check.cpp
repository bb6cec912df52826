#include "lossless/records.h"

#include "check.h"
#include "lossless/chunks.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

// Blocks of a scale and sixteen bytes of codes, cut wherever `phase` says.
const std::vector<Field> kBlock = {{2, Element::fp16}, {16, Element::bytes}};
constexpr size_t kBlockBytes = 18;

Bytes blocks(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 20);
  Bytes out;
  for (size_t i = 0; i < count; ++i) {
    out.push_back(uint8_t(random())), out.push_back(uint8_t(0x24 + random() % 2));
    for (size_t k = 2; k < kBlockBytes; ++k) out.push_back(uint8_t(int(normal(random))));
  }
  return out;
}

Bytes coded_records(const std::vector<Field>& fields, std::span<const uint8_t> raw, uint64_t phase, int level = 4) {
  Bytes coded(chunk_bound(raw.size()));
  coded.resize(encode_chunk(Layout(fields, phase), raw, level, coded));
  return coded;
}

}  // namespace

TEST_CASE("records: cut anywhere they come back, the same bytes on every level of ISA") {
  const Bytes whole = blocks(3000, 1);
  for (const size_t phase : {0, 1, 2, 9, 17, 18, 1000})
    for (const int level : {1, kDefaultLevel, 9}) {
      const std::span raw = std::span<const uint8_t>(whole).subspan(phase);
      Bytes want;
      check::each_isa([&] {
        const Bytes coded = coded_records(kBlock, raw, phase, level);
        if (want.empty()) want = coded;
        CHECK(coded == want && coded[0] == 12);
        CHECK(decoded(coded, raw.size()) == Bytes(raw.begin(), raw.end()));
      });
    }
}

TEST_CASE("records: fields apart cost less than their bytes in a row") {
  const Bytes raw = blocks(50'000, 2);
  CHECK(coded_records(kBlock, raw, 0).size() < encoded(Element::bytes, raw, 4).size());
}

TEST_CASE("records: where fields have nothing to themselves, or none is whole, the chunk is bytes") {
  std::mt19937 random(3);
  Bytes noise(20'000);
  for (auto& byte : noise) byte = uint8_t(random() >> 24);
  CHECK(coded_records(kBlock, noise, 0)[0] == 0);
  for (const size_t size : {1, 17, 18, 19, 35}) {
    const Bytes raw = blocks(2, 4);
    const std::span part = std::span<const uint8_t>(raw).first(size);
    CHECK(decoded(coded_records(kBlock, part, 5), size) == Bytes(part.begin(), part.end()));
  }
}

TEST_CASE("records: layouts outside their range are refused") {
  const Bytes raw = blocks(20, 5);
  const auto refused = [&](const std::vector<Field>& fields) {
    return check::error_of([&] { coded_records(fields, raw, 0); });
  };
  CHECK(refused(std::vector<Field>(33, {1, Element::bytes})).find("a record of 33 fields") == 0);
  CHECK(refused({{4096, Element::bytes}, {1, Element::bytes}}).find("a record of 2 fields and 4097 bytes") == 0);
  CHECK(refused({{0, Element::bytes}}) == "a field of 0 bytes in a record");
}

TEST_CASE("records: every truncation is an error, every changed bit an error or a whole result") {
  std::mt19937 random(6);
  const Bytes whole = blocks(1000, 7);
  const std::span raw = std::span<const uint8_t>(whole).subspan(5);
  check_damage(coded_records(kBlock, raw, 5), raw.size(), 300, 41, 400, 60, random);
}

TEST_CASE("records: hostile heads are refused by name") {
  const auto refused = [](Bytes coded, size_t size) { return check::error_of([&] { decoded(coded, size); }); };
  CHECK(refused({12}, 4).find("lossless records: 0 fields") == 0);
  CHECK(refused({12, 33}, 4).find("lossless records: 33 fields") == 0);
  CHECK(refused({12, 1, 0}, 4).find("lossless records: a field of 0 bytes") == 0);
  CHECK(refused({12, 2, 0x80, 0x20, 1}, 4).find("lossless records: a field of 1 bytes behind 4096") == 0);
  CHECK(refused({12, 1, 4, 4}, 9).find("lossless records: 4 bytes before records of 4") == 0);
  CHECK(refused({12, 1, 4, 0}, 3).find("lossless records: 0 bytes before records of 4 in 3") == 0);
  CHECK(refused({12, 1, 4, 0, 9, 0}, 4).find("lossless records: 9 bytes needed") == 0);
  Bytes nested = {0, 1, 2, 3, 4};
  for (int depth = 1; depth <= 4; ++depth) {
    Bytes around = {12, 1, 4, 0, uint8_t(nested.size())};
    around.insert(around.end(), nested.begin(), nested.end());
    nested = around;
    CHECK(depth == 4 ? refused(nested, 4) == "lossless records: parts nested deeper than 3"
                     : decoded(nested, 4) == Bytes({1, 2, 3, 4}));
  }
  CHECK(refused({12, 1, 4, 0, 3, 1, 1, 7, 9}, 4) == "lossless chunk: 1 bytes too many");
  CHECK(decoded({12, 1, 4, 1, 5, 3, 1, 1, 7}, 5) == Bytes({5, 7, 7, 7, 7}));
}
