// Codes of a byte with eight columns each: a byte of 64 codewords is looked up at once, in a plane of 256 bytes that is
// four registers. Panels take the eight bytes of a codeword so. One token takes three bytes of its products with all
// codewords instead: a codeword's product is a number for all rows that have it, and tables of 16 vectors' products
// serve all rows from the nearest cache. They are exact, so that their sums are the panel's.
#include "gemm/integer_sums_zmm.h"
#include "gemm/vectors.h"

namespace tersor::gemm {
namespace {

constexpr int kAhead = 8192;  // into the second cache

// Held in a register: gcc 12 would load it again for every use.
__attribute__((always_inline)) inline __m512i held(const uint8_t* at) {
  __m512i bytes = _mm512_loadu_si512(at);
  asm("" : "+v"(bytes));
  return bytes;
}

// Bytes of a table of 128 that stays where it is: the intrinsic may overwrite it.
__attribute__((always_inline)) inline __m512i permuted(__m512i codes, __m512i first, __m512i second) {
  asm("vpermi2b %2, %1, %0" : "+v"(codes) : "v"(first), "v"(second));
  return codes;
}

struct Plane {
  __m512i a, b, c, d;
  __attribute__((always_inline)) explicit Plane(const uint8_t* at)
      : a(held(at)), b(held(at + 64)), c(held(at + 128)), d(held(at + 192)) {}
  // high: of the codes' top bits.
  __attribute__((always_inline)) __m512i bytes(__m512i codes, __mmask64 high) const {
    return _mm512_mask_mov_epi8(permuted(codes, a, b), high, permuted(codes, c, d));
  }
};

// ---- panels

// Four bytes each of codewords of two vectors and 32 rows to rows of 32-bit lanes: see code_place.
__attribute__((always_inline)) inline void store_fours(const __m512i* bytes, uint8_t* first, uint8_t* second) {
  const __m512i a = _mm512_unpacklo_epi8(bytes[0], bytes[1]), b = _mm512_unpackhi_epi8(bytes[0], bytes[1]);
  const __m512i c = _mm512_unpacklo_epi8(bytes[2], bytes[3]), d = _mm512_unpackhi_epi8(bytes[2], bytes[3]);
  const __m512i rows[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c), _mm512_unpacklo_epi16(b, d),
                           _mm512_unpackhi_epi16(b, d)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(first + 32 * i), _mm512_castsi512_si256(rows[i]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(second + 32 * i), _mm512_extracti64x4_epi64(rows[i], 1));
  }
}

__attribute__((always_inline)) inline __m256i codes_at(const Vectors& from, size_t tile, size_t vector, int stage) {
  if (vector >= from.count) return _mm256_setzero_si256();
  const uint8_t* const record = from.at(tile / 2, vector) + size_t(stage) * kPairRows + tile % 2 * kTileRows;
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(record));
}

// The codes of the next panel, which lie elsewhere, or of the next tile's first.
template <int kStages>
__attribute__((always_inline)) inline void prefetch(const Vectors& from, size_t pair, size_t vector) {
  if (vector >= from.count) vector -= from.count, ++pair;
  if (vector >= from.count || pair >= from.pairs) return;
  const uint8_t* const record = from.at(pair, vector);
#pragma GCC unroll 4
  for (int s = 0; s < kStages; ++s) _mm_prefetch(reinterpret_cast<const char*>(record) + kPairRows * s, _MM_HINT_T0);
}

// Two vectors, or four, whose codes are as many registers, and the stages' planes.
template <int kStages, int kGroups>
__attribute__((always_inline)) inline void decode(const Vectors& from, size_t tile, size_t vector, uint8_t* out) {
  __m512i codes[kGroups][kStages];
  __mmask64 high[kGroups][kStages];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
    for (int s = 0; s < kStages; ++s) {
      codes[g][s] = _mm512_inserti64x4(_mm512_castsi256_si512(codes_at(from, tile, vector + size_t(2 * g), s)),
                                       codes_at(from, tile, vector + size_t(2 * g + 1), s), 1);
      high[g][s] = _mm512_movepi8_mask(codes[g][s]);
    }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    __m512i bytes[kGroups][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
      for (int s = 0; s < kStages; ++s) {
        const Plane plane(from.planes + (s * 8 + 4 * half + i) * 256);
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
          const __m512i found = plane.bytes(codes[g][s], high[g][s]);
          bytes[g][i] = s == 0 ? found : _mm512_add_epi8(bytes[g][i], found);
        }
      }
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      uint8_t* const to = out + 512 * g + 128 * half;
      store_fours(bytes[g], to, to + 256);
    }
  }
}

template <int kStages>
void panel_of(const Vectors& from, size_t tile, size_t column, size_t columns, uint8_t* out) {
  constexpr int kGroups = kStages <= 2 ? 2 : 1;  // what the registers hold
  constexpr size_t kVectors = 2 * kGroups;
  for (size_t vector = column / 8; vector < (column + columns) / 8; vector += kVectors, out += 256 * kVectors) {
#pragma GCC unroll 4
    for (size_t i = 0; i < kVectors; ++i) prefetch<kStages>(from, tile / 2, vector + i + columns / 8);
    decode<kStages, kGroups>(from, tile, vector, out);
  }
}

void panel(const Vectors& from, size_t tile, size_t column, size_t columns, uint8_t* out) noexcept {
  if (from.planes == nullptr) return kScalarVectorKernels.panel(from, tile, column, columns, out);
  switch (from.stages) {
    case 1: return panel_of<1>(from, tile, column, columns, out);
    case 2: return panel_of<2>(from, tile, column, columns, out);
    case 3: return panel_of<3>(from, tile, column, columns, out);
    default: return panel_of<4>(from, tile, column, columns, out);
  }
}

// ---- tables of products

// The same byte of 256 32-bit lanes in 16 registers, and the next: planes of 256 bytes.
__attribute__((always_inline)) inline void store_planes(const __m512i* lanes, int byte, uint8_t* first,
                                                        uint8_t* second) {
  const __m512i every =
      _mm512_set_epi32(0x7c787470, 0x6c686460, 0x5c585450, 0x4c484440, 0x3c383430, 0x2c282420, 0x1c181410, 0x0c080400,
                       0x7c787470, 0x6c686460, 0x5c585450, 0x4c484440, 0x3c383430, 0x2c282420, 0x1c181410, 0x0c080400);
  const __m512i picked =
      _mm512_add_epi8(every, _mm512_inserti64x4(_mm512_set1_epi8(char(byte)), _mm256_set1_epi8(char(byte + 1)), 1));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_permutex2var_epi8(lanes[4 * i], picked, lanes[4 * i + 1]);
    const __m512i b = _mm512_permutex2var_epi8(lanes[4 * i + 2], picked, lanes[4 * i + 3]);
    _mm512_store_si512(first + 64 * i, _mm512_shuffle_i64x2(a, b, 0x44));
    if (second) _mm512_store_si512(second + 64 * i, _mm512_shuffle_i64x2(a, b, 0xee));
  }
}

struct Range {
  int32_t least, most;
};

// Products of eight activations with the codewords of a stage, less the least of them.
template <bool kThree>
__attribute__((noinline)) Range make_table(const uint32_t* fours, const int8_t* x, uint8_t* table) {
  const __m512i first = four_of(x), second = four_of(x + 4);
  __m512i products[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    products[i] = _mm512_setzero_si512();
    dot(products[i], _mm512_loadu_si512(fours + 16 * i), first);
    dot(products[i], _mm512_loadu_si512(fours + 256 + 16 * i), second);
  }
  __m512i least = products[0], most = products[0];
#pragma GCC unroll 16
  for (int i = 1; i < 16; ++i) least = _mm512_min_epi32(least, products[i]), most = _mm512_max_epi32(most, products[i]);
  const Range range{_mm512_reduce_min_epi32(least), _mm512_reduce_max_epi32(most)};
  const __m512i from = _mm512_set1_epi32(range.least);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) products[i] = _mm512_sub_epi32(products[i], from);
  store_planes(products, 0, table, table + 256);
  if constexpr (kThree) store_planes(products, 2, table + 512, nullptr);
  return range;
}

// Sums of bytes, of even ones and odd ones apart: those of all 16-bit words wrap, and give back the even ones' when the
// odd ones' are taken away.
struct ByteSums {
  __m512i words, odd;
  __attribute__((always_inline)) void add(__m512i bytes) {
    words = _mm512_add_epi16(words, bytes);
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(bytes, 8));
  }
  __attribute__((always_inline)) __m512i even() const { return _mm512_sub_epi16(words, _mm512_slli_epi16(odd, 8)); }
};

// Sums of 64 rows over a chunk, as four registers: of codes 0, 4, 8.., of 1, 5, 9.., and so on. A chunk has at most 64
// products of a row, and each byte of their sums stays below 2^16; the third byte is at most 3.
template <bool kThree>
struct PairSums {
  ByteSums low, middle;
  __m512i high;

  __attribute__((always_inline)) void total(__m512i* sums) const {
    const __m512i lower = _mm512_set1_epi32(0xffff);
    const __m512i lows[2] = {low.even(), low.odd}, middles[2] = {middle.even(), middle.odd};
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
      sums[odd] = _mm512_add_epi32(_mm512_and_si512(lows[odd], lower),
                                   _mm512_slli_epi32(_mm512_and_si512(middles[odd], lower), 8));
      sums[2 + odd] =
          _mm512_add_epi32(_mm512_srli_epi32(lows[odd], 16), _mm512_slli_epi32(_mm512_srli_epi32(middles[odd], 16), 8));
    }
    if constexpr (kThree)
#pragma GCC unroll 4
      for (unsigned i = 0; i < 4; ++i)
        sums[i] = _mm512_add_epi32(
            sums[i], _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(high, 8 * i), _mm512_set1_epi32(255)), 16));
  }
};

// kPairs times 64 rows: their codes of one chunk lie end to end, `bytes` each. kept: [pair][4][16].
template <bool kThree, int kPairs>
__attribute__((noinline)) void add_chunk(const uint8_t* codes, size_t bytes, const uint8_t* tables, bool first,
                                         int32_t* kept) {
  PairSums<kThree> sums[kPairs];
#pragma GCC unroll 2
  for (auto& one : sums)
    one.low.words = one.low.odd = one.middle.words = one.middle.odd = one.high = _mm512_setzero_si512();
  for (size_t at = 0; at < bytes; at += kPairRows, tables += kTableBytes) {
    __m512i rows[kPairs];
    __mmask64 high[kPairs];
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
      const uint8_t* const here = codes + size_t(p) * bytes + at;
      _mm_prefetch(reinterpret_cast<const char*>(here) + kAhead, _MM_HINT_T1);
      rows[p] = _mm512_loadu_si512(here);
      high[p] = _mm512_movepi8_mask(rows[p]);
    }
    const Plane low(tables);
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) sums[p].low.add(low.bytes(rows[p], high[p]));
    const Plane middle(tables + 256);
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) sums[p].middle.add(middle.bytes(rows[p], high[p]));
    if constexpr (kThree) {
      const Plane top(tables + 512);
#pragma GCC unroll 2
      for (int p = 0; p < kPairs; ++p) sums[p].high = _mm512_add_epi8(sums[p].high, top.bytes(rows[p], high[p]));
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
    __m512i total[4];
    sums[p].total(total);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      int32_t* const to = kept + 64 * p + 16 * i;
      if (!first) total[i] = _mm512_add_epi32(total[i], _mm512_load_si512(to));
      _mm512_store_si512(to, total[i]);
    }
  }
}

template <bool kThree>
void add_chunks(const uint8_t* codes, size_t bytes, size_t pairs, const uint8_t* tables, bool first, int32_t* kept) {
  size_t pair = 0;
  for (; pair + 2 <= pairs; pair += 2)
    add_chunk<kThree, 2>(codes + pair * bytes, bytes, tables, first, kept + 64 * pair);
  if (pair < pairs) add_chunk<kThree, 1>(codes + pair * bytes, bytes, tables, first, kept + 64 * pair);
}

// A group's sums of 64 rows into y, rows in order. base: what every row's sum is short of.
void scale_pair(const LookUps& task, size_t group, size_t tile, const int32_t* kept, int32_t base) {
  __m512i by_row[4];
  {
    __m512i sums[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[i] = _mm512_add_epi32(_mm512_load_si512(kept + 16 * i), _mm512_set1_epi32(base));
    const __m512i a = _mm512_unpacklo_epi32(sums[0], sums[1]), b = _mm512_unpackhi_epi32(sums[0], sums[1]);
    const __m512i c = _mm512_unpacklo_epi32(sums[2], sums[3]), d = _mm512_unpackhi_epi32(sums[2], sums[3]);
    by_row[0] = _mm512_unpacklo_epi64(a, c), by_row[1] = _mm512_unpackhi_epi64(a, c);
    by_row[2] = _mm512_unpacklo_epi64(b, d), by_row[3] = _mm512_unpackhi_epi64(b, d);
  }
  for (size_t half = 0; half < 2 && tile + half < task.end_tile; ++half) {
    float* const y = task.y + (tile + half - task.first_tile) * task.y_stride;
    const uint8_t* const scales = task.scales + (tile + half) * task.scale_tile_bytes;
#pragma GCC unroll 2
    for (int block = 0; block < 2; ++block) {
      const __m512i low = by_row[2 * block], high = by_row[2 * block + 1];
      const __m512i sum = half == 0 ? _mm512_shuffle_i64x2(low, high, 0x44) : _mm512_shuffle_i64x2(low, high, 0xee);
      __m512 scale = numbers_at(task.scale_kind, scales, block);
      if (task.x_scales) scale = _mm512_mul_ps(scale, _mm512_set1_ps(task.x_scales[group]));
      float* const to = y + block * int(kBlockRows);
      const __m512 before = group == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(to);
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, before));
    }
  }
}

struct Tables {
  int32_t least = 0, widest = 0;  // the sum of the least products, the widest range
};

// Of all vectors of a chunk and their stages.
template <bool kThree>
Tables make_tables(const Vectors& from, const int8_t* x, size_t count, uint8_t* table) {
  Tables made;
  for (size_t v = 0; v < count; ++v)
    for (int s = 0; s < from.stages; ++s, table += kTableBytes) {
      const Range range = make_table<kThree>(from.fours + 512 * s, x + 8 * v, table);
      made.least += range.least;
      if (range.most - range.least > made.widest) made.widest = range.most - range.least;
    }
  return made;
}

void look_up(const LookUps& task) noexcept {
  const Vectors& from = *task.vectors;
  const size_t first_pair = task.first_tile / 2, pairs = (task.end_tile + 1) / 2 - first_pair;
  const size_t group_chunks = task.group_columns / (8 * kChunkVectors);
  uint8_t* const tables = task.room;
  auto* const kept = reinterpret_cast<int32_t*>(tables + kChunkVectors * size_t(from.stages) * kTableBytes);
  int32_t base = 0;
  for (size_t vector = 0, chunk = 0; vector < from.count; vector += kChunkVectors, ++chunk) {
    const size_t count = from.chunk_vectors(vector), group = chunk / group_chunks, bytes = count * from.record();
    const int8_t* const x = task.x + 8 * vector;
    const uint8_t* const codes = from.at(first_pair, vector);
    const bool first = chunk % group_chunks == 0;
    if (first) base = -task.center * task.sums[group];
    const Tables made = make_tables<false>(from, x, count, tables);
    base += made.least;
    // Two bytes hold the products of all but odd activations.
    if (made.widest <= 0xffff) {
      add_chunks<false>(codes, bytes, pairs, tables, first, kept);
    } else {
      make_tables<true>(from, x, count, tables);
      add_chunks<true>(codes, bytes, pairs, tables, first, kept);
    }
    if ((chunk + 1) % group_chunks == 0 || vector + count == from.count)
      for (size_t pair = 0; pair < pairs; ++pair)
        scale_pair(task, group, 2 * (first_pair + pair), kept + 64 * pair, base);
  }
}

}  // namespace

const VectorKernels kAvx512VbmiVectorKernels = {panel, look_up};

}  // namespace tersor::gemm
