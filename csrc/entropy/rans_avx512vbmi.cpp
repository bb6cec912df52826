// rANS decoding with AVX-512 VBMI and VBMI2 (Ice Lake, Zen 4): words by VPEXPANDW, 256-entry tables by VPERMI2B.
// Page: docs/formats/rans8.md. Reference: rans_scalar.cpp, equal in every byte and every state.
// The body is rans_decode_zmm.h's; what is particular here are the two primitives below. docs/design.md says where they
// ran.
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::avx512vbmi {

static __attribute__((always_inline)) inline __m512i expand(const uint8_t*& words, __mmask32 stay) {
  words += 2 * _mm_popcnt_u32(_cvtmask32_u32(stay)) - 64;
  // To a register: with a memory operand VPEXPANDW is microcoded on Zen 4.
  return _mm512_maskz_expand_epi16(_knot_mask32(stay), _mm512_loadu_si512(words));
}

struct SymbolOfName {
  __m512i table;
  explicit SymbolOfName(const DecodeTables& t)
      : table(_mm512_castsi256_si512(_mm256_load_si256(reinterpret_cast<const __m256i*>(t.symbol_of)))) {}
  __attribute__((always_inline)) __m512i operator()(__m512i names) const {
    return _mm512_permutexvar_epi8(names, table);
  }
};

}  // namespace tersor::entropy::avx512vbmi

#define TERSOR_ZMM avx512vbmi
#include "entropy/rans_decode_zmm.h"

namespace tersor::entropy::avx512vbmi {

// A table of 256 bytes is four registers' worth of memory: two VPERMI2B and a blend look up 64 bytes. Two groups are
// packed into one vector of bytes; unpacking the results gives words in the order that packing had.
struct Alias256 {
  static constexpr int kMostStep = 4;
  const DecodeTables& t;
  Consecutive rename;
  __m512i low_byte = _mm512_set1_epi16(255);
  explicit Alias256(const DecodeTables& tables) : t(tables), rename(tables) {}

  static __attribute__((always_inline)) __m512i look_up(const uint8_t* plane, __m512i index, __mmask64 upper) {
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(plane), index, _mm512_load_si512(plane + 64));
    const __m512i high =
        _mm512_permutex2var_epi8(_mm512_load_si512(plane + 128), index, _mm512_load_si512(plane + 192));
    return _mm512_mask_mov_epi8(low, upper, high);
  }
  // symbol[j] of an even j holds the bytes of groups j and j + 1 in the order of packus.
  template <int kStep, class Between>
  __attribute__((always_inline)) void resolve(const __m512i* low, __m512i* symbol, __m512i* f, __m512i* rank,
                                              const Between& between) const {
#pragma GCC unroll 4
    for (int j = 0; j < kStep; j += 2) {
      const int k = kStep == 1 ? j : j + 1;
      const __m512i rest_j = _mm512_and_si512(low[j], low_byte), rest_k = _mm512_and_si512(low[k], low_byte);
      const __m512i rest = _mm512_packus_epi16(rest_j, rest_k);
      const __m512i bucket = _mm512_packus_epi16(_mm512_srli_epi16(low[j], 8), _mm512_srli_epi16(low[k], 8));
      const __mmask64 upper = _mm512_movepi8_mask(bucket);
      const __mmask64 beyond = _mm512_cmpge_epu8_mask(rest, look_up(t.plane[0], bucket, upper));
      symbol[j] = _mm512_mask_mov_epi8(bucket, beyond, look_up(t.plane[1], bucket, upper));
      const __m512i offset_low = _mm512_maskz_mov_epi8(beyond, look_up(t.plane[2], bucket, upper));
      const __m512i offset_high = _mm512_maskz_mov_epi8(beyond, look_up(t.plane[3], bucket, upper));
      if (j == 0) between(0), between(1), between(2);
      const __mmask64 upper_symbol = _mm512_movepi8_mask(symbol[j]);
      const __m512i f_low = look_up(t.plane[4], symbol[j], upper_symbol);
      const __m512i f_high = look_up(t.plane[5], symbol[j], upper_symbol);
      f[j] = _mm512_unpacklo_epi8(f_low, f_high);
      rank[j] = _mm512_add_epi16(rest_j, _mm512_unpacklo_epi8(offset_low, offset_high));
      if constexpr (kStep > 1) {
        f[k] = _mm512_unpackhi_epi8(f_low, f_high);
        rank[k] = _mm512_add_epi16(rest_k, _mm512_unpackhi_epi8(offset_low, offset_high));
      }
    }
  }
  template <int kStep>
  static __attribute__((always_inline)) void store(uint8_t* out, const __m512i* symbol, const Consecutive&) {
    const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
#pragma GCC unroll 4
    for (int j = 0; j < kStep; j += 2) {
      const __m512i bytes = _mm512_permutexvar_epi64(order, symbol[j]);
      if constexpr (kStep == 1)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(bytes));
      else
        _mm512_storeu_si512(out + kGroupLanes * j, bytes);
    }
  }
};

}  // namespace tersor::entropy::avx512vbmi

#define TERSOR_LEVEL avx512vbmi
#include "entropy/rans_layouts.h"

namespace tersor::entropy {

bool decode_rows_avx512vbmi(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor,
                            size_t rows, uint8_t* out) noexcept {
  return avx512vbmi::decode_layouts(tables, states, groups, floor, rows, out);
}

}  // namespace tersor::entropy
