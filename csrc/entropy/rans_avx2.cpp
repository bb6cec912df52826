// rANS with AVX2, BMI2, FMA: Haswell and Zen 1 to 3. Page: docs/formats/rans8.md.
// Reference: rans_scalar.cpp, equal in every byte and every state.
//
// 16-bit halves as in rans_decode_zmm.h, a group in two registers: lanes 0..7 and 16..23, 8..15 and 24..31. So packing
// the two to bytes and unpacking them again keeps 32 lanes in order. There is no look-up of words, but one of 16 bytes:
// the tables of small alphabets are byte planes, in pieces of 16, of which a lane's own comes out of a chain of XORs.
#include <immintrin.h>

#include "entropy/rans_kernels.h"

namespace tersor::entropy::avx2 {

#define TERSOR_INLINE static __attribute__((always_inline)) inline
#define TERSOR_EACH _Pragma("GCC unroll 8") for (int j = 0; j < kStep; ++j)
#define TERSOR_HALVES _Pragma("GCC unroll 2") for (int h = 0; h < 2; ++h)

TERSOR_INLINE __m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
TERSOR_INLINE __m256i load(const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); }
TERSOR_INLINE void store(void* at, __m256i value) { _mm256_store_si256(static_cast<__m256i*>(at), value); }

// The words below `words` for the lanes whose bit of `take` is 1; moves down by as many.
TERSOR_INLINE void expand(const uint8_t*& words, uint32_t take, __m256i word[2]) {
  // No PDEP here: Zen 1 and 2 take it apart bit by bit.
  const auto controls = reinterpret_cast<const uint8_t*>(kLaneControls.expand);
  const uint8_t* const end = words;
  const auto begin = [&](uint64_t of) {  // popcnt; into its own source, since elsewhere it waits for the target
    asm("popcnt %0, %0" : "+r"(of));
    return end - 2 * of;
  };
  words = begin(take);
  __m256i from[2], control[2];
  from[0] = _mm256_castsi128_si256(load128(words));
  control[0] = _mm256_castsi128_si256(load128(controls + (take << 4 & 0xff0)));
  from[1] = _mm256_castsi128_si256(load128(begin(take >> 8)));
  control[1] = _mm256_castsi128_si256(load128(controls + (take >> 4 & 0xff0)));
  from[0] = _mm256_inserti128_si256(from[0], load128(begin(take >> 16)), 1);
  control[0] = _mm256_inserti128_si256(control[0], load128(controls + (take >> 12 & 0xff0)), 1);
  from[1] = _mm256_inserti128_si256(from[1], load128(begin(take >> 24)), 1);
  control[1] = _mm256_inserti128_si256(control[1], load128(controls + (take >> 20 & 0xff0)), 1);
  TERSOR_HALVES word[h] = _mm256_shuffle_epi8(from[h], control[h]);
}

// 16 * kPieces bytes of table. A shuffle whose index has bit 7 set gives 0, so a piece is XORed to all before it
// where the index, less what lies before that piece, is not negative: the pieces hold differences.
template <int kPieces>
struct Plane {
  alignas(32) uint8_t piece[kPieces][16];
  template <int kStep>
  __attribute__((always_inline)) void look_up(const __m256i (&index)[kPieces][kStep], __m256i* out) const {
#pragma GCC unroll 4
    for (int p = 0; p < kPieces; ++p) {
      const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(piece[p])));
      TERSOR_EACH {
        const __m256i here = _mm256_shuffle_epi8(table, index[p][j]);
        out[j] = p == 0 ? here : _mm256_xor_si256(out[j], here);
      }
    }
  }
};

template <int kPieces, int kStep>
TERSOR_INLINE void index_pieces(__m256i (&index)[kPieces][kStep]) {  // index[0] is given
#pragma GCC unroll 4
  for (int p = 1; p < kPieces; ++p)
    TERSOR_EACH index[p][j] = _mm256_sub_epi8(index[0][j], _mm256_set1_epi8(char(16 * p)));
}

template <int kPieces>
TERSOR_INLINE void cut_words(const uint16_t* words, Plane<kPieces>& low, Plane<kPieces>& high) {
  const __m256i low_byte = _mm256_set1_epi16(255);
  __m128i low_before = _mm_setzero_si128(), high_before = low_before;
  for (int p = 0; p < kPieces; ++p) {
    const __m256i some = load(words + 16 * p);
    const auto bytes_of = [](__m256i of) {
      return _mm_packus_epi16(_mm256_castsi256_si128(of), _mm256_extracti128_si256(of, 1));
    };
    const __m128i low_here = bytes_of(_mm256_and_si256(some, low_byte));
    const __m128i high_here = bytes_of(_mm256_srli_epi16(some, 8));
    _mm_store_si128(reinterpret_cast<__m128i*>(low.piece[p]), _mm_xor_si128(low_here, low_before));
    _mm_store_si128(reinterpret_cast<__m128i*>(high.piece[p]), _mm_xor_si128(high_here, high_before));
    low_before = low_here, high_before = high_here;
  }
}

// Two planes of words for both halves of kStep groups.
template <int kPieces, int kStep>
TERSOR_INLINE void look_up_words(const Plane<kPieces>& low, const Plane<kPieces>& high,
                                 const __m256i (&index)[kPieces][kStep], __m256i (&out)[2][kStep]) {
  __m256i low_byte[kStep], high_byte[kStep];
  low.look_up(index, low_byte);
  high.look_up(index, high_byte);
  TERSOR_EACH {
    out[0][j] = _mm256_unpacklo_epi8(low_byte[j], high_byte[j]);
    out[1][j] = _mm256_unpackhi_epi8(low_byte[j], high_byte[j]);
  }
}

// What a table's names stand for, see rans_decode_zmm.h.
struct Consecutive {
  __m256i base;
  explicit Consecutive(const DecodeTables& t) : base(_mm256_set1_epi8(char(t.base))) {}
  __attribute__((always_inline)) __m256i operator()(__m256i names) const { return _mm256_add_epi8(names, base); }
};
struct SymbolOfName {
  __m256i low, difference;
  explicit SymbolOfName(const DecodeTables& t) {
    const __m128i first = load128(t.symbol_of), second = load128(t.symbol_of + 16);
    low = _mm256_broadcastsi128_si256(first);
    difference = _mm256_broadcastsi128_si256(_mm_xor_si128(first, second));
  }
  __attribute__((always_inline)) __m256i operator()(__m256i names) const {
    return _mm256_xor_si256(_mm256_shuffle_epi8(low, names),
                            _mm256_shuffle_epi8(difference, _mm256_sub_epi8(names, _mm256_set1_epi8(16))));
  }
};

template <class Rename>
struct Alias32 {
  static constexpr int kMostStep = 2;
  Rename rename;
  Plane<2> own[2], alias, offset[2], frequency[2];
  explicit Alias32(const DecodeTables& t) : rename(t) {
    Plane<2> none;
    cut_words(t.own, own[0], own[1]);
    cut_words(t.alias, alias, none);
    cut_words(t.offset, offset[0], offset[1]);
    cut_words(t.frequency, frequency[0], frequency[1]);
  }
  template <int kStep>
  __attribute__((always_inline)) void resolve(const __m256i (&low)[2][kStep], const uint16_t*, __m256i* symbol,
                                              __m256i (&f)[2][kStep], __m256i (&rank)[2][kStep]) const {
    const __m256i low11 = _mm256_set1_epi16(2047);
    __m256i bucket[2][kStep], until[2][kStep], shift[2][kStep], other[kStep], own_side[kStep], at[2][kStep];
    TERSOR_EACH bucket[0][j] = _mm256_packus_epi16(_mm256_srli_epi16(low[0][j], 11), _mm256_srli_epi16(low[1][j], 11));
    index_pieces(bucket);
    look_up_words(own[0], own[1], bucket, until);
    look_up_words(offset[0], offset[1], bucket, shift);
    alias.look_up(bucket, other);
    TERSOR_EACH {
      TERSOR_HALVES {
        rank[h][j] = _mm256_and_si256(low[h][j], low11);
        until[h][j] = _mm256_cmpgt_epi16(until[h][j], rank[h][j]);
        rank[h][j] = _mm256_add_epi16(rank[h][j], _mm256_andnot_si256(until[h][j], shift[h][j]));
      }
      own_side[j] = _mm256_packs_epi16(until[0][j], until[1][j]);
      symbol[j] = at[0][j] = _mm256_blendv_epi8(other[j], bucket[0][j], own_side[j]);
    }
    index_pieces(at);
    look_up_words(frequency[0], frequency[1], at, f);
  }
};

struct Contiguous {
  static constexpr int kMostStep = 2;
  Consecutive rename;
  Plane<4> bucket[2];
  Plane<2> start[2], frequency[2];
  explicit Contiguous(const DecodeTables& t) : rename(t) {
    cut_words(t.bucket, bucket[0], bucket[1]);
    cut_words(t.start, start[0], start[1]);
    cut_words(t.frequency, frequency[0], frequency[1]);
  }
  template <int kStep>
  __attribute__((always_inline)) void resolve(const __m256i (&low)[2][kStep], const uint16_t*, __m256i* symbol,
                                              __m256i (&f)[2][kStep], __m256i (&rank)[2][kStep]) const {
    const __m256i low5 = _mm256_set1_epi16(31), low15 = _mm256_set1_epi16(0x7fff), byte5 = _mm256_set1_epi8(31);
    __m256i at[4][kStep], low_byte[kStep], high_byte[kStep], name[2][kStep], from[2][kStep];
    TERSOR_EACH at[0][j] = _mm256_packus_epi16(_mm256_srli_epi16(low[0][j], 10), _mm256_srli_epi16(low[1][j], 10));
    index_pieces(at);
    bucket[0].look_up(at, low_byte);
    bucket[1].look_up(at, high_byte);
    TERSOR_EACH {
      // rest >= threshold; the five low bits of packed hold the symbol, so the left side fills its own with ones
      __m256i next[2];
      TERSOR_HALVES {
        const __m256i packed =
            h ? _mm256_unpackhi_epi8(low_byte[j], high_byte[j]) : _mm256_unpacklo_epi8(low_byte[j], high_byte[j]);
        const __m256i rest = _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16(low[h][j], 5), low15), low5);
        next[h] = _mm256_cmpeq_epi16(_mm256_max_epu16(rest, packed), rest);
      }
      name[0][j] = _mm256_sub_epi8(_mm256_and_si256(low_byte[j], byte5), _mm256_packs_epi16(next[0], next[1]));
      symbol[j] = name[0][j];
    }
    index_pieces(name);
    look_up_words(start[0], start[1], name, from);
    look_up_words(frequency[0], frequency[1], name, f);
    TERSOR_EACH TERSOR_HALVES rank[h][j] = _mm256_sub_epi16(low[h][j], from[h][j]);
  }
};

// The large alphabet: one load of 64 bits a lane finds all that its bucket says. A gather would take as many for four
// lanes, and where microcode guards against gather data sampling it is no faster than four loads. The states were
// stored a row ago, so their bytes are there before the chain of the set before has ended.
struct Alias256 {
  static constexpr int kMostStep = 1;
  const uint64_t* entry;
  Consecutive rename;
  explicit Alias256(const DecodeTables& t) : entry(t.entry256), rename(t) {}

  // What the buckets of lanes i, i + 4, i + 8 and i + 12 of 16 say, in the order that three steps of unpacking want.
  __attribute__((always_inline)) __m256i entries(const uint8_t* bucket, int i) const {
    const auto two = [&](int lane) {
      const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(entry + bucket[2 * lane]));
      return _mm_castps_si128(
          _mm_loadh_pi(_mm_castsi128_ps(first), reinterpret_cast<const __m64*>(entry + bucket[2 * lane + 8])));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(two(i)), two(i + 8), 1);
  }
  template <int kStep>
  __attribute__((always_inline)) void resolve(const __m256i (&low)[2][kStep], const uint16_t* low_at, __m256i* symbol,
                                              __m256i (&f)[2][kStep], __m256i (&rank)[2][kStep]) const {
    static_assert(kStep == 1);
    const __m256i byte = _mm256_set1_epi16(255);
    __m256i name[2];
    TERSOR_HALVES {
      const auto* const bucket = reinterpret_cast<const uint8_t*>(low_at + 16 * h) + 1;
      const __m256i e0 = entries(bucket, 0), e1 = entries(bucket, 1), e2 = entries(bucket, 2), e3 = entries(bucket, 3);
      const __m256i low01 = _mm256_unpacklo_epi16(e0, e1), high01 = _mm256_unpackhi_epi16(e0, e1);
      const __m256i low23 = _mm256_unpacklo_epi16(e2, e3), high23 = _mm256_unpackhi_epi16(e2, e3);
      const __m256i first = _mm256_unpacklo_epi32(low01, low23), third = _mm256_unpackhi_epi32(low01, low23);
      const __m256i second = _mm256_unpacklo_epi32(high01, high23), fourth = _mm256_unpackhi_epi32(high01, high23);
      const __m256i own_alias = _mm256_unpacklo_epi64(first, second), offset = _mm256_unpackhi_epi64(first, second);
      const __m256i f_own = _mm256_unpacklo_epi64(third, fourth), f_alias = _mm256_unpackhi_epi64(third, fourth);
      // rest >= own, in the upper byte; the alias below it must not decide
      const __m256i rest = _mm256_or_si256(_mm256_slli_epi16(low[h][0], 8), byte);
      const __m256i beyond = _mm256_cmpeq_epi16(_mm256_max_epu16(rest, own_alias), rest);
      rank[h][0] = _mm256_add_epi16(_mm256_and_si256(low[h][0], byte), _mm256_and_si256(offset, beyond));
      f[h][0] = _mm256_blendv_epi8(f_own, f_alias, beyond);
      name[h] = _mm256_blendv_epi8(_mm256_srli_epi16(low[h][0], 8), _mm256_and_si256(own_alias, byte), beyond);
    }
    symbol[0] = _mm256_packus_epi16(name[0], name[1]);
  }
};

TERSOR_INLINE void exchange_middle(const uint16_t* from, uint16_t* to) {  // of four times eight lanes
  const __m128i a = load128(from), b = load128(from + 8), c = load128(from + 16), d = load128(from + 24);
  store(to, _mm256_inserti128_si256(_mm256_castsi128_si256(a), c, 1));
  store(to + 16, _mm256_inserti128_si256(_mm256_castsi128_si256(b), d, 1));
}

template <class Tables, int kGroups>
__attribute__((noinline)) bool decode(const DecodeTables& tables, DecodeStates& states, const uint8_t* floor,
                                      size_t rows, uint8_t* out) {
  constexpr int kStep = kGroups < Tables::kMostStep ? kGroups : Tables::kMostStep;
  const Tables t(tables);
  const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi16(1);
  DecodeStates local;  // the compiler need not fear that `out` overlaps it
  for (int g = 0; g < kGroups; ++g) {
    exchange_middle(states.low + kGroupLanes * g, local.low + kGroupLanes * g);
    exchange_middle(states.high + kGroupLanes * g, local.high + kGroupLanes * g);
    local.words[g] = states.words[g];
  }
  for (size_t row = 0; row < rows; ++row) {
#pragma GCC unroll 1
    for (int set = 0; set < kGroups; set += kStep, out += kGroupLanes * kStep) {
      // The lines to be written are fetched early: a cold target would cost as much as the decoding.
      _mm_prefetch(reinterpret_cast<const char*>(out + 2048), _MM_HINT_T0);
      uint16_t* const low_at = local.low + kGroupLanes * set;
      uint16_t* const high_at = local.high + kGroupLanes * set;
      __m256i low[2][kStep], high[2][kStep], symbol[kStep], f[2][kStep], rank[2][kStep], word[2];
      TERSOR_EACH TERSOR_HALVES low[h][j] = load(low_at + kGroupLanes * j + 16 * h);
      t.resolve(low, low_at, symbol, f, rank);
      // x' = f * high + rank in 32 bits, carried by hand between the halves
      TERSOR_EACH TERSOR_HALVES {
        const __m256i before = load(high_at + kGroupLanes * j + 16 * h);
        low[h][j] = _mm256_add_epi16(_mm256_mullo_epi16(f[h][j], before), rank[h][j]);
        const __m256i no_carry = _mm256_cmpeq_epi16(_mm256_max_epu16(low[h][j], rank[h][j]), low[h][j]);
        high[h][j] = _mm256_add_epi16(_mm256_add_epi16(_mm256_mulhi_epu16(f[h][j], before), one), no_carry);
      }
      TERSOR_EACH _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kGroupLanes * j), t.rename(symbol[j]));
      TERSOR_EACH {
        __m256i take[2];
        TERSOR_HALVES take[h] = _mm256_cmpeq_epi16(high[h][j], zero);
        expand(local.words[set + j], uint32_t(_mm256_movemask_epi8(_mm256_packs_epi16(take[0], take[1]))), word);
        TERSOR_HALVES {
          store(high_at + kGroupLanes * j + 16 * h, _mm256_or_si256(high[h][j], _mm256_and_si256(low[h][j], take[h])));
          store(low_at + kGroupLanes * j + 16 * h, _mm256_blendv_epi8(low[h][j], word[h], take[h]));
        }
      }
    }
    // A row reads at most 64 bytes a group, and 64 * groups bytes below floor are ours.
    if (row % kGroups == kGroups - 1)
      for (int g = 0; g < kGroups; ++g)
        if (local.words[g] < floor) return false;
  }
  for (int g = 0; g < kGroups; ++g) {
    exchange_middle(local.low + kGroupLanes * g, states.low + kGroupLanes * g);
    exchange_middle(local.high + kGroupLanes * g, states.high + kGroupLanes * g);
    states.words[g] = local.words[g];
    if (local.words[g] < floor) return false;
  }
  return true;
}

}  // namespace tersor::entropy::avx2

#include "entropy/rans_encode_ymm.h"

#define TERSOR_LEVEL avx2
#include "entropy/rans_layouts.h"

namespace tersor::entropy {

bool decode_rows_avx2(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
                      uint8_t* out) noexcept {
  return avx2::decode_layouts(tables, states, groups, floor, rows, out);
}

void encode_rows_avx2(const EncodeTables& tables, EncodeStates& states, int groups, size_t rows,
                      const uint8_t* symbols) noexcept {
  using namespace avx2;
  switch (tables.layout) {
    case Layout::alias32: return encode_by_width<Planes, true>(tables, states, groups, rows, symbols);
    case Layout::alias256: return encode_by_width<Entries, true>(tables, states, groups, rows, symbols);
    case Layout::contiguous: return encode_by_width<Planes, false>(tables, states, groups, rows, symbols);
  }
}

}  // namespace tersor::entropy
