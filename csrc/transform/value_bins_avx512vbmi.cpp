// Values from names and places, and sums along strides, a register at a time. References: value_bins_scalar.cpp.
#include <immintrin.h>

#include "transform/value_bins.h"

namespace tersor::transform {
namespace avx512vbmi {

// ---- sums along a stride
// ----------------------------------------------------------------------------------------------

template <class U>
struct Lanes;
template <>
struct Lanes<uint8_t> {
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
  static __m512i pick(uint64_t mask, __m512i from, __m512i a) { return _mm512_maskz_permutexvar_epi8(mask, from, a); }
};
template <>
struct Lanes<uint16_t> {
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
  static __m512i pick(uint64_t mask, __m512i from, __m512i a) {
    return _mm512_maskz_permutexvar_epi16(__mmask32(mask), from, a);
  }
};
template <>
struct Lanes<uint32_t> {
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
  static __m512i pick(uint64_t mask, __m512i from, __m512i a) {
    return _mm512_maskz_permutexvar_epi32(__mmask16(mask), from, a);
  }
};
template <>
struct Lanes<uint64_t> {
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi64(a, b); }
  static __m512i pick(uint64_t mask, __m512i from, __m512i a) {
    return _mm512_maskz_permutexvar_epi64(__mmask8(mask), from, a);
  }
};

template <class U>
static void add_stride(U* values, size_t begin, size_t end, size_t stride) noexcept {
  constexpr size_t kLanes = 64 / sizeof(U);
  using L = Lanes<U>;
  size_t i = begin > stride ? begin : stride;
  if (stride >= kLanes) {  // a register does not depend on itself
    for (; i + kLanes <= end; i += kLanes)
      _mm512_storeu_si512(values + i, L::add(_mm512_loadu_si512(values + i), _mm512_loadu_si512(values + i - stride)));
  } else if (i + kLanes <= end) {
    // Sums inside of a register in steps that double; then what lies a stride before its first lanes, in all of them.
    __m512i from[6];
    uint64_t mask[6];
    int steps = 0;
    for (size_t shift = stride; shift < kLanes; shift *= 2, ++steps) {
      alignas(64) U lane[kLanes];
      mask[steps] = 0;
      for (size_t k = 0; k < kLanes; ++k) {
        lane[k] = U(k - shift);
        mask[steps] |= uint64_t(k >= shift) << k;
      }
      from[steps] = _mm512_load_si512(lane);
    }
    alignas(64) U last[kLanes];
    for (size_t k = 0; k < kLanes; ++k) last[k] = U(kLanes - stride + k % stride);
    const __m512i ends = _mm512_load_si512(last);
    alignas(64) U before[kLanes] = {};
    for (size_t k = 0; k < stride; ++k) before[kLanes - stride + k] = values[i - stride + k];
    __m512i sums = _mm512_load_si512(before);
    for (; i + kLanes <= end; i += kLanes) {
      __m512i own = _mm512_loadu_si512(values + i);
      for (int step = 0; step < steps; ++step) own = L::add(own, L::pick(mask[step], from[step], own));
      sums = L::add(own, L::pick(~uint64_t(0), ends, sums));
      _mm512_storeu_si512(values + i, sums);
    }
  }
  for (; i < end; ++i) values[i] = U(values[i] + values[i - stride]);
}

// ---- values from names and places
// -------------------------------------------------------------------------------------

// Beginnings of bins in registers: up to kMost, of which few take half the look-ups.
template <class U, bool kMany>
struct Beginnings {
  static constexpr size_t kMost = (sizeof(U) == 8 ? 32 : 64) << kMany, kParts = kMost * sizeof(U) / 64;
  __m512i part[kParts];
  explicit Beginnings(const U* first) {
    for (size_t i = 0; i < kParts; ++i) part[i] = _mm512_loadu_si512(first + i * 64 / sizeof(U));
  }
  __m512i of(__m512i names) const {
    if constexpr (sizeof(U) == 2) {
      const __m512i low = _mm512_permutex2var_epi16(part[0], names, part[1]);
      if constexpr (!kMany) return low;
      const __mmask32 above = _mm512_test_epi16_mask(names, _mm512_set1_epi16(64));
      return _mm512_mask_mov_epi16(low, above, _mm512_permutex2var_epi16(part[kParts - 2], names, part[kParts - 1]));
    } else if constexpr (sizeof(U) == 4) {
      const __mmask16 odd = _mm512_test_epi32_mask(names, _mm512_set1_epi32(32));
      const auto half = [&](const __m512i* at) __attribute__((always_inline)) {
        return _mm512_mask_mov_epi32(_mm512_permutex2var_epi32(at[0], names, at[1]), odd,
                                     _mm512_permutex2var_epi32(at[2], names, at[3]));
      };
      if constexpr (!kMany) return half(part);
      return _mm512_mask_mov_epi32(half(part), _mm512_test_epi32_mask(names, _mm512_set1_epi32(64)),
                                   half(part + kParts - 4));
    } else {
      const __mmask8 odd = _mm512_test_epi64_mask(names, _mm512_set1_epi64(16));
      const auto half = [&](const __m512i* at) __attribute__((always_inline)) {
        return _mm512_mask_mov_epi64(_mm512_permutex2var_epi64(at[0], names, at[1]), odd,
                                     _mm512_permutex2var_epi64(at[2], names, at[3]));
      };
      if constexpr (!kMany) return half(part);
      return _mm512_mask_mov_epi64(half(part), _mm512_test_epi64_mask(names, _mm512_set1_epi64(32)),
                                   half(part + kParts - 4));
    }
  }
};

// Places of eight values from 64 bytes in which they lie: bit offsets and widths in lanes of 64 bits. Widths <= 56.
static inline __m512i places64(__m512i bytes, __m512i offsets, __m512i widths) {
  const __m512i spread = _mm512_set_epi64(0x0808080808080808, 0x0000000000000000, 0x0808080808080808, 0,
                                          0x0808080808080808, 0, 0x0808080808080808, 0);
  const __m512i each = _mm512_set1_epi64(0x0706050403020100);
  const __m512i from = _mm512_add_epi8(_mm512_shuffle_epi8(_mm512_srli_epi64(offsets, 3), spread), each);
  const __m512i word =
      _mm512_srlv_epi64(_mm512_permutexvar_epi8(from, bytes), _mm512_and_si512(offsets, _mm512_set1_epi64(7)));
  return _mm512_andnot_si512(_mm512_sllv_epi64(_mm512_set1_epi64(-1), widths), word);
}

// The same of sixteen, in lanes of 32 bits. Widths <= 25.
static inline __m512i places32(__m512i bytes, __m512i offsets, __m512i widths) {
  const __m512i spread = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  const __m512i each = _mm512_set1_epi32(0x03020100);
  const __m512i from = _mm512_add_epi8(_mm512_shuffle_epi8(_mm512_srli_epi32(offsets, 3), spread), each);
  const __m512i word =
      _mm512_srlv_epi32(_mm512_permutexvar_epi8(from, bytes), _mm512_and_si512(offsets, _mm512_set1_epi32(7)));
  return _mm512_andnot_si512(_mm512_sllv_epi32(_mm512_set1_epi32(-1), widths), word);
}

// 64 names at a time: widths, and their sums before each of eight, wait in memory for the loads that widen them.
struct Block {
  alignas(64) uint8_t width[64];
  alignas(64) uint8_t before[64];
};
static inline void begin(const uint8_t* names, __m512i low_bits, __m512i high_bits, Block& block) {
  const __m512i widths = _mm512_permutex2var_epi8(low_bits, _mm512_loadu_si512(names), high_bits);
  _mm512_store_si512(block.width, widths);
  // Sums of up to seven widths of up to 36 bits stay below 256, so no product carries into the next byte.
  _mm512_store_si512(block.before, _mm512_mullo_epi64(widths, _mm512_set1_epi64(0x0101010101010100)));
}

// Bits behind the first that blocks are read from, and the window of the last load.
constexpr size_t kBlockBits = 64 * 36, kWindowBits = 512 + 8;
struct Source {
  const uint8_t* bytes;
  size_t bits;      // that hold places
  size_t readable;  // and those that loads may touch
};

// Blocks of 64 values as long as all of their places are there. widest: of all bins, at most 36.
template <class U, bool kMany>
static size_t take_blocks(const ValueBins<U>& bins, unsigned widest, const uint8_t* names, size_t count, Source source,
                          size_t& bit, U* values) noexcept {
  const __m512i low_bits = _mm512_loadu_si512(bins.bits), high_bits = _mm512_loadu_si512(bins.bits + 64);
  const Beginnings<U, kMany> beginnings(bins.first);
  size_t at = bit, done = 0;
  Block block;
  for (; done + 64 <= count && at + 64 * widest + kWindowBits <= source.readable; done += 64) {
    begin(names + done, low_bits, high_bits, block);
    if constexpr (sizeof(U) < 8)
      if (widest <= 25) {
        for (size_t i = 0; i < 64; i += 16) {
          const __m512i word = _mm512_loadu_si512(source.bytes + at / 8);
          const int half = block.before[i + 7] + block.width[i + 7];
          const __m512i offsets =
              _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(block.before + i))),
                               _mm512_mask_set1_epi32(_mm512_set1_epi32(int(at % 8)), 0xff00, int(at % 8) + half));
          const __m512i widths =
              _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(block.width + i)));
          const __m128i name = _mm_loadu_si128(reinterpret_cast<const __m128i*>(names + done + i));
          const __m512i place = places32(word, offsets, widths);
          if constexpr (sizeof(U) == 4) {
            _mm512_storeu_si512(values + done + i, _mm512_add_epi32(place, beginnings.of(_mm512_cvtepu8_epi32(name))));
          } else {
            const __m512i first = beginnings.of(_mm512_castsi256_si512(_mm256_cvtepu8_epi16(name)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + done + i),
                                _mm256_add_epi16(_mm512_cvtepi32_epi16(place), _mm512_castsi512_si256(first)));
          }
          at += size_t(half) + block.before[i + 15] + block.width[i + 15];
        }
      }
    if constexpr (sizeof(U) > 2)
      if (sizeof(U) == 8 || widest > 25)
        for (size_t i = 0; i < 64; i += 8) {
          const __m512i word = _mm512_loadu_si512(source.bytes + at / 8);
          const __m512i offsets = _mm512_add_epi64(
              _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.before + i))),
              _mm512_set1_epi64((long long)(at % 8)));
          const __m512i widths =
              _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.width + i)));
          const __m128i name = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(names + done + i));
          const __m512i place = places64(word, offsets, widths);
          if constexpr (sizeof(U) == 8) {
            _mm512_storeu_si512(values + done + i, _mm512_add_epi64(place, beginnings.of(_mm512_cvtepu8_epi64(name))));
          } else {
            const __m512i first = beginnings.of(_mm512_castsi256_si512(_mm256_cvtepu8_epi32(name)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + done + i),
                                _mm256_add_epi32(_mm512_cvtepi64_epi32(place), _mm512_castsi512_si256(first)));
          }
          at += size_t(block.before[i + 7]) + block.width[i + 7];
        }
    if (at > source.bits) break;  // the block's places are not all there: bit stays before it
    bit = at;
  }
  return done;
}

template <class U, bool kMany>
static size_t take(const ValueBins<U>& bins, unsigned widest, const uint8_t* names, size_t count, const uint8_t* bytes,
                   size_t bits, size_t& bit, U* values) noexcept {
  size_t done = take_blocks<U, kMany>(bins, widest, names, count, {bytes, bits, bits}, bit, values);
  // The last ones from a copy, behind which loads may go on: few bits may hold many values.
  uint8_t last[(2 * kBlockBits + 2 * kWindowBits) / 8];
  const size_t left = (bits + 7) / 8 - bit / 8;
  if (count - done < 64 || left > (kBlockBits + kWindowBits) / 8) return done;
  size_t i = 0;
  for (; i < left; ++i) last[i] = bytes[bit / 8 + i];
  for (; i < sizeof last; ++i) last[i] = 0;
  size_t at = bit % 8;
  done += take_blocks<U, kMany>(bins, widest, names + done, count - done, {last, left * 8, sizeof last * 8}, at,
                                values + done);
  bit = bit / 8 * 8 + at;
  return done;
}

// What is left, and what registers do not hold, goes the way of AVX2.
template <class U>
static size_t take_all(const ValueBins<U>& bins, const uint8_t* names, size_t count, const uint8_t* bytes, size_t last,
                       size_t& bit, U* values) noexcept {
  unsigned widest = 0;
  for (size_t i = 0; i < bins.count; ++i) widest = widest > bins.bits[i] ? widest : bins.bits[i];
  const size_t bits = last + kEightsSpare<U>;
  size_t done = 0;
  if (widest <= 36) {
    if (bins.count <= Beginnings<U, false>::kMost)
      done = take<U, false>(bins, widest, names, count, bytes, bits, bit, values);
    else if (bins.count <= Beginnings<U, true>::kMost)
      done = take<U, true>(bins, widest, names, count, bytes, bits, bit, values);
  }
  return done + take_eights_avx2(bins, names + done, count - done, bytes, last, bit, values + done);
}

}  // namespace avx512vbmi

#define TERSOR_FOR(U)                                                                       \
  void add_stride_avx512vbmi(U* values, size_t begin, size_t end, size_t stride) noexcept { \
    avx512vbmi::add_stride(values, begin, end, stride);                                     \
  }
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)
#undef TERSOR_FOR

#define TERSOR_FOR(U)                                                                                               \
  size_t take_eights_avx512vbmi(const ValueBins<U>& bins, const uint8_t* names, size_t count, const uint8_t* bytes, \
                                size_t last, size_t& bit, U* values) noexcept {                                     \
    return avx512vbmi::take_all(bins, names, count, bytes, last, bit, values);                                      \
  }
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
