// The AVX-512 rANS encoder of small alphabets, compiled twice as rans_decode_zmm.h is. The includer defines, in the
// namespace TERSOR_ZMM,
//   compress(words, low, lanes): writes the words of `low` whose bit of `lanes` is 1, and returns the place behind
//   them.
//
// 32 lanes a step, in two registers of 16-bit halves as in the decoder. Only the quotient needs 32 bits: states of even
// and odd lanes are put together by shifts and blends, which run on every port, and its two results come back the same
// way. It is a float product, rounded down throughout: state and product lose less than 2^-23 each and the reciprocal
// less than 2.5 * 2^-23, relative; the quotient is below 2^16, so before truncation it is short by less than 0.04, and
// the rank is below 1.04 frequencies before one correction. tests/entropy/rans_check.cpp tries every frequency.
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::TERSOR_ZMM {

// Slots: `start + rank` in the contiguous layout; by pieces in registers where the table allows it (kSteps); else
// fetched one by one (kFetch). A vector gather is no faster where microcode guards against gather data sampling.
enum class Slots { kContiguous, kSteps, kFetch };

inline constexpr uint32_t kMostNarrowRank = 63000;  // 1.04 of it still has 16 bits

// The low and the high words of 32 double words.
static __attribute__((always_inline)) inline __m512i words_of(const uint32_t* from, unsigned shift) {
  const __m128i count = _mm_cvtsi32_si128(int(shift));
  const __m256i first = _mm512_cvtepi32_epi16(_mm512_srl_epi32(_mm512_load_si512(from), count));
  const __m256i second = _mm512_cvtepi32_epi16(_mm512_srl_epi32(_mm512_load_si512(from + 16), count));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

// kWide: some frequency is above kMostNarrowRank, so that ranks are compared in 17 bits. kStep groups, a set, go
// through every stage together: one alone is a chain of some 70 cycles, and the processor's window holds little more
// than one.
template <Slots kSlotsBy, bool kWide, int kStep>
static __attribute__((noinline)) void encode_sets(const EncodeTables& t, EncodeStates& states, int groups, size_t rows,
                                                  const uint8_t* symbols) {
  constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  constexpr bool kFetch = kSlotsBy == Slots::kFetch, kSteps = kSlotsBy == Slots::kSteps;
  constexpr __mmask32 kEven = 0x55555555, kOdd = 0xaaaaaaaa;
  const uint32_t* const packed = kSteps ? t.place_frequency : t.frequency_start;
  const __m512i frequency = words_of(packed, 0), start = words_of(packed, 16);
  const __m512 reciprocal_low = _mm512_load_ps(t.reciprocal), reciprocal_high = _mm512_load_ps(t.reciprocal + 16);
  const __m512i base = _mm512_set1_epi16(t.base), zero = _mm512_setzero_si512(), minus_one = _mm512_set1_epi16(-1);
  const __m128i quantum_bits = _mm_cvtsi32_si128(t.quantum_bits);
  const __m512i in_quantum = _mm512_set1_epi16(short((1 << t.quantum_bits) - 1));
  const uint16_t* const slot_of = t.slot_of;
  const int lanes = groups * kGroupLanes;
  alignas(64) uint16_t low[kMostLanes], high[kMostLanes];
  alignas(64) uint16_t slot[kMostLanes];  // kFetch: a state's low half is low + slot, a whole number of quanta
  for (int i = 0; i < lanes; ++i) low[i] = (uint16_t)states.x[i], high[i] = (uint16_t)(states.x[i] >> 16), slot[i] = 0;
  // Slots of the set before are fetched in the middle of a set's arithmetic. They are read as a vector a row later:
  // such a load waits until the narrow stores have left the core.
  alignas(64) uint16_t place_of[2][kGroupLanes * kStep];
  int behind = -1;
  const auto fetch_slots = [&] {
    if (behind < 0) return;
    const uint16_t* const from = place_of[behind / kStep % 2];
    uint16_t* const to = slot + behind * kGroupLanes;
    asm volatile("" : : "r"(from) : "memory");  // a vectorizer would take `place_of` apart in registers
#pragma GCC unroll 64
    for (int i = 0; i < kGroupLanes * kStep; ++i) {
      uint32_t one = slot_of[from[i]];
      asm volatile("" : "+r"(one));
      to[i] = (uint16_t)one;
    }
    behind = -1;
  };
  const auto look_up64 = [](const uint16_t* table, __m512i index) __attribute__((always_inline)) {
    return _mm512_permutex2var_epi16(_mm512_load_si512(table), index, _mm512_load_si512(table + 32));
  };
  const auto quotient = [](__m512i x, __m512 reciprocal) __attribute__((always_inline)) {
    const __m512 product = _mm512_mul_round_ps(_mm512_cvt_roundepu32_ps(x, kDown), reciprocal, kDown);
    return _mm512_cvt_roundps_epu32(product, kDown);
  };
  for (size_t row = rows; row-- > 0;) {
    const uint8_t* source = symbols + row * size_t(lanes);
#pragma GCC unroll 1
    for (int g = 0; g < groups; g += kStep, source += kGroupLanes * kStep) {
      uint16_t* const low_at = low + g * kGroupLanes;
      uint16_t* const high_at = high + g * kGroupLanes;
      __m512i s[kStep], f[kStep], lo[kStep], hi[kStep], q[kStep], rank[kStep], place[kStep];
      __mmask32 full[kStep];
      TERSOR_EACH {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + kGroupLanes * j));
        s[j] = _mm512_sub_epi16(_mm512_cvtepu8_epi16(bytes), base);
        f[j] = _mm512_permutexvar_epi16(s[j], frequency);
        lo[j] = _mm512_load_si512(low_at + kGroupLanes * j), hi[j] = _mm512_load_si512(high_at + kGroupLanes * j);
        if constexpr (kFetch) {
          lo[j] = _mm512_add_epi16(lo[j], _mm512_load_si512(slot + (g + j) * kGroupLanes));
          _mm512_store_si512(low_at + kGroupLanes * j, lo[j]);
        }
        full[j] = _mm512_cmpge_epu16_mask(hi[j], f[j]);
      }
      TERSOR_EACH states.words[g + j] = compress(states.words[g + j], low_at + kGroupLanes * j, full[j]);
      if constexpr (kFetch) fetch_slots();
      TERSOR_EACH {
        lo[j] = _mm512_mask_mov_epi16(lo[j], full[j], hi[j]);
        hi[j] = _mm512_mask_mov_epi16(hi[j], full[j], zero);
        // A look-up of 32 takes the low five bits of its index and does not mind what is above them.
        const __m512i even = _mm512_mask_mov_epi16(_mm512_slli_epi32(hi[j], 16), kEven, lo[j]);
        const __m512i odd = _mm512_mask_mov_epi16(_mm512_srli_epi32(lo[j], 16), kOdd, hi[j]);
        const __m512i q_even = quotient(even, _mm512_permutex2var_ps(reciprocal_low, s[j], reciprocal_high));
        const __m512i q_odd =
            quotient(odd, _mm512_permutex2var_ps(reciprocal_low, _mm512_srli_epi32(s[j], 16), reciprocal_high));
        q[j] = _mm512_mask_mov_epi16(_mm512_slli_epi32(q_odd, 16), kEven, q_even);
      }
      TERSOR_EACH {
        const __m512i product = _mm512_mullo_epi16(q[j], f[j]);
        rank[j] = _mm512_sub_epi16(lo[j], product);
        __mmask32 more = _mm512_cmpge_epu16_mask(rank[j], f[j]);
        if constexpr (kWide) {
          const __m512i borrow = _mm512_maskz_mov_epi16(_mm512_cmplt_epu16_mask(lo[j], product), minus_one);
          const __m512i above = _mm512_add_epi16(_mm512_sub_epi16(hi[j], _mm512_mulhi_epu16(q[j], f[j])), borrow);
          more = _kor_mask32(more, _mm512_test_epi16_mask(above, above));
        }
        rank[j] = _mm512_mask_sub_epi16(rank[j], more, rank[j], f[j]);
        _mm512_store_si512(high_at + kGroupLanes * j, _mm512_mask_sub_epi16(q[j], more, q[j], minus_one));
        place[j] = _mm512_add_epi16(rank[j], _mm512_permutexvar_epi16(s[j], start));
      }
      if constexpr (kSteps) {
        __m512i at1024[kStep], piece[kStep];
        TERSOR_EACH {
          at1024[j] = _mm512_srli_epi16(place[j], 10);
          piece[j] = look_up64(t.piece, at1024[j]);
        }
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) TERSOR_EACH {
            const __mmask32 behind_cut = _mm512_cmpgt_epu16_mask(place[j], look_up64(t.cut[i], at1024[j]));
            piece[j] = _mm512_mask_sub_epi16(piece[j], behind_cut, piece[j], minus_one);
          }
        TERSOR_EACH {
          const __mmask32 large = _mm512_cmpgt_epu16_mask(f[j], _mm512_set1_epi16(2047));
          place[j] = _mm512_mask_add_epi16(place[j], large, place[j], look_up64(t.shift, piece[j]));
        }
      }
      if constexpr (kFetch) {
        TERSOR_EACH {
          _mm512_store_si512(place_of[g / kStep % 2] + kGroupLanes * j, _mm512_srl_epi16(place[j], quantum_bits));
          place[j] = _mm512_and_si512(place[j], in_quantum);
        }
        behind = g;
      }
      TERSOR_EACH _mm512_store_si512(low_at + kGroupLanes * j, place[j]);
      if (kFetch && groups == kStep) fetch_slots();
    }
  }
  if constexpr (kFetch) fetch_slots();
  for (int i = 0; i < lanes; ++i) states.x[i] = (uint32_t)high[i] << 16 | (uint16_t)(low[i] + (kFetch ? slot[i] : 0));
}

template <Slots kSlotsBy>
static void encode_small(const EncodeTables& t, EncodeStates& states, int groups, size_t rows, const uint8_t* symbols) {
  uint32_t most = 0;
  for (int s = 0; s < 32; ++s) most = (t.frequency_start[s] & 0xffff) > most ? t.frequency_start[s] & 0xffff : most;
  if (groups == 1) return encode_sets<kSlotsBy, true, 1>(t, states, groups, rows, symbols);
  if (most > kMostNarrowRank) return encode_sets<kSlotsBy, true, 2>(t, states, groups, rows, symbols);
  encode_sets<kSlotsBy, false, 2>(t, states, groups, rows, symbols);
}

}  // namespace tersor::entropy::TERSOR_ZMM
