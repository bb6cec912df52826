// The AVX-512 rANS decoder, compiled twice: rans_avx512.cpp and rans_avx512vbmi.cpp include it after naming the
// namespace TERSOR_ZMM and defining in it
//   expand(words, stay): the lanes whose bit of `stay` is 0 get the words below `words`, which moves down by as many
//   SymbolOfName: 64 names below 32 become symbols
//   Alias256: the tables of the large alphabet, see Alias32 for their form; resolve calls between(0..2), each once,
//             where its own instructions wait for each other
//
// Every other vector rANS pays a gather a symbol. Here the tables of a small alphabet are one register each and a
// look-up is VPERMW; states are two registers of 16-bit halves, so the multiplication is VPMULLW and VPMULHUW.
// kStep groups, a set, go through every stage together: one alone is a chain of some 60 cycles, and the processor's
// window holds only four of them.
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::TERSOR_ZMM {

#define TERSOR_EACH _Pragma("GCC unroll 8") for (int j = 0; j < kStep; ++j)

// Symbols as words, one vector a group.
struct WordSymbols {
  static constexpr int kMostStep = 4;
  template <int kStep, class Rename>
  static __attribute__((always_inline)) void store(uint8_t* out, const __m512i* symbol, const Rename& rename) {
    if constexpr (kStep == 1) {
      const __m512i bytes = _mm512_castsi256_si512(_mm512_cvtepi16_epi8(symbol[0]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(rename(bytes)));
    } else {
      // packus joins within 128-bit parts; the permutation puts the eight quarters back in order
      const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
#pragma GCC unroll 4
      for (int j = 0; j < kStep; j += 2) {
        const __m512i bytes = _mm512_packus_epi16(symbol[j], symbol[j + 1]);
        _mm512_storeu_si512(out + kGroupLanes * j, rename(_mm512_permutexvar_epi64(order, bytes)));
      }
    }
  }
};

// What a table's names stand for: symbols in a row, the names themselves (base 0), or (SymbolOfName) any.
struct Consecutive {
  __m512i base;
  explicit Consecutive(const DecodeTables& t) : base(_mm512_set1_epi8(char(t.base))) {}
  __attribute__((always_inline)) __m512i operator()(__m512i bytes) const { return _mm512_add_epi8(bytes, base); }
};

template <class Rename>
struct Alias32 : WordSymbols {
  Rename rename;
  __m512i own, alias, offset, frequency;
  __m512i low11 = _mm512_set1_epi16(2047);
  explicit Alias32(const DecodeTables& t)
      : rename(t),
        own(_mm512_load_si512(t.own)),
        alias(_mm512_load_si512(t.alias)),
        offset(_mm512_load_si512(t.offset)),
        frequency(_mm512_load_si512(t.frequency)) {}
  template <int kStep, class Between>
  __attribute__((always_inline)) void resolve(const __m512i* low, __m512i* symbol, __m512i* f, __m512i* rank,
                                              const Between& between) const {
    __m512i bucket[kStep];
    __mmask32 beyond[kStep];
    TERSOR_EACH {
      bucket[j] = _mm512_srli_epi16(low[j], 11);
      rank[j] = _mm512_and_si512(low[j], low11);
    }
    TERSOR_EACH beyond[j] = _mm512_cmpge_epu16_mask(rank[j], _mm512_permutexvar_epi16(bucket[j], own));
    between(0);
    TERSOR_EACH {
      rank[j] = _mm512_add_epi16(rank[j], _mm512_maskz_permutexvar_epi16(beyond[j], bucket[j], offset));
      symbol[j] = _mm512_mask_permutexvar_epi16(bucket[j], beyond[j], bucket[j], alias);
    }
    between(1);
    TERSOR_EACH f[j] = _mm512_permutexvar_epi16(symbol[j], frequency);
    between(2);
  }
};

struct Contiguous : WordSymbols {
  Consecutive rename;
  __m512i bucket_low, bucket_high, start, frequency;
  __m512i low5 = _mm512_set1_epi16(31), low15 = _mm512_set1_epi16(0x7fff), minus_one = _mm512_set1_epi16(-1);
  explicit Contiguous(const DecodeTables& t)
      : rename(t),
        bucket_low(_mm512_load_si512(t.bucket)),
        bucket_high(_mm512_load_si512(t.bucket + 32)),
        start(_mm512_load_si512(t.start)),
        frequency(_mm512_load_si512(t.frequency)) {}
  template <int kStep, class Between>
  __attribute__((always_inline)) void resolve(const __m512i* low, __m512i* symbol, __m512i* f, __m512i* rank,
                                              const Between& between) const {
    TERSOR_EACH {
      const __m512i packed = _mm512_permutex2var_epi16(bucket_low, _mm512_srli_epi16(low[j], 10), bucket_high);
      // rest >= threshold; the five low bits of packed hold the symbol, so the left side fills its own with ones
      // 0xEA: (a & b) | c
      const __m512i rest = _mm512_ternarylogic_epi32(_mm512_slli_epi16(low[j], 5), low15, low5, 0xEA);
      const __mmask32 next = _mm512_cmpge_epu16_mask(rest, packed);
      symbol[j] = _mm512_and_si512(_mm512_mask_sub_epi16(packed, next, packed, minus_one), low5);
    }
    between(0), between(1);
    TERSOR_EACH {
      f[j] = _mm512_permutexvar_epi16(symbol[j], frequency);
      rank[j] = _mm512_sub_epi16(low[j], _mm512_permutexvar_epi16(symbol[j], start));
    }
    between(2);
  }
};

template <class Tables, int kGroups>
__attribute__((noinline)) bool decode(const DecodeTables& tables, DecodeStates& states, const uint8_t* floor,
                                      size_t rows, uint8_t* out) {
  constexpr int kHalf = kGroups > 1 ? kGroups / 2 : 1;
  constexpr int kStep = kHalf < Tables::kMostStep ? kHalf : Tables::kMostStep, kSets = kGroups / kStep;
  const Tables t(tables);
  const __m512i minus_one = _mm512_set1_epi16(-1);
  DecodeStates local;  // the compiler need not fear that `out` overlaps it
  for (int g = 0; g < kGroups; ++g) {
    _mm512_store_si512(local.low + kGroupLanes * g, _mm512_load_si512(states.low + kGroupLanes * g));
    _mm512_store_si512(local.high + kGroupLanes * g, _mm512_load_si512(states.high + kGroupLanes * g));
    local.words[g] = states.words[g];
  }
  // Words for a set of groups are fetched between the stages that resolve the next set: the two chains do not touch
  // each other, and the scheduler, which sees some 100 instructions, has both in sight.
  __m512i pending[kStep];
  __mmask32 stay[kStep];
  const auto fetch = [&](int set, int j) __attribute__((always_inline)) {
    const __m512i word = expand(local.words[set + j], stay[j]);
    _mm512_store_si512(local.low + kGroupLanes * (set + j), _mm512_mask_mov_epi16(word, stay[j], pending[j]));
  };
  for (size_t row = 0; row < rows; ++row) {
#pragma GCC unroll 4
    for (int set = 0; set < kGroups; set += kStep, out += kGroupLanes * kStep) {
      // The lines to be written are fetched early: a cold target would cost as much as the decoding.
      for (int line = 0; line < kGroupLanes * kStep; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(out + 2048 + line), _MM_HINT_T0);
      __m512i low[kStep], high[kStep], symbol[kStep], f[kStep], rank[kStep];
      if (kSets == 1 && row > 0) TERSOR_EACH fetch(0, j);
      TERSOR_EACH low[j] = _mm512_load_si512(local.low + kGroupLanes * (set + j));
      const int before = set > 0 ? set - kStep : kGroups - kStep;
      const bool behind = kSets > 1 && (set > 0 || row > 0);
      const auto between = [&](int stage) __attribute__((always_inline)) {
        if (behind && stage < kStep) fetch(before, stage);
      };
      t.template resolve<kStep>(low, symbol, f, rank, between);
      // x' = f * high + rank in 32 bits, carried by hand between the halves
      TERSOR_EACH {
        const __m512i h = _mm512_load_si512(local.high + kGroupLanes * (set + j));
        low[j] = _mm512_add_epi16(_mm512_mullo_epi16(f[j], h), rank[j]);
        high[j] = _mm512_mulhi_epu16(f[j], h);
      }
      TERSOR_EACH {
        const __mmask32 carry = _mm512_cmplt_epu16_mask(low[j], rank[j]);
        high[j] = _mm512_mask_sub_epi16(high[j], carry, high[j], minus_one);
      }
      between(3);
      TERSOR_EACH {
        pending[j] = low[j];
        stay[j] = _mm512_test_epi16_mask(high[j], high[j]);
        _mm512_store_si512(local.high + kGroupLanes * (set + j), _mm512_mask_mov_epi16(pending[j], stay[j], high[j]));
      }
      Tables::template store<kStep>(out, symbol, t.rename);
    }
    // A row reads at most 64 bytes a group, and 64 * groups bytes below floor are ours. Checked at a row's end: at its
    // beginning the last set's words of the row before are still to come, and the last row's would be one too many.
    if (row % kGroups == kGroups - 1)
      for (int g = 0; g < kGroups; ++g)
        if (local.words[g] < floor) return false;
  }
  if (rows > 0) TERSOR_EACH fetch(kGroups - kStep, j);
  for (int g = 0; g < kGroups; ++g) {
    _mm512_store_si512(states.low + kGroupLanes * g, _mm512_load_si512(local.low + kGroupLanes * g));
    _mm512_store_si512(states.high + kGroupLanes * g, _mm512_load_si512(local.high + kGroupLanes * g));
    states.words[g] = local.words[g];
    if (local.words[g] < floor) return false;
  }
  return true;
}

}  // namespace tersor::entropy::TERSOR_ZMM
