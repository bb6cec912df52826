// Exact activations on VDPBF16PS: levels in bfloat16, two columns of a row in every 32-bit lane. The accumulators are
// written as assembly for the reason that integer_sums_zmm.h gives.
#include <immintrin.h>

#include "gemm/codes_zmm.h"
#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

__attribute__((always_inline)) inline void dot(__m512& sum, __m512i weights, __m512i pair) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(pair));
}

// Whether levels are looked up as they are or made by arithmetic: linear ones of up to 6 bits, odd ones of 8.
enum class Made { looked_up, computed };

// Levels of codes of so many bits, in registers.
template <int kBits, Made kMade>
struct Table {
  static constexpr bool kComputed = kMade == Made::computed;
  static constexpr int kHalves = kComputed ? 2 : 4;  // of a byte's table
  static constexpr int kRegisters = kBits == 8 ? 2 * kHalves : kBits == 6 && !kComputed ? 2 : 1;
  __m512i in[kRegisters];

  explicit Table(const Levels* levels) {
    if constexpr (kBits == 8) {
#pragma GCC unroll 4
      for (int i = 0; i < kHalves; ++i)
        in[i] = _mm512_loadu_si512(levels->low + 64 * i), in[kHalves + i] = _mm512_loadu_si512(levels->high + 64 * i);
    } else if constexpr (kBits != 0 && !kComputed) {
#pragma GCC unroll 2
      for (int i = 0; i < kRegisters; ++i) in[i] = _mm512_loadu_si512(levels->rounded + 32 * i);
    }
  }
  // Bytes of the levels of 64 codes of 8 bits; the top bit of a code says which two registers, or is the sign.
  template <int kFirst>
  __attribute__((always_inline)) __m512i bytes(__m512i codes) const {
    const __m512i low = _mm512_permutex2var_epi8(in[kFirst], codes, in[kFirst + 1]);
    if constexpr (kComputed) {
      if constexpr (kFirst == 0) return low;
      return _mm512_ternarylogic_epi32(low, codes, _mm512_set1_epi8(char(0x80)), 0xf8);  // a | b & c
    } else {
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low,
                                    _mm512_permutex2var_epi8(in[kFirst + 2], codes, in[kFirst + 3]));
    }
  }
};

// A code of up to 6 bits below an exponent is 2^kBits more than itself: exact, and taken off again with the sum of x.
template <int kBits, int kBit>
__attribute__((always_inline)) inline __m512i above_power(__m512i v) {
  const __m512i mask = _mm512_set1_epi16(((1 << kBits) - 1) << (7 - kBits));
  const __m512i power = _mm512_set1_epi16((127 + kBits) << 7);
  return _mm512_ternarylogic_epi32(shifted<kBit - (7 - kBits)>(v), mask, power, 0xea);  // a & b | c
}

// Levels of vector kV of a block of the step at `p`: of columns 0 and 2 of the four, and of 1 and 3.
template <int kBits, int kV, Made kMade>
__attribute__((always_inline)) inline void levels(const uint8_t* p, const Table<kBits, kMade>& table, __m512i* pair) {
  if constexpr (kBits == 0) {
    pair[0] = _mm512_loadu_si512(p + 256 * kV), pair[1] = _mm512_loadu_si512(p + 256 * kV + 128);
  } else if constexpr (kBits == 8) {
    const __m512i codes = unit(p, kV), even = _mm512_set1_epi16(0x00ff);
    const __m512i low = table.template bytes<0>(codes);
    const __m512i high = table.template bytes<Table<kBits, kMade>::kHalves>(codes);
    pair[0] = _mm512_ternarylogic_epi32(_mm512_slli_epi16(high, 8), low, even, 0xf8);  // a | b & c
    pair[1] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, 8), high, even, 0xf4);  // a | b & ~c
  } else if constexpr (kMade == Made::computed) {
    constexpr bool kWhole = kBits <= 2 || kBits == 4;
    constexpr int kPlaces = kWhole ? 8 / kBits : 1, kBit = kV % kPlaces * kBits;
    __m512i v;
    if constexpr (kWhole) v = unit(p, kV / kPlaces);
    if constexpr (!kWhole) v = codes<kBits, kV>(p);
    pair[0] = above_power<kBits, kBit>(v), pair[1] = above_power<kBits, kBit + 8>(v);
  } else if constexpr (kBits <= 2 || kBits == 4) {
    // What is above the code in its word is harmless: the table repeats.
    constexpr int kPlaces = 8 / kBits, kBit = kV % kPlaces * kBits;
    const __m512i codes = unit(p, kV / kPlaces);
    pair[0] = _mm512_permutexvar_epi16(shifted<kBit>(codes), table.in[0]);
    pair[1] = _mm512_permutexvar_epi16(shifted<kBit + 8>(codes), table.in[0]);
  } else {
    const __m512i even = codes<kBits, kV>(p), odd = shifted<8>(even);
    if constexpr (kBits == 6) {
      pair[0] = _mm512_permutex2var_epi16(table.in[0], even, table.in[1]);
      pair[1] = _mm512_permutex2var_epi16(table.in[0], odd, table.in[1]);
    } else {
      pair[0] = _mm512_permutexvar_epi16(even, table.in[0]), pair[1] = _mm512_permutexvar_epi16(odd, table.in[0]);
    }
  }
}

// Two blocks, kTokens tokens. One token has a sum for either pair: the unit takes several cycles. Sums that are scaled
// stay in memory.
template <int kBits, int kTokens, Made kMade>
struct Tile {
  static constexpr bool kOffset = kMade == Made::computed && kBits < 8;
  static constexpr int kSums = kTokens == 1 ? 2 : 1;
  static constexpr size_t kStepBytes = kBits == 0 ? 2048 : 128 * kBits;
  static constexpr int kAhead = kBits == 0 ? 0 : 16384;  // codes are prefetched; a panel is near
  const FloatTile& t;
  const size_t first_token;
  const Table<kBits, kMade> table;
  __m512 acc[2][kTokens][kSums];

  __attribute__((always_inline)) void start() {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i)
#pragma GCC unroll 4
      for (int s = 0; s < kSums; ++s) acc[0][i][s] = acc[1][i][s] = _mm512_setzero_ps();
  }
  template <int kV>
  __attribute__((always_inline)) void vector(const uint8_t* p, const uint8_t* x) {
    __m512i first[2], second[2];
    levels<kBits, kV>(p, table, first);
    levels<kBits, kV>(p + 64, table, second);
    add<2 * kV>(first[0], second[0], x), add<2 * kV + 1>(first[1], second[1], x);
  }
  // Pair kPair of a step.
  template <int kPair>
  __attribute__((always_inline)) void add(__m512i first, __m512i second, const uint8_t* x) {
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) {
      int pair;
      __builtin_memcpy(&pair, x + size_t(i) * t.x_stride + 4 * kPair, 4);
      const __m512i both = _mm512_set1_epi32(pair);
      dot(acc[0][i][kPair % kSums], first, both), dot(acc[1][i][kPair % kSums], second, both);
    }
  }
  __attribute__((always_inline)) void finish(const Place& at) {
#pragma GCC unroll 2
    for (int block = 0; block < 2; ++block) {
      const __m512 scale = numbers_at(t.scale_kind, at.scales, block);
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i) {
        __m512* const sums = acc[block][i];
        __m512 value = sums[0];
        if constexpr (kSums == 2) value = _mm512_add_ps(value, sums[1]);
        const __m512 x_sum = _mm512_set1_ps(t.sums[(first_token + size_t(i)) * t.sums_stride + at.group]);
        if constexpr (kOffset)
          value = _mm512_fnmadd_ps(_mm512_set1_ps(float(1 << kBits) + t.levels->from), x_sum, value);
        if (at.zeros) value = _mm512_fnmadd_ps(zeros_at(at.zeros + 16 * block), x_sum, value);
        float* const y = t.y + (first_token + size_t(i)) * kTileRows + size_t(block) * kBlockRows;
        __m512 whole = t.first && at.group == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y);
        whole = _mm512_fmadd_ps(value, scale, whole);
        if (at.minimums) whole = _mm512_fmadd_ps(numbers_at(t.scale_kind, at.minimums, block), x_sum, whole);
        _mm512_storeu_ps(y, whole);
      }
    }
  }
  __attribute__((always_inline)) void half(Place& at) {
    if (--at.halves_left != 0) return;
    finish(at), next_group(t, at), start();
  }
  __attribute__((always_inline)) void run() {
    t.load_numbers<kAhead>();
    Place at = first_place(t);
    start();
    const uint8_t *p = t.codes, *x = t.x + first_token * t.x_stride;
    for (size_t step = 0; step < t.steps; ++step, p += kStepBytes, x += 2 * kStepColumns) {
      if constexpr (kAhead > 0) prefetch_step<kBits, kAhead>(p);
      vector<0>(p, x), vector<1>(p, x), vector<2>(p, x), vector<3>(p, x);
      half(at);
      vector<4>(p, x), vector<5>(p, x), vector<6>(p, x), vector<7>(p, x);
      half(at);
    }
    if (at.halves_left != t.group_halves) finish(at);
  }
};

template <int kBits, int kTokens, Made kMade>
__attribute__((noinline)) void tile_of(const FloatTile& t, size_t first_token) {
  Tile<kBits, kTokens, kMade> here{t, first_token, Table<kBits, kMade>(t.levels), {}};
  here.run();
}

// Other tokens than these would be a tile more to compile for each width: two are two of one.
template <int kBits>
void tiles_of(const FloatTile& t, size_t tokens) {
  if (tokens == kMostTokens) return tile_of<kBits, kMostTokens, Made::looked_up>(t, 0);
  const bool computed = kBits != 0 && (kBits == 8 ? t.levels->odd : t.levels->linear) != 0;
  for (size_t token = 0; token < tokens; ++token)
    computed ? tile_of<kBits, 1, Made::computed>(t, token) : tile_of<kBits, 1, Made::looked_up>(t, token);
}

template <int kBits, int kV = 0>
__attribute__((always_inline)) inline void decode_step(const uint8_t* p, const Table<kBits, Made::looked_up>& table,
                                                       uint8_t* out) {
  if constexpr (kV < 8) {
#pragma GCC unroll 2
    for (int block = 0; block < 2; ++block) {
      __m512i pair[2];
      levels<kBits, kV>(p + 64 * block, table, pair);
      _mm512_storeu_si512(out + 256 * kV + 64 * block, pair[0]);
      _mm512_storeu_si512(out + 256 * kV + 128 + 64 * block, pair[1]);
    }
    decode_step<kBits, kV + 1>(p, table, out);
  }
}

template <int kBits>
void panel_of(const Levels& levels, const uint8_t* p, size_t steps, uint8_t* out) {
  const Table<kBits, Made::looked_up> table(&levels);
  for (size_t step = 0; step < steps; ++step, p += 128 * kBits, out += 2048) decode_step<kBits>(p, table, out);
}

void bf16_tile(const FloatTile& t, size_t tokens) noexcept {
  switch (t.bits) {
    case 0: return tiles_of<0>(t, tokens);
    case 1: return tiles_of<1>(t, tokens);
    case 2: return tiles_of<2>(t, tokens);
    case 3: return tiles_of<3>(t, tokens);
    case 4: return tiles_of<4>(t, tokens);
    case 5: return tiles_of<5>(t, tokens);
    case 6: return tiles_of<6>(t, tokens);
    default: return tiles_of<8>(t, tokens);
  }
}

void bf16_panel(int bits, const Levels& levels, const uint8_t* codes, size_t steps, uint16_t* out) noexcept {
  auto* const to = reinterpret_cast<uint8_t*>(out);
  switch (bits) {
    case 1: return panel_of<1>(levels, codes, steps, to);
    case 2: return panel_of<2>(levels, codes, steps, to);
    case 3: return panel_of<3>(levels, codes, steps, to);
    case 4: return panel_of<4>(levels, codes, steps, to);
    case 5: return panel_of<5>(levels, codes, steps, to);
    case 6: return panel_of<6>(levels, codes, steps, to);
    default: return panel_of<8>(levels, codes, steps, to);
  }
}

}  // namespace

const Bf16Kernels kAvx512Bf16Kernels = {bf16_tile, bf16_panel};

}  // namespace tersor::gemm
