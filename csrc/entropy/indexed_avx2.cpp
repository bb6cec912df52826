// Rows of the indexed stream, four lanes a register. Reference: indexed_scalar.cpp, equal bit for bit.
// No inline code of ours inside: this file is compiled with AVX2.
#include <immintrin.h>

#include "entropy/indexed_kernels.h"

namespace tersor::entropy {
namespace {

// Word number i of those at hand goes to the i-th lane of the mask.
struct Spread {
  alignas(16) int8_t bytes[16][16];
};
constexpr Spread make_spread() {
  Spread spread{};
  for (int mask = 0; mask < 16; ++mask)
    for (int lane = 0, word = 0; lane < 4; ++lane) {
      const bool takes = mask >> lane & 1;
      for (int byte = 0; byte < 4; ++byte) spread.bytes[mask][4 * lane + byte] = int8_t(takes ? 4 * word + byte : -1);
      word += takes;
    }
  return spread;
}
constexpr Spread kSpread = make_spread();

[[gnu::noinline, gnu::cold]] void search_lanes(const IndexedTables& tables, IndexedTile& tile, size_t at, int missed,
                                               __m256i slots, __m256i& symbols, __m256i& frequencies,
                                               __m256i& rests) noexcept {
  alignas(32) uint64_t slot[4], symbol[4], frequency[4], rest[4];
  const auto at256 = [](uint64_t* of) { return reinterpret_cast<__m256i*>(of); };
  _mm256_store_si256(at256(slot), slots), _mm256_store_si256(at256(symbol), symbols);
  _mm256_store_si256(at256(frequency), frequencies), _mm256_store_si256(at256(rest), rests);
  search_indexed(tables, tile, at, uint32_t(missed), slot, symbol, frequency, rest);
  symbols = _mm256_load_si256(at256(symbol)), frequencies = _mm256_load_si256(at256(frequency));
  rests = _mm256_load_si256(at256(rest));
}

template <int kGroups>
size_t decode_rows(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                   LaneStates& states, int32_t* out) noexcept {
  const __m256i low16 = _mm256_set1_epi64x(kTableSlots - 1), floor = _mm256_set1_epi64x(int64_t(kStateFloor));
  const __m256i low24 = _mm256_set1_epi64x(0xffffff), low5 = _mm256_set1_epi64x(31), one = _mm256_set1_epi64x(1);
  const __m256i evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  __m256i state[kGroups];
  for (int g = 0; g < kGroups; ++g)
    state[g] = _mm256_load_si256(reinterpret_cast<const __m256i*>(states.state + lane) + g);
  const uint8_t* words = states.words;
  size_t row = 0;
  for (; row < rows && states.end - words >= 16 * kGroups; ++row) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g, at += 4) {
      const __m256i place = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.places + at));
      const __m256i slot = _mm256_and_si256(state[g], low16);
      const __m256i width = _mm256_and_si256(_mm256_srli_epi64(place, 24), low5);
      const __m256i where = _mm256_add_epi64(_mm256_and_si256(place, low24), _mm256_srlv_epi64(slot, width));
      const __m128i where0 = _mm256_castsi256_si128(where), where1 = _mm256_extracti128_si256(where, 1);
      const auto two = [&](__m128i i) {
        return _mm_loadh_pd(
            _mm_load_sd(reinterpret_cast<const double*>(tables.buckets + uint64_t(_mm_cvtsi128_si64(i)))),
            reinterpret_cast<const double*>(tables.buckets + uint64_t(_mm_extract_epi64(i, 1))));
      };
      const __m256i bucket =
          _mm256_castpd_si256(_mm256_insertf128_pd(_mm256_castpd128_pd256(two(where0)), two(where1), 1));
      __m256i rest = _mm256_sub_epi64(slot, _mm256_and_si256(bucket, low16));
      const __m256i of_first = _mm256_and_si256(_mm256_srli_epi64(bucket, 16), low16);
      const __m256i of_second = _mm256_and_si256(_mm256_srli_epi64(bucket, 32), low16);
      const __m256i first = _mm256_cmpgt_epi64(of_first, rest);  // -1 or 0
      rest = _mm256_sub_epi64(rest, _mm256_andnot_si256(first, of_first));
      __m256i frequency = _mm256_blendv_epi8(of_second, of_first, first);
      __m256i symbol = _mm256_add_epi64(_mm256_add_epi64(_mm256_srli_epi64(bucket, 48), one), first);
      const int missed = 15 & ~_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(frequency, rest)));
      if (missed) [[unlikely]]
        search_lanes(tables, tile, at, missed, slot, symbol, frequency, rest);
      // 16 times 47 bits from two products of 32
      const __m256i high = _mm256_srli_epi64(state[g], kSlotBits);
      const __m256i upper = _mm256_slli_epi64(_mm256_mul_epu32(frequency, _mm256_srli_epi64(high, 32)), 32);
      const __m256i next = _mm256_add_epi64(_mm256_add_epi64(_mm256_mul_epu32(frequency, high), upper), rest);
      const __m256i refill = _mm256_cmpgt_epi64(floor, next);
      const int mask = _mm256_movemask_pd(_mm256_castsi256_pd(refill));
      const __m128i taken = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)),
                                             _mm_load_si128(reinterpret_cast<const __m128i*>(kSpread.bytes[mask])));
      words += 4 * _mm_popcnt_u32(unsigned(mask));
      const __m256i filled = _mm256_or_si256(_mm256_slli_epi64(next, 32), _mm256_cvtepu32_epi64(taken));
      state[g] = _mm256_blendv_epi8(next, filled, refill);
      const __m256i value = _mm256_add_epi64(symbol, _mm256_srli_epi64(place, 32));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at),
                       _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(value, evens)));
    }
  }
  for (int g = 0; g < kGroups; ++g) _mm256_store_si256(reinterpret_cast<__m256i*>(states.state + lane) + g, state[g]);
  states.words = words;
  return row;
}

}  // namespace

size_t decode_indexed_rows_avx2(const IndexedTables& tables, IndexedTile& tile, size_t at, size_t rows, size_t lane,
                                size_t lanes, LaneStates& states, int32_t* out) noexcept {
  if (lanes == 32) return decode_rows<8>(tables, tile, at, rows, lane, states, out);
  if (lanes == 8) return decode_rows<2>(tables, tile, at, rows, lane, states, out);
  return decode_indexed_rows_scalar(tables, tile, at, rows, lane, lanes, states, out);
}

}  // namespace tersor::entropy
