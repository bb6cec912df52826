// rANS with AVX-512 F, BW, DQ, VL: everything that Skylake servers have. Page: docs/formats/rans8.md.
// Reference: rans_scalar.cpp, equal in every byte and every state.
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::avx512 {

// Without VPEXPANDW: eight lanes at a time get their words by a byte shuffle, whose control comes from a table indexed
// by the eight bits of `stay`. The four 16-byte pieces meet in one register through masked broadcasts (any port).
static __attribute__((always_inline)) inline __m512i expand(const uint8_t*& words, __mmask32 stay) {
  // 16 bits for each eight lanes: their bits of `stay` times 16, which is the offset of their control, and what is
  // above them. In integer registers, since kshift would load port 5.
  uint64_t bits = _pdep_u64(_cvtmask32_u32(stay), 0x0ff00ff00ff00ff0u);
  const auto load = [](const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); };
  const auto kept = [](uint64_t of) {  // popcnt; into its own source, since elsewhere it waits for the target
    asm("popcnt %0, %0" : "+r"(of));
    return 2 * of;
  };
  const auto controls = reinterpret_cast<const uint8_t*>(kLaneControls.fill);
  const uint8_t* const end = words;
  const uint64_t kept0 = kept(bits);
  words = end + kept0 - 64;
  __m512i word = _mm512_castsi128_si512(load(end + kept0 - 64));
  __m512i control = _mm512_castsi128_si512(load(controls + uint16_t(bits)));
  bits >>= 16;
  asm("" : "+r"(bits));
  word = _mm512_mask_broadcast_i32x4(word, 0x00f0, load(end + kept(bits) - 48));
  control = _mm512_mask_broadcast_i32x4(control, 0x00f0, load(controls + uint16_t(bits)));
  bits >>= 16;
  asm("" : "+r"(bits));
  word = _mm512_mask_broadcast_i32x4(word, 0x0f00, load(end + kept(bits) - 32));
  control = _mm512_mask_broadcast_i32x4(control, 0x0f00, load(controls + uint16_t(bits)));
  bits >>= 16;
  asm("" : "+r"(bits));
  word = _mm512_mask_broadcast_i32x4(word, 0xf000, load(end + kept(bits) - 16));
  control = _mm512_mask_broadcast_i32x4(control, 0xf000, load(controls + bits));
  return _mm512_shuffle_epi8(word, control);
}

// Without VPCOMPRESSW: eight words at a time, by the same kind of shuffle.
static __attribute__((always_inline)) inline uint16_t* compress(uint16_t* words, const uint16_t* low, __mmask32 lanes) {
  const uint64_t bits = _pdep_u64(_cvtmask32_u32(lanes), 0x0ff00ff00ff00ff0u);
  asm volatile("" : : "r"(low) : "memory");  // what was just stored there is read back in quarters
#pragma GCC unroll 4
  for (int quarter = 0; quarter < 4; ++quarter) {
    const uint64_t here = bits >> (16 * quarter) & 0xffff;
    const __m128i from = _mm_load_si128(reinterpret_cast<const __m128i*>(low + 8 * quarter));
    const auto* const control = reinterpret_cast<const uint8_t*>(kLaneControls.compress) + here;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words),
                     _mm_shuffle_epi8(from, _mm_load_si128(reinterpret_cast<const __m128i*>(control))));
    words += _mm_popcnt_u64(here);
  }
  return words;
}

// Two shuffles, of which the one whose half does not hold a name gives 0: its index has bit 7 set.
struct SymbolOfName {
  __m512i low, high;
  explicit SymbolOfName(const DecodeTables& t)
      : low(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(t.symbol_of)))),
        high(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(t.symbol_of + 16)))) {}
  __attribute__((always_inline)) __m512i operator()(__m512i names) const {
    const __m512i of_low = _mm512_shuffle_epi8(low, _mm512_add_epi8(names, _mm512_set1_epi8(0x70)));
    return _mm512_or_si512(of_low, _mm512_shuffle_epi8(high, _mm512_sub_epi8(names, _mm512_set1_epi8(16))));
  }
};

}  // namespace tersor::entropy::avx512

#define TERSOR_ZMM avx512
#include "entropy/rans_decode_zmm.h"
#include "entropy/rans_encode_zmm.h"

namespace tersor::entropy::avx512 {

// 256 words are eight registers' worth of memory: four VPERMT2W over 64 words each and three blends. A gather would be
// one instruction, but where microcode guards against gather data sampling it takes 28 cycles for 16 lanes.
struct Alias256 : WordSymbols {
  static constexpr int kMostStep = 2;
  const DecodeTables& t;
  Consecutive rename;
  __m512i byte = _mm512_set1_epi16(255);
  __m512i bit6 = _mm512_set1_epi16(64), bit7 = _mm512_set1_epi16(128);
  explicit Alias256(const DecodeTables& tables) : t(tables), rename(tables) {}

  struct Index {
    __m512i value;
    __mmask32 bit6, bit7;
  };
  __attribute__((always_inline)) Index index(__m512i value) const {
    return {value, _mm512_test_epi16_mask(value, bit6), _mm512_test_epi16_mask(value, bit7)};
  }
  static __attribute__((always_inline)) __m512i look_up(const uint16_t* table, const Index& i) {
    const auto of64 = [&](int at) {
      return _mm512_permutex2var_epi16(_mm512_load_si512(table + at), i.value, _mm512_load_si512(table + at + 32));
    };
    const __m512i low = _mm512_mask_mov_epi16(of64(0), i.bit6, of64(64));
    return _mm512_mask_mov_epi16(low, i.bit7, _mm512_mask_mov_epi16(of64(128), i.bit6, of64(192)));
  }
  template <int kStep, class Between>
  __attribute__((always_inline)) void resolve(const __m512i* low, __m512i* symbol, __m512i* f, __m512i* rank,
                                              const Between& between) const {
    TERSOR_EACH {
      const __m512i bucket = _mm512_srli_epi16(low[j], 8);
      const Index at = index(bucket);
      const __m512i own_alias = look_up(t.own_alias256, at);
      const __m512i rest = _mm512_and_si512(low[j], byte);
      // rest >= own, in the upper byte; the alias below it must not decide
      const __mmask32 beyond = _mm512_cmpge_epu16_mask(_mm512_or_si512(_mm512_slli_epi16(low[j], 8), byte), own_alias);
      symbol[j] = _mm512_mask_mov_epi16(bucket, beyond, _mm512_and_si512(own_alias, byte));
      rank[j] = _mm512_mask_add_epi16(rest, beyond, rest, look_up(t.offset256, at));
    }
    between(0), between(1);
    TERSOR_EACH f[j] = look_up(t.frequency256, index(symbol[j]));
    between(2);
  }
};

// The large alphabet: frequencies and reciprocals are looked up one by one, a row ahead, since a vector load waits
// until narrow stores have left the core; slots as in rans_encode_zmm.h, whose arithmetic this is in 32-bit lanes.
static __attribute__((noinline)) void encode_large(const EncodeTables& t, EncodeStates& states, int groups, size_t rows,
                                                   const uint8_t* symbols) {
  constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  constexpr int kStep = 2;  // the two halves of a group
  const __m512i word = _mm512_set1_epi32(0xffff);
  const uint16_t* const slot_of = t.slot_of;
  const int lanes = groups * kGroupLanes;
  alignas(64) uint16_t slot[kMostLanes];  // the low halves of the states
  alignas(64) uint32_t packed_of[kMostLanes];
  alignas(64) float reciprocal_of[kMostLanes];
  // A state is `x` plus its lane's `slot`, which is a whole number of quanta.
  const __m128i quantum_bits = _mm_cvtsi32_si128(t.quantum_bits);
  const __m512i in_quantum = _mm512_set1_epi32((1 << t.quantum_bits) - 1);
  for (int i = 0; i < lanes; ++i) slot[i] = 0;
  alignas(64) uint32_t place[2][kGroupLanes];
  int behind = -1;
  const auto fetch_slots = [&] {
    if (behind < 0) return;
    const uint32_t* const from = place[behind % 2];
    uint16_t* const to = slot + behind * kGroupLanes;
    asm volatile("" : : "r"(from) : "memory");  // a vectorizer would take `place` apart in registers
#pragma GCC unroll 32
    for (int i = 0; i < kGroupLanes; ++i) {
      uint32_t one = slot_of[from[i]];
      asm volatile("" : "+r"(one));
      to[i] = (uint16_t)one;
    }
    behind = -1;
  };
  for (size_t row = rows; row-- > 0;) {
    const uint8_t* source = symbols + row * size_t(lanes);
    for (int i = 0; i < lanes; ++i) {
      uint32_t packed = t.frequency_start[source[i]];
      float reciprocal = t.reciprocal[source[i]];
      asm volatile("" : "+r"(packed), "+x"(reciprocal));
      packed_of[i] = packed, reciprocal_of[i] = reciprocal;
    }
#pragma GCC unroll 1
    for (int g = 0; g < groups; ++g) {
      __m512i x[kStep], high[kStep], packed[kStep], f[kStep], quotient[kStep], rank[kStep];
      __mmask16 full[kStep];
      TERSOR_EACH {
        const int at = g * kGroupLanes + 16 * j;
        packed[j] = _mm512_load_si512(packed_of + at);
        f[j] = _mm512_and_si512(packed[j], word);
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(slot + at)));
        x[j] = _mm512_add_epi32(_mm512_load_si512(states.x + at), low);
        high[j] = _mm512_srli_epi32(x[j], 16);
        full[j] = _mm512_cmpge_epu32_mask(high[j], f[j]);
      }
      uint16_t* words = states.words[g];
      TERSOR_EACH {  // compressed in a register: to memory it is microcoded on Zen 4
        const __m256i out = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full[j], x[j]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), out);
        words += _mm_popcnt_u32(_cvtmask16_u32(full[j]));
      }
      states.words[g] = words;
      fetch_slots();
      TERSOR_EACH {
        x[j] = _mm512_mask_mov_epi32(x[j], full[j], high[j]);
        const __m512 reciprocal = _mm512_load_ps(reciprocal_of + g * kGroupLanes + 16 * j);
        const __m512 down = _mm512_cvt_roundepu32_ps(x[j], kDown);
        quotient[j] = _mm512_cvt_roundps_epu32(_mm512_mul_round_ps(down, reciprocal, kDown), kDown);
      }
      TERSOR_EACH {
        rank[j] = _mm512_sub_epi32(x[j], _mm512_mullo_epi32(quotient[j], f[j]));
        const __mmask16 more = _mm512_cmpge_epu32_mask(rank[j], f[j]);
        quotient[j] = _mm512_mask_add_epi32(quotient[j], more, quotient[j], _mm512_set1_epi32(1));
        rank[j] = _mm512_mask_sub_epi32(rank[j], more, rank[j], f[j]);
      }
      TERSOR_EACH {
        const __m512i slots = _mm512_add_epi32(_mm512_srli_epi32(packed[j], 16), rank[j]);
        const __m512i quanta = _mm512_srl_epi32(slots, quantum_bits);
        __m256i* const to = reinterpret_cast<__m256i*>(place[g % 2] + 16 * j);
        _mm256_store_si256(to, _mm512_castsi512_si256(quanta));
        _mm256_store_si256(to + 1, _mm512_extracti64x4_epi64(quanta, 1));
        // 0xEA: (a & b) | c
        _mm512_store_si512(states.x + g * kGroupLanes + 16 * j,
                           _mm512_ternarylogic_epi32(slots, in_quantum, _mm512_slli_epi32(quotient[j], 16), 0xEA));
      }
      behind = g;
      if (groups == 1) fetch_slots();
    }
  }
  fetch_slots();
  for (int i = 0; i < lanes; ++i) states.x[i] += slot[i];
}

}  // namespace tersor::entropy::avx512

#define TERSOR_LEVEL avx512
#include "entropy/rans_layouts.h"

namespace tersor::entropy {

bool decode_rows_avx512(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
                        uint8_t* out) noexcept {
  return avx512::decode_layouts(tables, states, groups, floor, rows, out);
}

void encode_rows_avx512(const EncodeTables& tables, EncodeStates& states, int groups, size_t rows,
                        const uint8_t* symbols) noexcept {
  using namespace avx512;
  switch (tables.layout) {
    case Layout::alias32:
      if (tables.stepped) return encode_small<Slots::kSteps>(tables, states, groups, rows, symbols);
      return encode_small<Slots::kFetch>(tables, states, groups, rows, symbols);
    case Layout::alias256: return encode_large(tables, states, groups, rows, symbols);
    case Layout::contiguous: return encode_small<Slots::kContiguous>(tables, states, groups, rows, symbols);
  }
}

}  // namespace tersor::entropy
