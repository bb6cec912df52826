// rans_avx512vbmi.cpp on machines without VBMI: its three instructions emulated, everything else as compiled there.
// Where VBMI is present, rans_check.cpp runs the real thing.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "entropy/rans_kernels.h"
#include "entropy/rans_tables.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace {

__m512i emulated_expand(__mmask32 keep, __m512i words) {
  alignas(64) uint16_t from[32], to[32];
  _mm512_store_si512(from, words);
  for (int lane = 0, next = 0; lane < 32; ++lane) to[lane] = keep >> lane & 1 ? from[next++] : uint16_t(0);
  return _mm512_load_si512(to);
}

__m512i emulated_permute(__m512i low, __m512i index, __m512i high) {
  alignas(64) uint8_t table[128], at[64];
  _mm512_store_si512(table, low), _mm512_store_si512(table + 64, high), _mm512_store_si512(at, index);
  for (uint8_t& one : at) one = table[one & 127];
  return _mm512_load_si512(at);
}

__m512i emulated_permute1(__m512i index, __m512i table) {
  alignas(64) uint8_t from[64], at[64];
  _mm512_store_si512(from, table), _mm512_store_si512(at, index);
  for (uint8_t& one : at) one = from[one & 63];
  return _mm512_load_si512(at);
}

}  // namespace

#define _mm512_maskz_expand_epi16 emulated_expand
#define _mm512_permutex2var_epi8 emulated_permute
#define _mm512_permutexvar_epi8 emulated_permute1
#define avx512vbmi avx512vbmi_emulated
#define decode_rows_avx512vbmi decode_rows_emulated
#include "entropy/rans_avx512vbmi.cpp"
#undef avx512vbmi
#undef decode_rows_avx512vbmi
#pragma GCC pop_options

using namespace tersor;
using namespace tersor::entropy;

TEST_CASE("rans: the VBMI decoder, its three instructions emulated, equals scalar") {
  if (machine_isa() < Isa::avx512) return;
  std::mt19937 random(7);
  enum class Kind { alias, named, contiguous };
  for (const int spread : {20, 31, 256})  // both alias layouts
    for (const Kind kind : {Kind::alias, Kind::named, Kind::contiguous}) {
      if (kind == Kind::named && spread > 32) continue;
      std::vector<uint64_t> counts(256);
      for (int s = 0; s < spread; ++s) counts[size_t(s)] = 1 + (random() % 1000 >> random() % 9);
      const auto encode = std::make_unique<EncodeTables>();
      const auto decode = std::make_unique<DecodeTables>();
      std::vector<uint16_t> slots(kSlots);
      std::vector<uint32_t> frequencies;
      DirectAlphabet direct;
      std::array<uint8_t, 32> symbol_of;
      for (uint8_t& symbol : symbol_of) symbol = uint8_t(random());
      if (kind == Kind::contiguous) {
        if (!choose_direct(counts, false, direct)) continue;
        prepare_encode(direct, *encode), prepare_decode(direct, *decode);
        frequencies.assign(direct.table.frequencies().begin(), direct.table.frequencies().end());
      } else {
        const Table table = Table::from_counts(counts, 16);
        prepare_encode(table, *encode, slots), prepare_decode(table, *decode);
        if (kind == Kind::named) prepare_decode(table, symbol_of, *decode);
        frequencies.assign(table.frequencies().begin(), table.frequencies().end());
      }
      std::discrete_distribution<int> draw(frequencies.begin(), frequencies.end());
      for (const int groups : {1, 2, 4, 8}) {
        const size_t rows = 50, lanes = size_t(groups) * kGroupLanes, n = rows * lanes;
        std::vector<uint8_t> symbols(n), want(n), got(n);
        for (auto& symbol : symbols) symbol = uint8_t(draw(random));
        const auto made = std::make_unique<EncodeStates>();
        std::vector<uint16_t> words(size_t(groups) * (rows * 32 + 64) + 128);
        for (size_t lane = 0; lane < lanes; ++lane) made->x[lane] = kSlots;
        for (int g = 0; g < groups; ++g) made->words[g] = words.data() + 64 + size_t(g) * (rows * 32 + 32);
        encode_rows_scalar(*encode, *made, groups, rows, symbols.data());
        const auto states = std::make_unique<DecodeStates>(), other = std::make_unique<DecodeStates>();
        for (size_t lane = 0; lane < lanes; ++lane)
          states->low[lane] = uint16_t(made->x[lane]), states->high[lane] = uint16_t(made->x[lane] >> 16);
        for (int g = 0; g < groups; ++g) states->words[g] = reinterpret_cast<const uint8_t*>(made->words[g]);
        *other = *states;
        const auto* floor = reinterpret_cast<const uint8_t*>(words.data() + 64);
        CHECK(decode_rows_scalar(*decode, *states, groups, floor, rows, want.data()));
        CHECK(decode_rows_emulated(*decode, *other, groups, floor, rows, got.data()));
        if (kind == Kind::named)
          for (uint8_t& symbol : symbols) symbol = symbol_of[symbol];
        CHECK(want == symbols);
        CHECK(got == symbols);
        CHECK(std::equal(states->low, states->low + lanes, other->low));
        CHECK(std::equal(states->high, states->high + lanes, other->high));
        CHECK(std::equal(states->words, states->words + groups, other->words));
      }
    }
}
#endif
