// The AVX2 rANS encoder: rans_avx2.cpp includes it behind its loads and stores.
//
// Halves of 16 bits, lanes in the order of the decoder. Only the quotient needs 32 bits: of four lanes in each half of
// a register. It is a float product that never comes out too large, however the thread rounds: state and product gain
// less than 2^-23 each, relative, and the reciprocal, kStepsDown floats below what prepare_encode left two below its
// own, lacks at least 2.5 * 2^-23. All together lose less than 9 * 2^-23, and the quotient is below 2^16, so before
// truncation 0.08 are missing at most, and the rank is below 1.08 frequencies before one correction.
// tests/entropy/rans_check.cpp tries every frequency.
#pragma once
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::avx2 {

inline constexpr uint32_t kStepsDown = 4;
inline constexpr uint32_t kMostNarrowFrequency = 60000;  // 1.08 of it still has 16 bits

TERSOR_INLINE __m256i at_least(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(_mm256_max_epu16(a, b), a); }

// Where lane i of a group lies: the second and the third eight are exchanged.
constexpr int place_of(int lane) { return (lane & ~24) | (lane & 8) << 1 | (lane & 16) >> 1; }

// Appends the low halves of the lanes whose bit is 1, eight lanes at a time.
TERSOR_INLINE uint16_t* compress(uint16_t* words, const uint16_t* low, uint32_t lanes) {
  asm volatile("" : : "r"(low) : "memory");  // what was just stored there is read back in quarters
#pragma GCC unroll 4
  for (int quarter = 0; quarter < 4; ++quarter) {
    const uint32_t here = lanes >> (8 * quarter) & 255;  // no PDEP: Zen 1 and 2 take it apart bit by bit
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words),
                     _mm_shuffle_epi8(load128(low + place_of(8 * quarter)), load128(kLaneControls.compress[here])));
    words += _mm_popcnt_u32(here);
  }
  return words;
}

// What the symbols of a group say, as the arithmetic wants it. reciprocal[h][k]: of lanes 4 k .. 4 k + 3 of both
// eights.
struct Said {
  __m256i f[2], start[2];
  __m256 reciprocal[2][2];
};

// Small alphabets: byte planes of 32, see Plane.
struct Planes {
  static constexpr int kNames = 32;
  alignas(32) uint8_t piece[8][2][16];  // frequency, start, reciprocal; low bytes first
  __m256i base;
  Planes(const EncodeTables& t, int) : base(_mm256_set1_epi8(char(t.base))) {
    for (int s = 0; s < 32; ++s) {
      uint32_t bits;
      __builtin_memcpy(&bits, &t.reciprocal[s], 4);
      bits -= bits ? kStepsDown : 0;
      const uint64_t all = uint64_t(bits) << 32 | t.frequency_start[s];
      for (int plane = 0; plane < 8; ++plane) {
        const uint8_t here = uint8_t(all >> (8 * plane));
        piece[plane][s / 16][s % 16] = s < 16 ? here : uint8_t(here ^ piece[plane][0][s % 16]);
      }
    }
  }
  __attribute__((always_inline)) void fetch(const uint8_t*) {}
  __attribute__((always_inline)) Said say(const uint8_t* symbols, int) const {
    const __m256i name = _mm256_sub_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols)), base);
    const __m256i above = _mm256_sub_epi8(name, _mm256_set1_epi8(16));
    __m256i bytes[8], words[2][4];
#pragma GCC unroll 8
    for (int plane = 0; plane < 8; ++plane) {
      const __m256i first = _mm256_broadcastsi128_si256(load128(piece[plane][0]));
      const __m256i second = _mm256_broadcastsi128_si256(load128(piece[plane][1]));
      bytes[plane] = _mm256_xor_si256(_mm256_shuffle_epi8(first, name), _mm256_shuffle_epi8(second, above));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      words[0][i] = _mm256_unpacklo_epi8(bytes[2 * i], bytes[2 * i + 1]);
      words[1][i] = _mm256_unpackhi_epi8(bytes[2 * i], bytes[2 * i + 1]);
    }
    Said said;
    TERSOR_HALVES {
      said.f[h] = words[h][0], said.start[h] = words[h][1];
      said.reciprocal[h][0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(words[h][2], words[h][3]));
      said.reciprocal[h][1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(words[h][2], words[h][3]));
    }
    return said;
  }
};

// The large alphabet: a load of 64 bits for each symbol, a row ahead, since a vector load waits until narrow stores
// have left the core.
struct Entries {
  static constexpr int kNames = 256;
  uint64_t entry[256];  // reciprocal, start, frequency
  alignas(64) uint64_t row[kMostLanes];
  int lanes;
  Entries(const EncodeTables& t, int lanes_) : lanes(lanes_) {
    for (int s = 0; s < 256; ++s) {
      uint32_t bits;
      __builtin_memcpy(&bits, &t.reciprocal[s], 4);
      entry[s] = uint64_t(bits - (bits ? kStepsDown : 0)) << 32 | t.frequency_start[s];
    }
  }
  // Lane l of eight in such an order that two registers hold lanes 0, 1 and 2, 3 of two eights.
  __attribute__((always_inline)) void fetch(const uint8_t* symbols) {
    for (uint64_t* to = row; to < row + lanes; to += kGroupLanes, symbols += kGroupLanes)
#pragma GCC unroll 32
      for (int i = 0; i < kGroupLanes; ++i) {
        uint64_t one = entry[symbols[i]];
        asm volatile("" : "+r"(one));
        to[(i & 8) * 2 + (i & 6) * 2 + (i & 16) / 8 + (i & 1)] = one;
      }
  }
  __attribute__((always_inline)) Said say(const uint8_t*, int group) const {
    const __m256i low_half = _mm256_set1_epi32(0xffff);
    Said said;
    TERSOR_HALVES {
      __m256i packed[2];
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        const uint64_t* const at = row + kGroupLanes * group + 16 * h + 8 * k;
        const __m256 a = _mm256_castsi256_ps(load(at)), b = _mm256_castsi256_ps(load(at + 4));
        packed[k] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        said.reciprocal[h][k] = _mm256_shuffle_ps(a, b, 0xdd);
      }
      said.f[h] = _mm256_packus_epi32(_mm256_and_si256(packed[0], low_half), _mm256_and_si256(packed[1], low_half));
      said.start[h] = _mm256_packus_epi32(_mm256_srli_epi32(packed[0], 16), _mm256_srli_epi32(packed[1], 16));
    }
    return said;
  }
};

// kFetch: slots are fetched one by one (alias), else they are start + rank. kWide: some frequency is above
// kMostNarrowFrequency, so that ranks are compared in 17 bits.
template <class Source, bool kFetch, bool kWide>
__attribute__((noinline)) void encode(const EncodeTables& t, EncodeStates& states, int groups, size_t rows,
                                      const uint8_t* symbols) {
  const int lanes = groups * kGroupLanes;
  Source source(t, lanes);
  const __m256i minus_one = _mm256_set1_epi16(-1), zero = _mm256_setzero_si256();
  // The upper halves of the floats 2^23 and 2^39: 2^23 + low and 2^39 + high * 2^16 are there without a conversion.
  const __m256i for_low = _mm256_set1_epi16(0x4b00), for_high = _mm256_set1_epi16(0x5300);
  const __m256 both = _mm256_set1_ps(0x1p39f + 0x1p23f);
  const __m128i quantum_bits = _mm_cvtsi32_si128(t.quantum_bits);
  const __m256i in_quantum = _mm256_set1_epi16(short((1 << t.quantum_bits) - 1));
  const uint16_t* const slot_of = t.slot_of;
  alignas(64) uint16_t low[kMostLanes], high[kMostLanes];
  alignas(64) uint16_t slot[kMostLanes];  // kFetch: a state's low half is low + slot, a whole number of quanta
  for (int i = 0; i < lanes; ++i) {
    const int at = place_of(i);
    low[at] = (uint16_t)states.x[i], high[at] = (uint16_t)(states.x[i] >> 16), slot[at] = 0;
  }
  // Slots of the group before are fetched in the middle of a group's arithmetic, and read a row later.
  alignas(64) uint16_t place[2][kGroupLanes];
  int behind = -1;
  const auto fetch_slots = [&]() __attribute__((always_inline)) {
    if (behind < 0) return;
    const uint16_t* const from = place[behind % 2];
    uint16_t* const to = slot + behind * kGroupLanes;
    asm volatile("" : : "r"(from) : "memory");
#pragma GCC unroll 32
    for (int i = 0; i < kGroupLanes; ++i) {
      uint32_t one = slot_of[from[i]];
      asm volatile("" : "+r"(one));
      to[i] = (uint16_t)one;
    }
    behind = -1;
  };
  for (size_t row = rows; row-- > 0;) {
    const uint8_t* from = symbols + row * size_t(lanes);
    source.fetch(from);
#pragma GCC unroll 1
    for (int g = 0; g < groups; ++g, from += kGroupLanes) {
      uint16_t* const low_at = low + g * kGroupLanes;
      uint16_t* const high_at = high + g * kGroupLanes;
      const Said said = source.say(from, g);
      __m256i lo[2], hi[2], q[2], full[2];
      TERSOR_HALVES {
        lo[h] = load(low_at + 16 * h), hi[h] = load(high_at + 16 * h);
        if constexpr (kFetch) {
          lo[h] = _mm256_add_epi16(lo[h], load(slot + g * kGroupLanes + 16 * h));
          store(low_at + 16 * h, lo[h]);
        }
        full[h] = at_least(hi[h], said.f[h]);
      }
      states.words[g] =
          compress(states.words[g], low_at, uint32_t(_mm256_movemask_epi8(_mm256_packs_epi16(full[0], full[1]))));
      if constexpr (kFetch) fetch_slots();
      TERSOR_HALVES {
        lo[h] = _mm256_blendv_epi8(lo[h], hi[h], full[h]);
        hi[h] = _mm256_andnot_si256(full[h], hi[h]);
        const auto quotient = [&](__m256i l, __m256i u, __m256 reciprocal) __attribute__((always_inline)) {
          const __m256 x = _mm256_add_ps(_mm256_sub_ps(_mm256_castsi256_ps(u), both), _mm256_castsi256_ps(l));
          return _mm256_cvttps_epi32(_mm256_mul_ps(x, reciprocal));
        };
        q[h] = _mm256_packus_epi32(quotient(_mm256_unpacklo_epi16(lo[h], for_low),
                                            _mm256_unpacklo_epi16(hi[h], for_high), said.reciprocal[h][0]),
                                   quotient(_mm256_unpackhi_epi16(lo[h], for_low),
                                            _mm256_unpackhi_epi16(hi[h], for_high), said.reciprocal[h][1]));
      }
      TERSOR_HALVES {
        const __m256i f = said.f[h], product = _mm256_mullo_epi16(q[h], f);
        __m256i rank = _mm256_sub_epi16(lo[h], product);
        __m256i more = at_least(rank, f);
        if constexpr (kWide) {
          const __m256i no_borrow = at_least(lo[h], product);
          const __m256i above = _mm256_sub_epi16(_mm256_sub_epi16(hi[h], _mm256_mulhi_epu16(q[h], f)),
                                                 _mm256_sub_epi16(no_borrow, minus_one));
          more = _mm256_or_si256(more, _mm256_xor_si256(_mm256_cmpeq_epi16(above, zero), minus_one));
        }
        rank = _mm256_sub_epi16(rank, _mm256_and_si256(more, f));
        store(high_at + 16 * h, _mm256_sub_epi16(q[h], more));
        __m256i at = _mm256_add_epi16(rank, said.start[h]);
        if constexpr (kFetch) {
          store(place[g % 2] + 16 * h, _mm256_srl_epi16(at, quantum_bits));
          at = _mm256_and_si256(at, in_quantum);
        }
        store(low_at + 16 * h, at);
      }
      if constexpr (kFetch) behind = g;
      if (kFetch && groups == 1) fetch_slots();
    }
  }
  if constexpr (kFetch) fetch_slots();
  for (int i = 0; i < lanes; ++i) {
    const int at = place_of(i);
    states.x[i] = (uint32_t)high[at] << 16 | (uint16_t)(low[at] + (kFetch ? slot[at] : 0));
  }
}

template <class Source, bool kFetch>
void encode_by_width(const EncodeTables& t, EncodeStates& states, int groups, size_t rows, const uint8_t* symbols) {
  uint32_t most = 0;
  for (int s = 0; s < Source::kNames; ++s) {
    const uint32_t f = t.frequency_start[s] & 0xffff;
    most = f > most ? f : most;
  }
  if (most > kMostNarrowFrequency) return encode<Source, kFetch, true>(t, states, groups, rows, symbols);
  encode<Source, kFetch, false>(t, states, groups, rows, symbols);
}

}  // namespace tersor::entropy::avx2
