// Every level's row kernels against scalar: symbols, states and words. And the reciprocal, for every frequency there
// is.
#include <algorithm>
#include <cfenv>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "entropy/rans.h"
#include "entropy/rans_tables.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

struct Level {
  Isa isa;
  DecodeRows* decode;
  EncodeRows* encode;
};

std::vector<Level> levels() {
  std::vector<Level> all = {{Isa::scalar, decode_rows_scalar, encode_rows_scalar}};
  TERSOR_X86(if (machine_isa() >= Isa::avx2) all.push_back({Isa::avx2, decode_rows_avx2, encode_rows_avx2});
             if (machine_isa() >= Isa::avx512) all.push_back({Isa::avx512, decode_rows_avx512, encode_rows_avx512});
             if (machine_isa() >= Isa::avx512vbmi)
                 all.push_back({Isa::avx512vbmi, decode_rows_avx512vbmi, encode_rows_avx512});)
  return all;
}

struct Model {
  DecodeTables decode{};
  EncodeTables encode{};
  std::vector<uint16_t> slot_of;
  std::vector<uint8_t> present;    // symbols that have a frequency
  std::vector<uint8_t> symbol_of;  // where those are names
};

std::unique_ptr<Model> model_of(const Table& table) {
  auto model = std::make_unique<Model>();
  model->slot_of.resize(slot_entries(table));
  prepare_decode(table, model->decode);
  prepare_encode(table, model->encode, model->slot_of);
  for (size_t s = 0; s <= table.last(); ++s)
    if (table.frequencies()[s]) model->present.push_back(uint8_t(s));
  return model;
}

// The names of `table`, which has at most 32, stand for symbols in no order at all.
std::unique_ptr<Model> named_model_of(const Table& table, std::mt19937& random) {
  auto model = model_of(table);
  model->symbol_of.resize(32);
  for (uint8_t& symbol : model->symbol_of) symbol = uint8_t(random());
  prepare_decode(table, std::span<const uint8_t, 32>(model->symbol_of), model->decode);
  return model;
}

std::unique_ptr<Model> model_of(const std::vector<uint32_t>& contiguous) {
  DirectAlphabet alphabet;
  alphabet.direct = int(contiguous.size());
  alphabet.table = Table::from_frequencies(contiguous, 16);
  auto model = std::make_unique<Model>();
  prepare_decode(alphabet, model->decode);
  prepare_encode(alphabet, model->encode);
  for (size_t s = 0; s < contiguous.size(); ++s) model->present.push_back(uint8_t(s));
  return model;
}

Table random_table(std::mt19937& random, size_t first, size_t symbols, int precision) {
  std::vector<uint64_t> counts(first + symbols);
  for (size_t s = 0; s < symbols; ++s)
    if (s == 0 || s + 1 == symbols || random() % 4) counts[first + s] = 1 + (random() >> (random() % 32));
  return Table::from_counts(counts, precision);
}

std::vector<uint8_t> draw(const Model& model, size_t count, std::mt19937& random) {
  std::vector<uint8_t> symbols(count);
  // Skewed and flat by turns, so that states take and give words in every pattern.
  for (size_t i = 0; i < count; ++i)
    symbols[i] = model.present[(i / 512 % 2 ? random() : random() & random() & 3) % model.present.size()];
  return symbols;
}

void check_rows(const Model& model, std::mt19937& random) {
  for (const int groups : {1, 2, 4, 8})
    for (const size_t rows : {size_t(1), size_t(2), size_t(7), size_t(8), size_t(9), size_t(65)}) {
      const size_t lanes = size_t(groups) * kGroupLanes, region = rows * kGroupLanes + 32;
      const auto symbols = draw(model, rows * lanes, random);
      EncodeStates start;
      for (size_t lane = 0; lane < lanes; ++lane) start.x[lane] = kSlots + random() % (kSlots << 4);
      std::vector<uint32_t> want_states;
      std::vector<uint16_t> want_words;
      size_t want_ends[kMostGroups] = {};
      for (const Level& level : levels()) {
        std::vector<uint16_t> words(region * size_t(groups));
        EncodeStates states = start;
        for (int g = 0; g < groups; ++g) states.words[g] = words.data() + size_t(g) * region;
        level.encode(model.encode, states, groups, rows, symbols.data());
        for (int g = 0; g < groups; ++g) {  // bytes behind a group's words are the kernel's own affair
          uint16_t* const end = states.words[g];
          std::fill(end, words.data() + size_t(g + 1) * region, uint16_t(0));
          const size_t count = size_t(end - words.data()) - size_t(g) * region;
          if (level.isa == Isa::scalar) want_ends[g] = count;
          CHECK(count == want_ends[g]);
        }
        const std::vector<uint32_t> x(states.x, states.x + lanes);
        if (level.isa == Isa::scalar) want_states = x, want_words = words;
        CHECK(x == want_states && words == want_words);
      }
      auto want = symbols;
      if (!model.symbol_of.empty())
        for (uint8_t& symbol : want) symbol = model.symbol_of[symbol];
      // The words as a block holds them: 64 bytes a group below and above.
      std::vector<uint8_t> bytes(2 * lanes);
      const uint8_t* begins[kMostGroups];
      size_t at[kMostGroups] = {};
      for (int g = 0; g < groups; ++g) {
        const auto* from = reinterpret_cast<const uint8_t*>(want_words.data() + size_t(g) * region);
        bytes.insert(bytes.end(), from, from + 2 * want_ends[g]);
        at[g] = bytes.size();
      }
      bytes.resize(bytes.size() + 2 * lanes);
      for (int g = 0; g < groups; ++g) begins[g] = bytes.data() + (g ? at[g - 1] : 2 * lanes);
      for (const Level& level : levels()) {
        DecodeStates states;
        for (size_t lane = 0; lane < lanes; ++lane)
          states.low[lane] = uint16_t(want_states[lane]), states.high[lane] = uint16_t(want_states[lane] >> 16);
        for (int g = 0; g < groups; ++g) states.words[g] = bytes.data() + at[g];
        std::vector<uint8_t> out(symbols.size());
        CHECK(level.decode(model.decode, states, groups, bytes.data() + 2 * lanes, rows, out.data()));
        CHECK(out == want);
        for (size_t lane = 0; lane < lanes; ++lane)
          CHECK((uint32_t(states.high[lane]) << 16 | states.low[lane]) == start.x[lane]);
        for (int g = 0; g < groups; ++g) CHECK(states.words[g] == begins[g]);
      }
    }
}

}  // namespace

TEST_CASE("rans kernels: alias tables of every size and precision, equal to scalar in symbols, states and words") {
  std::mt19937 random(1);
  for (int precision = kLeastPrecision; precision <= kMostPrecision; ++precision)
    for (const size_t symbols : {2u, 3u, 31u, 32u, 33u, 200u, 256u}) {
      const size_t first = symbols <= 32 && precision % 2 ? 256 - symbols : 0;
      check_rows(*model_of(random_table(random, first, symbols, precision)), random);
      if (symbols <= 32) check_rows(*named_model_of(random_table(random, 0, symbols, precision), random), random);
    }
  check_rows(*model_of(Table::from_frequencies({1, 65535}, 16)), random);
  check_rows(*model_of(Table::from_frequencies({65535, 1}, 16)), random);
  check_rows(*model_of(Table::from_frequencies(std::vector<uint32_t>(256, 256), 16)), random);
  check_rows(*model_of(Table::from_frequencies(std::vector<uint32_t>(32, 128), 12)), random);
  // Halves: the symbol of exactly a bucket's width lends slots to smaller ones and takes others for them.
  check_rows(*model_of(Table::from_frequencies({2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1}, 12)), random);
  check_rows(*model_of(Table::from_frequencies({1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}, 12)), random);
}

TEST_CASE("rans kernels: contiguous tables, equal to scalar in symbols, states and words") {
  std::mt19937 random(2);
  check_rows(*model_of(std::vector<uint32_t>{1024, 64512}), random);
  check_rows(*model_of(std::vector<uint32_t>(32, 2048)), random);
  for (int round = 0; round < 6; ++round) {
    std::vector<uint32_t> frequencies(2 + random() % 31, 1024);
    for (uint32_t left = kSlots - 1024 * uint32_t(frequencies.size()); left > 0;) {
      const uint32_t some = std::min<uint32_t>(left, 1 + random() % 3000);
      frequencies[random() % frequencies.size()] += some, left -= some;
    }
    check_rows(*model_of(frequencies), random);
  }
}

TEST_CASE("rans kernels: the quotient is exact for every frequency, at the states where rounding is worst") {
  // One row of one group encodes 32 states: those around multiples of f, at the ends and at the float's own steps.
  // However the thread rounds: then every 17th frequency is enough.
  EncodeTables tables;
  const std::vector<uint8_t> symbols(kGroupLanes, 0);
  for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO})
    for (uint32_t f = 1; f < kSlots; f += rounding == FE_TONEAREST ? 1 : 17) {
      std::fesetround(rounding);
      DirectAlphabet alphabet;
      alphabet.direct = 2, alphabet.table = Table::from_frequencies({f, kSlots - f}, 16);
      prepare_encode(alphabet, tables);  // all layouts take the same reciprocal
      const uint32_t limit = f << 16;    // states below it are divided, others give a word away first
      uint32_t states[kGroupLanes];
      for (uint32_t lane = 0; lane < kGroupLanes; ++lane) {  // lanes 30 and 31 repeat the first two
        const uint32_t quotients[] = {65535, 65534, 65521, 49151, 32769,
                                      32768, 32767, 16385, f,     (f * 2654435761u) >> 16 | 1};
        const uint32_t ranks[] = {0, f - 1, f / 2};
        states[lane] = std::max(quotients[lane / 3 % 10] * f + ranks[lane % 3], kSlots);
      }
      for (const Level& level : levels()) {
        if (level.isa == Isa::avx512vbmi) continue;  // the same encoder
        EncodeStates at{};
        uint16_t words[kGroupLanes + 32];
        std::copy(states, states + kGroupLanes, at.x);
        at.words[0] = words;
        level.encode(tables, at, 1, 1, symbols.data());
        bool exact = true;
        for (uint32_t lane = 0; lane < kGroupLanes; ++lane) {
          const uint32_t x = states[lane] >= limit ? states[lane] >> 16 : states[lane];
          exact = exact && at.x[lane] == (x / f << 16 | x % f);
        }
        CHECK(exact);
      }
    }
  std::fesetround(FE_TONEAREST);
}

TEST_CASE("rans kernels: states that take a word in every row end at the floor, whatever lies there") {
  // Frequency 1 and words that lead to its slot again: 64 bytes a group and row. The buffer is as small as it may be,
  // so that a sanitizer sees a read outside.
  const auto model = model_of(Table::from_frequencies({1, 65535}, 16));
  for (const int groups : {1, 2, 4, 8})
    for (const size_t rows : {size_t(1), size_t(2), size_t(3), size_t(8), size_t(17), size_t(40)})
      for (size_t have = 0; have < 4; ++have)  // rows' worth of words for each group
        for (const Level& level : levels()) {
          const size_t lanes = size_t(groups) * kGroupLanes, size = 64 * size_t(groups) * (have + 2);
          const auto bytes = std::make_unique<uint8_t[]>(size);
          std::memset(bytes.get(), 0, size);
          const uint8_t* const floor = bytes.get() + 2 * lanes;
          DecodeStates states{};
          for (size_t lane = 0; lane < lanes; ++lane) states.low[lane] = 0, states.high[lane] = 1;
          for (int g = 0; g < groups; ++g) states.words[g] = floor + 64 * have * size_t(g + 1);
          std::vector<uint8_t> out(rows * lanes);
          CHECK(level.decode(model->decode, states, groups, floor, rows, out.data()) == (rows <= have));
        }
}
