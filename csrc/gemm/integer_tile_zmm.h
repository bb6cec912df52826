// Tiles of 8-bit integers on 512-bit registers with VPDPBUSD. Included by one file a level: everything here is local to
// it. u8 weights stay as they are coded; `center` times the sum of a group's activations starts the accumulator.
#pragma once
#include <immintrin.h>

#include "gemm/codes_zmm.h"
#include "gemm/integer_sums_zmm.h"
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

// Integers of codes. Up to four bits the table stands in every 128-bit lane; up to six it fills a register.
template <int kBits, bool kLookUp>
__attribute__((always_inline)) inline __m512i integers(__m512i v, __m512i table) {
  if constexpr (!kLookUp) return v;
#if defined(__AVX512VBMI__)
  if constexpr (kBits > 4) return _mm512_permutexvar_epi8(v, table);
#endif
  return _mm512_shuffle_epi8(table, v);
}

template <int kBits>
inline __m512i table_of(const uint8_t* lookup) {
  if (lookup == nullptr) return _mm512_setzero_si512();
  if (kBits > 4) return _mm512_loadu_si512(lookup);
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lookup)));
}

// How far ahead codes are prefetched. What hardware would ask for by itself, a kernel asks for again shortly before it,
// which keeps that going; where it falls behind, far before. Between the two, at 4 KB, is worse than nothing. Of a
// panel the next one's.
constexpr int bytes_ahead(int bits, int tokens, bool panel = false) {
  if (panel) return kPanelColumns * kTileRows;
  if (bits <= 3) return 8192;
  if (bits == 8) return tokens == 1 ? 1024 : 512;
  return tokens == 1 ? 1024 : 16384;
}

// Two blocks, kTokens tokens.
template <int kBits, bool kLookUp, int kTokens, bool kPanel>
struct Tile {
  static constexpr int kAhead = bytes_ahead(kBits, kTokens, kPanel);
  TokenSums<kTokens> sums;
  const __m512i table;
  template <int kV>
  __attribute__((always_inline)) void vector(const uint8_t* p, const int8_t* x) {
    const __m512i a = integers<kBits, kLookUp>(codes<kBits, kV>(p), table);
    const __m512i b = integers<kBits, kLookUp>(codes<kBits, kV>(p + 64), table);
    sums.add(a, b, x, kV);
  }
  __attribute__((always_inline)) void run() {
    const IntegerTile& t = sums.t;
    sums.load();
    Place at = first_place(t);
    t.load_numbers<kAhead>();
    sums.start(at);
    const uint8_t* p = t.codes;
    const int8_t* x = t.x;
    for (size_t step = 0; step < t.steps; ++step, p += 128 * kBits, x += kStepColumns) {
      prefetch_step<kBits, kAhead>(p);
      vector<0>(p, x), vector<1>(p, x), vector<2>(p, x), vector<3>(p, x);
      sums.half(at);
      vector<4>(p, x), vector<5>(p, x), vector<6>(p, x), vector<7>(p, x);
      sums.half(at);
    }
    if (at.halves_left != t.group_halves) sums.finish(at);
    sums.store();
  }
};

template <int kBits, bool kLookUp, int kTokens, bool kPanel = false>
__attribute__((noinline)) void tile(const IntegerTile& t) {
  Tile<kBits, kLookUp, kTokens, kPanel> here{{t, {}, {}, {}, {}}, table_of<kBits>(t.lookup)};
  here.run();
}

// The sums of one token and block. Codes are not shifted down but masked where they are: each place has accumulators of
// its own, which are shifted once a group.
template <int kBits, bool kLookUp>
struct Sums {
  static constexpr bool kWhole = kBits == 8 || kLookUp;  // vectors as they are, accumulators in turn
  static constexpr int kLow = kBits == 3 ? 2 : kBits > 4 && kBits < 8 ? 4 : kBits;  // bits of the first plane
  static constexpr int kHigh = kWhole ? 0 : kBits - kLow;                           // and of the second
  static constexpr int kLowPlaces = kWhole ? 4 : 8 / kLow;
  // Eight places of single bits would need more registers than there are: these are shifted to where they count.
  static constexpr bool kShifted = kHigh == 1;
  static constexpr int kHighPlaces = kHigh == 2 ? 4 : kShifted ? 2 : 1;
  __m512i low[kLowPlaces], high[kHighPlaces];

  __attribute__((always_inline)) void start(int32_t from) {
#pragma GCC unroll 8
    for (auto& a : low) a = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (auto& a : high) a = _mm512_setzero_si512();
    low[0] = _mm512_set1_epi32(from);
  }
  template <int kV>
  __attribute__((always_inline)) void vector(const uint8_t* p, __m512i four, __m512i table) {
    if constexpr (kWhole) {
      dot(low[kV % 4], integers<kBits, kLookUp>(codes<kBits, kV>(p), table), four);
    } else {
      constexpr int kPlace = kV % kLowPlaces;
      const __m512i mask = _mm512_set1_epi8(char(((1 << kLow) - 1) << (kPlace * kLow)));
      dot(low[kPlace], _mm512_and_si512(unit(p, kV / kLowPlaces), mask), four);
      if constexpr (kShifted) {
        dot(high[kV % 2], field<1, kV, kLow>(unit(p, kLow)), four);
      } else if constexpr (kHigh != 0) {
        constexpr int kHighPlace = kV % kHighPlaces;
        const __m512i high_mask = _mm512_set1_epi8(char(((1 << kHigh) - 1) << (kHighPlace * kHigh)));
        dot(high[kHighPlace], _mm512_and_si512(unit(p, kLow + kV / kHighPlaces), high_mask), four);
      }
    }
  }
  __attribute__((always_inline)) __m512i total() const {
    __m512i sum = low[0];
    if constexpr (kWhole) {
      sum = _mm512_add_epi32(_mm512_add_epi32(sum, low[1]), _mm512_add_epi32(low[2], low[3]));
    } else {
#pragma GCC unroll 8
      for (int i = 1; i < kLowPlaces; ++i) sum = _mm512_add_epi32(sum, _mm512_srai_epi32(low[i], unsigned(i * kLow)));
      if constexpr (kShifted)
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(high[0], high[1]));
      else if constexpr (kHigh != 0)
#pragma GCC unroll 8
        for (int i = 0; i < kHighPlaces; ++i) {
          const int up = kLow - i * kHigh;
          sum = _mm512_add_epi32(
              sum, up >= 0 ? _mm512_slli_epi32(high[i], unsigned(up)) : _mm512_srai_epi32(high[i], unsigned(-up)));
        }
    }
    return sum;
  }
};

// Two blocks, one token.
template <int kBits, bool kLookUp>
struct Row {
  static constexpr int kAhead = bytes_ahead(kBits, 1);
  const IntegerTile& t;
  const __m512i table;
  Sums<kBits, kLookUp> first, second;
  __m512 sum0, sum1;

  __attribute__((always_inline)) void start(const Place& at) {
    const int32_t from = -t.center * t.sums[at.group];
    first.start(from), second.start(from);
  }
  template <int kV>
  __attribute__((always_inline)) void vector(const uint8_t* p, const int8_t* x) {
    const __m512i four = four_of(x + 4 * kV);
    first.template vector<kV>(p, four, table);
    second.template vector<kV>(p + 64, four, table);
  }
  __attribute__((always_inline)) void finish(const Place& at) {
    const __m512i whole0 = first.total(), whole1 = second.total();
    scale_group<1>(t, at, 0, &whole0, &sum0);
    scale_group<1>(t, at, 1, &whole1, &sum1);
  }
  __attribute__((always_inline)) void half(Place& at) {
    if (--at.halves_left != 0) return;
    finish(at), next_group(t, at), start(at);
  }
  __attribute__((always_inline)) void run() {
    t.load_numbers<kAhead>();
    sum0 = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(t.y);
    sum1 = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(t.y + kBlockRows);
    Place at = first_place(t);
    start(at);
    const uint8_t* p = t.codes;
    const int8_t* x = t.x;
    for (size_t step = 0; step < t.steps; ++step, p += 128 * kBits, x += kStepColumns) {
      prefetch_step<kBits, kAhead>(p);
      vector<0>(p, x), vector<1>(p, x), vector<2>(p, x), vector<3>(p, x);
      half(at);
      vector<4>(p, x), vector<5>(p, x), vector<6>(p, x), vector<7>(p, x);
      half(at);
    }
    if (at.halves_left != t.group_halves) finish(at);
    _mm512_storeu_ps(t.y, sum0);
    _mm512_storeu_ps(t.y + kBlockRows, sum1);
  }
};

template <int kBits, bool kLookUp>
__attribute__((noinline)) void row(const IntegerTile& t) {
  Row<kBits, kLookUp> here{t, table_of<kBits>(t.lookup), {}, {}, {}, {}};
  here.run();
}

// Of bytes a tile of one token: more sums would only ask for more bytes at once than memory gives.
template <int kBits, bool kLookUp>
void one_token(const IntegerTile& t) {
  if constexpr (kBits == 8)
    tile<kBits, kLookUp, 1>(t);
  else
    row<kBits, kLookUp>(t);
}

template <int kBits, bool kLookUp>
void tile_of(const IntegerTile& t, size_t tokens) {
  switch (tokens) {
    case 1: return one_token<kBits, kLookUp>(t);
    case 2: return tile<kBits, kLookUp, 2>(t);
    case 3: return tile<kBits, kLookUp, 3>(t);
    default: return tile<kBits, kLookUp, 4>(t);
  }
}

template <int kBits, bool kLookUp, int kV = 0>
__attribute__((always_inline)) inline void decode_step(const uint8_t* p, __m512i table, uint8_t* out) {
  if constexpr (kV < 8) {
    _mm512_storeu_si512(out + 2 * 64 * kV, integers<kBits, kLookUp>(codes<kBits, kV>(p), table));
    _mm512_storeu_si512(out + 2 * 64 * kV + 64, integers<kBits, kLookUp>(codes<kBits, kV>(p + 64), table));
    decode_step<kBits, kLookUp, kV + 1>(p, table, out);
  }
}

template <int kBits, bool kLookUp>
void panel_of(const uint8_t* lookup, const uint8_t* p, size_t steps, uint8_t* out) {
  const __m512i table = table_of<kBits>(lookup);
  for (size_t step = 0; step < steps; ++step, p += 128 * kBits, out += 1024) decode_step<kBits, kLookUp>(p, table, out);
}

#if defined(__AVX512VBMI__)
// 256 integers are four registers; the top bit of a code says which two.
void bytes_panel(const uint8_t* lookup, const uint8_t* p, size_t steps, uint8_t* out) {
  const __m512i a = _mm512_loadu_si512(lookup), b = _mm512_loadu_si512(lookup + 64);
  const __m512i c = _mm512_loadu_si512(lookup + 128), d = _mm512_loadu_si512(lookup + 192);
  for (size_t i = 0; i < 16 * steps; ++i, p += 64, out += 64) {
    const __m512i v = _mm512_loadu_si512(p);
    const __m512i low = _mm512_permutex2var_epi8(a, v, b), high = _mm512_permutex2var_epi8(c, v, d);
    _mm512_storeu_si512(out, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
}
#endif

void integer_tile(const IntegerTile& t, size_t tokens) noexcept {
  if (t.lookup == nullptr) {
    switch (t.bits) {
      case 1: return tile_of<1, false>(t, tokens);
      case 2: return tile_of<2, false>(t, tokens);
      case 3: return tile_of<3, false>(t, tokens);
      case 4: return tile_of<4, false>(t, tokens);
      case 5: return tile_of<5, false>(t, tokens);
      case 6: return tile_of<6, false>(t, tokens);
      default: return t.panel && tokens == 4 ? tile<8, false, 4, true>(t) : tile_of<8, false>(t, tokens);
    }
  }
  switch (t.bits) {
    case 1: return tile_of<1, true>(t, tokens);
    case 2: return tile_of<2, true>(t, tokens);
    case 3: return tile_of<3, true>(t, tokens);
    case 4: return tile_of<4, true>(t, tokens);
#if defined(__AVX512VBMI__)
    case 5: return tile_of<5, true>(t, tokens);
    default: return tile_of<6, true>(t, tokens);
#endif
  }
}

void integer_panel(int bits, const uint8_t* lookup, const uint8_t* codes, size_t steps, uint8_t* out) noexcept {
  if (lookup == nullptr) {
    switch (bits) {
      case 1: return panel_of<1, false>(lookup, codes, steps, out);
      case 2: return panel_of<2, false>(lookup, codes, steps, out);
      case 3: return panel_of<3, false>(lookup, codes, steps, out);
      case 4: return panel_of<4, false>(lookup, codes, steps, out);
      case 5: return panel_of<5, false>(lookup, codes, steps, out);
      case 6: return panel_of<6, false>(lookup, codes, steps, out);
      default: return panel_of<8, false>(lookup, codes, steps, out);
    }
  }
  switch (bits) {
    case 1: return panel_of<1, true>(lookup, codes, steps, out);
    case 2: return panel_of<2, true>(lookup, codes, steps, out);
    case 3: return panel_of<3, true>(lookup, codes, steps, out);
    case 4: return panel_of<4, true>(lookup, codes, steps, out);
#if defined(__AVX512VBMI__)
    case 5: return panel_of<5, true>(lookup, codes, steps, out);
    case 6: return panel_of<6, true>(lookup, codes, steps, out);
    default: return bytes_panel(lookup, codes, steps, out);
#endif
  }
}

}  // namespace
}  // namespace tersor::gemm
