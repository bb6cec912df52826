// The GPU's body on the host: every layout, every number of groups, sound and damaged words, against the scalar kernel.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/warp.h"
#include "entropy/rans_tables.h"
#include "entropy/rans_warp.cuh"

using namespace tersor;
using namespace tersor::entropy;

namespace {

struct Coded {
  std::unique_ptr<DecodeTables> tables = std::make_unique<DecodeTables>();
  std::vector<uint8_t> symbols;
  std::vector<uint8_t> bytes;  // room below, the groups' words back to back, room above
  DecodeStates states;
  size_t floor = 0;
  int groups = 0;
  size_t rows = 0;
};

// Symbols 0.. of a two-sided geometric source, so that alphabets of any size have likely and rare members.
std::vector<uint8_t> draw(size_t count, int alphabet, double ratio, std::mt19937& random) {
  std::vector<double> weights(static_cast<size_t>(alphabet));
  for (int s = 0; s < alphabet; ++s) weights[size_t(s)] = std::pow(ratio, std::abs(s - alphabet / 2));
  std::discrete_distribution<int> source(weights.begin(), weights.end());
  std::vector<uint8_t> symbols(count);
  for (uint8_t& symbol : symbols) symbol = uint8_t(source(random));
  return symbols;
}

Coded encode(Layout layout, int groups, size_t rows, std::mt19937& random) {
  Coded coded;
  coded.groups = groups, coded.rows = rows;
  const size_t lanes = size_t(groups) * kGroupLanes;
  const int alphabet = layout == Layout::alias256 ? 256 : 24;
  coded.symbols = draw(rows * lanes, alphabet, layout == Layout::alias256 ? 0.97 : 0.6, random);
  std::vector<uint64_t> counts(256);
  for (const uint8_t symbol : coded.symbols) ++counts[symbol];
  EncodeTables tables{};
  std::vector<uint16_t> slot_of(kSlots + 2);  // enough for every precision
  if (layout == Layout::contiguous) {
    DirectAlphabet direct;
    CHECK(choose_direct(counts, false, direct));
    const auto names = direct.symbol.begin();
    for (uint8_t& symbol : coded.symbols) {
      const auto at = std::find(names, names + direct.direct, symbol);
      symbol = uint8_t(at - names);  // the escape comes behind the last direct name
    }
    prepare_encode(direct, tables);
    prepare_decode(direct, *coded.tables);
  } else {
    const Table table = Table::from_counts(counts);
    prepare_encode(table, tables, slot_of);
    prepare_decode(table, *coded.tables);
  }
  CHECK(coded.tables->layout == layout);
  EncodeStates states;
  const size_t region = rows * kGroupLanes + 32;
  std::vector<uint16_t> words(region * size_t(groups));
  std::fill(std::begin(states.x), std::end(states.x), kSlots);
  for (int g = 0; g < groups; ++g) states.words[g] = words.data() + size_t(g) * region;
  encode_rows_scalar(tables, states, groups, rows, coded.symbols.data());
  coded.floor = 64 * size_t(groups);
  coded.bytes.resize(coded.floor);
  size_t ends[kMostGroups] = {};
  for (int g = 0; g < groups; ++g) {
    const uint16_t* begin = words.data() + size_t(g) * region;
    const auto* from = reinterpret_cast<const uint8_t*>(begin);
    coded.bytes.insert(coded.bytes.end(), from, reinterpret_cast<const uint8_t*>(states.words[g]));
    ends[g] = coded.bytes.size();
  }
  coded.bytes.resize(coded.bytes.size() + 64);
  for (int g = 0; g < groups; ++g) coded.states.words[g] = coded.bytes.data() + ends[g];
  for (size_t lane = 0; lane < lanes; ++lane) {
    coded.states.low[lane] = uint16_t(states.x[lane]);
    coded.states.high[lane] = uint16_t(states.x[lane] >> 16);
  }
  return coded;
}

bool decode_by_warps(const Coded& coded, DecodeStates& states, const uint8_t* floor, uint8_t* out) {
  const DecodeTables& t = *coded.tables;
  const WarpTables tables{t.until, t.side, bucket_log_width(t.layout)};
  bool sound = true;
  for (int g = 0; g < coded.groups; ++g)
    sound &= decode_group_warp(cuda::HostWarp{}, tables, states.low + g * kGroupLanes, states.high + g * kGroupLanes,
                               &states.words[g], floor, coded.rows, out + g * kGroupLanes,
                               size_t(coded.groups) * kGroupLanes);
  return sound;
}

constexpr Layout kLayouts[] = {Layout::alias32, Layout::alias256, Layout::contiguous};

}  // namespace

TEST_CASE("rans warp: equals the scalar kernel for every layout and number of groups") {
  std::mt19937 random(1);
  for (const Layout layout : kLayouts)
    for (const int groups : {1, 2, 4, 8})
      for (const size_t rows : {size_t(1), size_t(2), size_t(57), size_t(300)}) {
        const Coded coded = encode(layout, groups, rows, random);
        const uint8_t* const floor = coded.bytes.data() + coded.floor;
        DecodeStates by_scalar = coded.states, by_warp = coded.states;
        std::vector<uint8_t> scalar(coded.symbols.size()), warp(coded.symbols.size());
        CHECK(decode_rows_scalar(*coded.tables, by_scalar, groups, floor, rows, scalar.data()));
        CHECK(decode_by_warps(coded, by_warp, floor, warp.data()));
        CHECK(scalar == coded.symbols);
        CHECK(warp == coded.symbols);
        const size_t lanes = size_t(groups) * kGroupLanes;
        CHECK(std::equal(by_warp.low, by_warp.low + lanes, by_scalar.low));
        CHECK(std::equal(by_warp.high, by_warp.high + lanes, by_scalar.high));
        CHECK(std::equal(by_warp.words, by_warp.words + groups, by_scalar.words));
      }
}

TEST_CASE("rans warp: damaged and missing words, as the scalar kernel sees them") {
  std::mt19937 random(2);
  int refused = 0;
  for (const Layout layout : kLayouts)
    for (int round = 0; round < 60; ++round) {
      Coded coded = encode(layout, 2, 40, random);
      const size_t words = coded.bytes.size() - 64 - coded.floor;
      coded.bytes[coded.floor + random() % words] ^= uint8_t(1u << random() % 8);
      const uint8_t* const floor = coded.bytes.data() + coded.floor + (round % 2 ? 2 * (random() % (words / 2)) : 0);
      DecodeStates by_scalar = coded.states, by_warp = coded.states;
      std::vector<uint8_t> scalar(coded.symbols.size()), warp(coded.symbols.size());
      const bool sound = decode_rows_scalar(*coded.tables, by_scalar, 2, floor, coded.rows, scalar.data());
      CHECK(decode_by_warps(coded, by_warp, floor, warp.data()) == sound);
      if (sound) CHECK(scalar == warp);
      refused += !sound;
    }
  CHECK(refused > 30 && refused < 180);
}
