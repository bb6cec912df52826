// Rows of the indexed stream, eight lanes a register. Reference: indexed_scalar.cpp, equal bit for bit.
// No inline code of ours inside: this file is compiled with AVX-512.
#include <immintrin.h>

#include "entropy/indexed_kernels.h"

namespace tersor::entropy {
namespace {

// Eight loads: the processor's own gather takes twice the time.
[[gnu::always_inline]] inline __m512i load_each(const uint64_t* from, __m512i at) noexcept {
  alignas(64) uint64_t i[8];
  _mm512_store_si512(i, at);
  const auto two = [&](int k) {
    return _mm_loadh_pd(_mm_load_sd(reinterpret_cast<const double*>(from + i[k])),
                        reinterpret_cast<const double*>(from + i[k + 1]));
  };
  const __m256d low = _mm256_insertf128_pd(_mm256_castpd128_pd256(two(0)), two(2), 1);
  const __m256d high = _mm256_insertf128_pd(_mm256_castpd128_pd256(two(4)), two(6), 1);
  return _mm512_castpd_si512(_mm512_insertf64x4(_mm512_castpd256_pd512(low), high, 1));
}

[[gnu::noinline, gnu::cold]] void search_lanes(const IndexedTables& tables, IndexedTile& tile, size_t at,
                                               uint32_t missed, __m512i slots, __m512i& symbols, __m512i& frequencies,
                                               __m512i& rests) noexcept {
  alignas(64) uint64_t slot[8], symbol[8], frequency[8], rest[8];
  _mm512_store_si512(slot, slots), _mm512_store_si512(symbol, symbols);
  _mm512_store_si512(frequency, frequencies), _mm512_store_si512(rest, rests);
  search_indexed(tables, tile, at, uint32_t(missed), slot, symbol, frequency, rest);
  symbols = _mm512_load_si512(symbol), frequencies = _mm512_load_si512(frequency), rests = _mm512_load_si512(rest);
}

template <int kGroups>
size_t decode_rows(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                   LaneStates& states, int32_t* out) noexcept {
  const __m512i low16 = _mm512_set1_epi64(kTableSlots - 1), floor = _mm512_set1_epi64(int64_t(kStateFloor));
  const __m512i low24 = _mm512_set1_epi64(0xffffff), low5 = _mm512_set1_epi64(31), one = _mm512_set1_epi64(1);
  __m512i state[kGroups];
  for (int g = 0; g < kGroups; ++g) state[g] = _mm512_load_si512(states.state + lane + 8 * g);
  const uint8_t* words = states.words;
  size_t row = 0;
  for (; row < rows && states.end - words >= 32 * kGroups; ++row) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g, at += 8) {
      const __m512i place = _mm512_loadu_si512(tile.places + at);
      const __m512i slot = _mm512_and_si512(state[g], low16);
      const __m512i width = _mm512_and_si512(_mm512_srli_epi64(place, 24), low5);
      const __m512i bucket =
          load_each(tables.buckets, _mm512_add_epi64(_mm512_and_si512(place, low24), _mm512_srlv_epi64(slot, width)));
      __m512i rest = _mm512_sub_epi64(slot, _mm512_and_si512(bucket, low16));
      const __m512i first = _mm512_and_si512(_mm512_srli_epi64(bucket, 16), low16);
      const __mmask8 second = _mm512_cmpge_epi64_mask(rest, first);
      rest = _mm512_mask_sub_epi64(rest, second, rest, first);
      __m512i frequency = _mm512_mask_and_epi64(first, second, _mm512_srli_epi64(bucket, 32), low16);
      __m512i symbol = _mm512_srli_epi64(bucket, 48);
      symbol = _mm512_mask_add_epi64(symbol, second, symbol, one);
      const __mmask8 missed = _mm512_cmpge_epi64_mask(rest, frequency);
      if (missed) [[unlikely]]
        search_lanes(tables, tile, at, missed, slot, symbol, frequency, rest);
      const __m512i next =
          _mm512_add_epi64(_mm512_mullo_epi64(frequency, _mm512_srli_epi64(state[g], kSlotBits)), rest);
      const __mmask8 refill = _mm512_cmplt_epu64_mask(next, floor);
      const __m256i taken =
          _mm256_maskz_expand_epi32(refill, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)));
      words += 4 * _mm_popcnt_u32(refill);
      state[g] = _mm512_mask_or_epi64(next, refill, _mm512_slli_epi64(next, 32), _mm512_cvtepu32_epi64(taken));
      const __m512i value = _mm512_add_epi64(symbol, _mm512_srli_epi64(place, 32));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), _mm512_cvtepi64_epi32(value));
    }
  }
  for (int g = 0; g < kGroups; ++g) _mm512_store_si512(states.state + lane + 8 * g, state[g]);
  states.words = words;
  return row;
}

// Entries of eight symbols, transposed: inverses, and frequencies beside starts.
[[gnu::always_inline]] inline void load_entries(const SymbolEntry* entries, const uint32_t* ids, __m512d& inverse,
                                                __m512i& side) noexcept {
  const auto entry = [&](int k) { return _mm_loadu_pd(reinterpret_cast<const double*>(entries + ids[k])); };
  const auto four = [&](int k) {  // of lanes k, k + 2, k + 4, k + 6
    const __m256d low = _mm256_insertf128_pd(_mm256_castpd128_pd256(entry(k)), entry(k + 2), 1);
    const __m256d high = _mm256_insertf128_pd(_mm256_castpd128_pd256(entry(k + 4)), entry(k + 6), 1);
    return _mm512_insertf64x4(_mm512_castpd256_pd512(low), high, 1);
  };
  const __m512d even = four(0), odd = four(1);
  inverse = _mm512_unpacklo_pd(even, odd);
  side = _mm512_castpd_si512(_mm512_unpackhi_pd(even, odd));
}

template <int kGroups>
uint32_t* encode_rows(const SymbolEntry* entries, const uint32_t* ids, size_t rows, uint64_t* states,
                      uint32_t* top) noexcept {
  const __m512i low32 = _mm512_set1_epi64(0xffffffff), slots = _mm512_set1_epi64(kTableSlots);
  const __m256i numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m512i state[kGroups];
  for (int g = 0; g < kGroups; ++g) state[g] = _mm512_loadu_si512(states + 8 * g);
  for (const uint32_t* id = ids + 8 * kGroups * rows; id != ids;) {
#pragma GCC unroll 4
    for (int g = kGroups - 1; g >= 0; --g) {
      id -= 8;
      __m512d inverse;
      __m512i side;
      load_entries(entries, id, inverse, side);
      const __m512i f = _mm512_and_si512(side, low32), start = _mm512_srli_epi64(side, 32);
      const __mmask8 over = _mm512_cmpge_epu64_mask(_mm512_srli_epi64(state[g], 47), f);
      const auto many = uint32_t(_mm_popcnt_u32(over));
      // Packed, then turned until the last word stands last: a compress to memory is slow, a whole store is not.
      const __m256i packed = _mm256_maskz_compress_epi32(over, _mm512_cvtepi64_epi32(state[g]));
      const __m256i turned =
          _mm256_permutevar8x32_epi32(packed, _mm256_add_epi32(numbers, _mm256_set1_epi32(int(many))));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(top - 8), turned);
      top -= many;
      const __m512i x = _mm512_mask_srli_epi64(state[g], over, state[g], 32);
      const __m512i quotient = _mm512_cvttpd_epi64(_mm512_mul_pd(_mm512_cvtepi64_pd(x), inverse));
      const __m512i rest = _mm512_sub_epi64(x, _mm512_mullo_epi64(quotient, f));
      const __mmask8 short_by_one = _mm512_cmpge_epi64_mask(rest, f);
      const __m512i whole = _mm512_add_epi64(_mm512_add_epi64(_mm512_slli_epi64(quotient, kSlotBits), rest), start);
      state[g] = _mm512_mask_add_epi64(whole, short_by_one, whole, _mm512_sub_epi64(slots, f));
    }
  }
  for (int g = 0; g < kGroups; ++g) _mm512_storeu_si512(states + 8 * g, state[g]);
  return top;
}

}  // namespace

size_t decode_indexed_rows_avx512(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                                  size_t lanes, LaneStates& states, int32_t* out) noexcept {
  if (lanes == 32) return decode_rows<4>(tables, tile, at, rows, lane, states, out);
  // Of a row of eight lanes each step waits for the last: two shorter chains side by side are quicker than one.
  return decode_indexed_rows_avx2(tables, tile, at, rows, lane, lanes, states, out);
}

uint32_t* encode_indexed_rows_avx512(const SymbolEntry* entries, const uint32_t* ids, size_t rows, size_t lanes,
                                     uint64_t* states, uint32_t* top) noexcept {
  if (lanes == 32) return encode_rows<4>(entries, ids, rows, states, top);
  if (lanes == 8) return encode_rows<1>(entries, ids, rows, states, top);
  return encode_indexed_rows_scalar(entries, ids, rows, lanes, states, top);
}

}  // namespace tersor::entropy
