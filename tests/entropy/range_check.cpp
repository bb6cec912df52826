#include "entropy/range.h"

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

constexpr size_t kContexts = 9, kSpan = 4;

// What a seed says: some calls of all kinds, with what they code.
struct Call {
  int kind, order, width;
  Bytes bins;
  std::vector<uint16_t> contexts;
  std::vector<uint32_t> values;
};

std::vector<Call> calls_of(uint32_t seed, size_t most) {
  std::mt19937 random(seed);
  std::vector<Call> calls(random() % 12);
  for (Call& call : calls) {
    call = {int(random() % 3), int(random() % 32), 1 + int(random() % 32), {}, {}, {}};
    const size_t count = random() % (most + 1);
    const uint32_t skew = random() % 64;
    for (size_t i = 0; i < count; ++i) {
      call.bins.push_back(random() % 64 < skew);
      call.contexts.push_back(uint16_t(random() % (kContexts - kSpan + 1)));
      const uint32_t value = uint32_t(random()) >> random() % 32;
      call.values.push_back(call.kind == 1 ? value & uint32_t((uint64_t(1) << call.width) - 1) : value);
    }
  }
  return calls;
}

Bytes encoded(const std::vector<Call>& calls) {
  range::Encoder encoder(kContexts, {}, {});
  for (const Call& call : calls) {
    const std::span<const uint16_t> contexts(call.contexts);
    if (call.kind == 0) encoder.encode(call.bins, contexts);
    if (call.kind == 1) encoder.encode_bypass(call.values, call.width);
    if (call.kind == 2) encoder.encode_exp_golomb(call.values, contexts, kSpan, call.order, call.width % 2);
  }
  return encoder.finish();
}

// Makes the calls; says whether all gave back what was coded. Raises bad_data.
bool decodes(std::span<const uint8_t> data, const std::vector<Call>& calls) {
  range::Decoder decoder(data, kContexts, {}, {});
  bool same = true;
  for (const Call& call : calls) {
    const std::span<const uint16_t> contexts(call.contexts);
    Bytes bins(call.bins.size());
    std::vector<uint32_t> values(call.values.size());
    if (call.kind == 0) decoder.decode(contexts, bins), same &= bins == call.bins;
    if (call.kind == 1) decoder.decode_bypass(call.width, values), same &= values == call.values;
    if (call.kind == 2)
      decoder.decode_exp_golomb(contexts, kSpan, call.order, call.width % 2, values), same &= values == call.values;
  }
  decoder.finish();
  return same;
}

}  // namespace

TEST_CASE("range: calls of every kind come back, from data of exactly their size") {
  for (uint32_t seed = 0; seed < 600; ++seed) {
    const auto calls = calls_of(seed, seed % 3 ? 7 : 400);
    const Bytes data = encoded(calls);
    const auto copy = std::make_unique<uint8_t[]>(data.size());  // a sanitizer sees a read behind it
    std::copy(data.begin(), data.end(), copy.get());
    CHECK(decodes({copy.get(), data.size()}, calls));
  }
}

TEST_CASE("range: numbers at the ends of 32 bits in every order, and of int32") {
  const std::vector<uint32_t> values = {0, 1, 2, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff};
  const std::vector<uint8_t> first(values.size(), 1);
  for (int order = 0; order <= range::kMostOrder; ++order)
    for (const bool zigzag : {false, true})
      for (const size_t span : {1u, 3u, 40u}) {
        range::Encoder encoder(41, {}, {});
        encoder.encode_exp_golomb(values, std::span<const uint8_t>(first), span, order, zigzag);
        const Bytes data = encoder.finish();
        range::Decoder decoder(data, 41, {}, {});
        std::vector<uint32_t> found(values.size());
        decoder.decode_exp_golomb(std::span<const uint8_t>(first), span, order, zigzag, found);
        decoder.finish();
        CHECK(found == values);
      }
}

TEST_CASE("range: likely bins cost next to nothing and estimates stay inside their bounds") {
  for (const range::Rates rates : {range::Rates{2, 2}, range::Rates{4, 7}, range::Rates{12, 12}})
    for (const uint8_t one : {0, 1}) {
      const size_t n = 200000;
      Bytes bins(n, one), contexts(n, 0);
      for (size_t i = 50000; i < n; i += 10007) bins[i] ^= 1;  // the least likely of all
      range::Encoder encoder(1, rates, {});
      encoder.encode(bins, std::span<const uint8_t>(contexts));
      const Bytes data = encoder.finish();
      CHECK(data.size() < (rates.slow == 12 ? n / 8 / 4 : n / 8 / 80));
      range::Decoder decoder(data, 1, rates, {});
      Bytes found(n);
      decoder.decode(std::span<const uint8_t>(contexts), found);
      CHECK(found == bins);
    }
}

TEST_CASE("range: every truncation and many flipped bits end in an error or in other bins") {
  size_t refused = 0, read = 0;
  const auto tried = [&](const Bytes& bad, const auto& calls) {
    const auto copy = std::make_unique<uint8_t[]>(bad.size());
    std::copy(bad.begin(), bad.end(), copy.get());
    const bool error = !check::error_of([&] { decodes({copy.get(), bad.size()}, calls); }).empty();
    ++(error ? refused : read);
  };
  for (uint32_t seed = 1000; seed < 1040; ++seed) {
    const auto calls = calls_of(seed, 60);
    const Bytes data = encoded(calls);
    for (size_t cut = 0; cut < data.size(); ++cut) {
      const Bytes bad(data.begin(), data.begin() + long(cut));
      tried(bad, calls);
    }
    std::mt19937 random(seed);
    for (int i = 0; i < 100; ++i) {
      Bytes bad = data;
      bad[random() % bad.size()] ^= uint8_t(1 << random() % 8);
      tried(bad, calls);
    }
  }
  CHECK(refused > 1000);
  CHECK(read > 100);
}

TEST_CASE("range: a call beyond the data is refused and does not go on for long") {
  const Bytes data = {5, 1};
  range::Decoder decoder(data, 1, {}, {});
  std::vector<uint32_t> values(1 << 16);
  CHECK(check::error_of([&] { decoder.decode_bypass(32, values); }).find("more is needed") != std::string::npos);
}

TEST_CASE("range: contexts that are not there are refused for every width of their numbers") {
  const Bytes data = {5, 1};
  const auto refused = [&](auto id) {
    using Id = decltype(id);
    const std::vector<Id> ids = {0, id};
    Bytes bins(2);
    std::vector<uint32_t> values(2);
    const std::span<const Id> all(ids);
    range::Encoder encoder(200, {}, {});
    range::Decoder decoder(data, 200, {}, {});
    CHECK(!check::error_of([&] { encoder.encode(bins, all); }).empty());
    CHECK(!check::error_of([&] { encoder.encode_exp_golomb(values, all, 1, 0, false); }).empty());
    CHECK(!check::error_of([&] { decoder.decode(all, bins); }).empty());
    CHECK(!check::error_of([&] { decoder.decode_exp_golomb(all, 1, 0, false, values); }).empty());
  };
  refused(uint8_t(200)), refused(uint16_t(0xffff)), refused(uint32_t(0xffffffff)), refused(~uint64_t(0));
  refused(uint64_t(1) << 32), refused(uint64_t(200));
}
