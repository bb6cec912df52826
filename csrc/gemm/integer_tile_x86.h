// Tiles of 8-bit integers for the levels that have no VPERMB: vectors of 256 or 512 bits, products by VPDPBUSD or,
// where the machine has none, by VPMADDUBSW. Included by one file a level: everything here is local to it. Codes of 4
// and 8 bits are read as they lie, all others from a panel.
//
// VPMADDUBSW adds two products in 16 bits. Those of 4-bit codes fit eight times: 8 * 2 * 15 * 127 < 2^15. Bytes are
// taken less 128, and their sign goes to the activation, which is never -128: 2 * 128 * 127 < 2^15.
#pragma once
#include <immintrin.h>

#include "gemm/kernels.h"

#define TERSOR_INLINE __attribute__((always_inline)) inline

namespace tersor::gemm {
namespace {

// A level's vectors, which have: kBytes, kRegisters, Integers, Floats, Sign, and what is done with them.
#if defined(__AVX512BW__)
struct Vector {
  using Integers = __m512i;
  using Floats = __m512;
  using Sign = __mmask64;
  static constexpr int kBytes = 64, kRegisters = 32;

  static TERSOR_INLINE Integers load(const uint8_t* at) { return _mm512_loadu_si512(at); }
  static TERSOR_INLINE void store(uint8_t* at, Integers v) { _mm512_storeu_si512(at, v); }
  static TERSOR_INLINE Floats load(const float* at) { return _mm512_loadu_ps(at); }
  static TERSOR_INLINE void store(float* at, Floats v) { _mm512_storeu_ps(at, v); }
  static TERSOR_INLINE Integers zeros() { return _mm512_setzero_si512(); }
  static TERSOR_INLINE Integers bytes(int value) { return _mm512_set1_epi8(char(value)); }
  static TERSOR_INLINE Integers words(int value) { return _mm512_set1_epi16(short(value)); }
  static TERSOR_INLINE Integers all(int value) { return _mm512_set1_epi32(value); }
  static TERSOR_INLINE Floats all(float value) { return _mm512_set1_ps(value); }
  static TERSOR_INLINE Integers sixteen(const uint8_t* at) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static TERSOR_INLINE Integers both(Integers a, Integers b) { return _mm512_and_si512(a, b); }
  static TERSOR_INLINE Integers either(Integers a, Integers b) { return _mm512_or_si512(a, b); }
  static TERSOR_INLINE Integers differing(Integers a, Integers b) { return _mm512_xor_si512(a, b); }
  template <int kRight>
  static TERSOR_INLINE Integers shifted(Integers v) {
    if constexpr (kRight > 0) return _mm512_srli_epi16(v, kRight);
    if constexpr (kRight < 0) return _mm512_slli_epi16(v, -kRight);
    return v;
  }
  static TERSOR_INLINE Integers shuffle(Integers table, Integers v) { return _mm512_shuffle_epi8(table, v); }
  static TERSOR_INLINE Integers plus_up_to_255(Integers a, Integers b) { return _mm512_adds_epu8(a, b); }
  static TERSOR_INLINE Integers plus(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
  static TERSOR_INLINE Integers less(Integers a, Integers b) { return _mm512_sub_epi8(a, b); }
  static TERSOR_INLINE Integers size(Integers s8) { return _mm512_abs_epi8(s8); }
  static TERSOR_INLINE Sign sign(Integers s8) { return _mm512_movepi8_mask(s8); }
  static TERSOR_INLINE Floats floats(Integers v) { return _mm512_cvtepi32_ps(v); }
  static TERSOR_INLINE Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static TERSOR_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static TERSOR_INLINE Floats fused_less(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
  static TERSOR_INLINE Integers of_bytes(const uint8_t* at) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static TERSOR_INLINE Floats numbers(PackedScale kind, const uint8_t* group, int row) {
    switch (kind) {
      case PackedScale::f16:
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + 2 * row)));
      case PackedScale::bf16:
        return _mm512_castsi512_ps(_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + 2 * row))), 16));
      case PackedScale::e8m0:  // 2^-127 is no normal number
        return _mm512_castsi512_ps(
            _mm512_max_epu32(_mm512_slli_epi32(of_bytes(group + row), 23), _mm512_set1_epi32(0x00400000)));
      default: return _mm512_loadu_ps(group + 4 * row);
    }
  }
};
#else
struct Vector {
  using Integers = __m256i;
  using Floats = __m256;
  using Sign = __m256i;
  static constexpr int kBytes = 32, kRegisters = 16;

  static TERSOR_INLINE Integers load(const uint8_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  }
  static TERSOR_INLINE void store(uint8_t* at, Integers v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), v); }
  static TERSOR_INLINE Floats load(const float* at) { return _mm256_loadu_ps(at); }
  static TERSOR_INLINE void store(float* at, Floats v) { _mm256_storeu_ps(at, v); }
  static TERSOR_INLINE Integers zeros() { return _mm256_setzero_si256(); }
  static TERSOR_INLINE Integers bytes(int value) { return _mm256_set1_epi8(char(value)); }
  static TERSOR_INLINE Integers words(int value) { return _mm256_set1_epi16(short(value)); }
  static TERSOR_INLINE Integers all(int value) { return _mm256_set1_epi32(value); }
  static TERSOR_INLINE Floats all(float value) { return _mm256_set1_ps(value); }
  static TERSOR_INLINE Integers sixteen(const uint8_t* at) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static TERSOR_INLINE Integers both(Integers a, Integers b) { return _mm256_and_si256(a, b); }
  static TERSOR_INLINE Integers either(Integers a, Integers b) { return _mm256_or_si256(a, b); }
  static TERSOR_INLINE Integers differing(Integers a, Integers b) { return _mm256_xor_si256(a, b); }
  template <int kRight>
  static TERSOR_INLINE Integers shifted(Integers v) {
    if constexpr (kRight > 0) return _mm256_srli_epi16(v, kRight);
    if constexpr (kRight < 0) return _mm256_slli_epi16(v, -kRight);
    return v;
  }
  static TERSOR_INLINE Integers shuffle(Integers table, Integers v) { return _mm256_shuffle_epi8(table, v); }
  static TERSOR_INLINE Integers plus_up_to_255(Integers a, Integers b) { return _mm256_adds_epu8(a, b); }
  static TERSOR_INLINE Integers plus(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
  static TERSOR_INLINE Integers less(Integers a, Integers b) { return _mm256_sub_epi8(a, b); }
  static TERSOR_INLINE Integers size(Integers s8) { return _mm256_abs_epi8(s8); }
  static TERSOR_INLINE Sign sign(Integers s8) { return s8; }
  static TERSOR_INLINE Floats floats(Integers v) { return _mm256_cvtepi32_ps(v); }
  static TERSOR_INLINE Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static TERSOR_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static TERSOR_INLINE Floats fused_less(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
  static TERSOR_INLINE Integers of_bytes(const uint8_t* at) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
  }
  static TERSOR_INLINE Floats numbers(PackedScale kind, const uint8_t* group, int row) {
    switch (kind) {
      case PackedScale::f16: return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group + 2 * row)));
      case PackedScale::bf16:
        return _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group + 2 * row))), 16));
      case PackedScale::e8m0:  // 2^-127 is no normal number
        return _mm256_castsi256_ps(
            _mm256_max_epu32(_mm256_slli_epi32(of_bytes(group + row), 23), _mm256_set1_epi32(0x00400000)));
      default: return _mm256_loadu_ps(reinterpret_cast<const float*>(group + 4 * row));
    }
  }
};
#endif

using Integers = Vector::Integers;
using Floats = Vector::Floats;
constexpr int kUnitBytes = 4 * int(kTileRows), kVectorRows = Vector::kBytes / 4;
constexpr int kTileVectors = kUnitBytes / Vector::kBytes;

// How products are summed. Written as assembly: gcc 12 copies the destination of VPDPBUSD's intrinsic and moves others
// apart until it has to spill; and the level of the file need not have VPDPBUSD.
struct Pairs {
  static constexpr bool kFours = false;
  static TERSOR_INLINE void first(Integers& pairs, Integers u8, Integers s8) {
    asm("vpmaddubsw %2, %1, %0" : "=v"(pairs) : "v"(u8), "v"(s8));
  }
  static TERSOR_INLINE void next(Integers& pairs, Integers u8, Integers s8) {
    Integers two;
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+v"(pairs), "=&v"(two) : "v"(u8), "v"(s8));
  }
  static TERSOR_INLINE Integers whole(Integers pairs, Integers ones) {
    Integers fours;
    asm("vpmaddwd %2, %1, %0" : "=v"(fours) : "v"(pairs), "v"(ones));
    return fours;
  }
  static TERSOR_INLINE void dot(Integers& sum, Integers size, Vector::Sign sign, Integers s8, Integers ones) {
    Integers two;
#if defined(__AVX512BW__)
    asm("vmovdqa64 %3, %1\n\tvpsubb %3, %5, %1%{%6%}\n\tvpmaddubsw %1, %2, %1\n\tvpmaddwd %4, %1, %1\n\t"
        "vpaddd %1, %0, %0"
        : "+v"(sum), "=&v"(two)
        : "v"(size), "v"(s8), "v"(ones), "v"(Vector::zeros()), "Yk"(sign));
#else
    asm("vpsignb %5, %3, %1\n\tvpmaddubsw %1, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(two)
        : "x"(size), "x"(s8), "x"(ones), "x"(sign));
#endif
  }
};
struct Fours {  // as AVX512-VNNI codes it
  static constexpr bool kFours = true;
  static TERSOR_INLINE void dot(Integers& sum, Integers u8, Integers s8) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
  }
};
struct FoursVex {  // as AVX-VNNI does
  static constexpr bool kFours = true;
  static TERSOR_INLINE void dot(Integers& sum, Integers u8, Integers s8) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u8), "x"(s8));
  }
};

// Bits [kBit, kBit + kBits) of each byte, moved to [kTo, kTo + kBits).
template <int kBits, int kBit, int kTo = 0>
TERSOR_INLINE Integers field(const uint8_t* at) {
  return Vector::both(Vector::shifted<kBit - kTo>(Vector::load(at)), Vector::bytes(((1 << kBits) - 1) << kTo));
}

// Columns 4 kV .. 4 kV + 3 of the step at p, of the rows of a vector: see kernels.h.
template <int kBits, int kV>
TERSOR_INLINE Integers codes(const uint8_t* p) {
  constexpr int kUnit = kUnitBytes;
  if constexpr (kBits == 8) return Vector::load(p + kV * kUnit);
  if constexpr (kBits == 4) return field<4, 4 * (kV % 2)>(p + kV / 2 * kUnit);
  if constexpr (kBits == 2) return field<2, 2 * (kV % 4)>(p + kV / 4 * kUnit);
  if constexpr (kBits == 1) return field<1, kV>(p);
  if constexpr (kBits == 3) return Vector::either(codes<2, kV>(p), field<1, kV, 2>(p + 2 * kUnit));
  if constexpr (kBits == 5) return Vector::either(codes<4, kV>(p), field<1, kV, 4>(p + 4 * kUnit));
  if constexpr (kBits == 6) return Vector::either(codes<4, kV>(p), field<2, 2 * (kV % 4), 4>(p + (4 + kV / 4) * kUnit));
}

// Where a group's numbers stand.
struct Group {
  const uint8_t *scales, *zeros, *minimums;
  size_t number;  // of its sums
  size_t left;    // groups that have this scale
};

// A group's sums, [token][32], of codes less `offset`, into y; zeros are left in their place.
__attribute__((noinline)) void scale_group(const IntegerTile& t, const Group& at, int tokens, int offset, int32_t* sums,
                                           float* y) {
  Floats scale[kTileVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kTileVectors; ++v) scale[v] = Vector::numbers(t.scale_kind, at.scales, v * kVectorRows);
  for (int i = 0; i < tokens; ++i, sums += kTileRows, y += kTileRows) {
    const size_t here = size_t(i) * t.sums_stride + at.number;
    const Integers from = Vector::all((offset - t.center) * t.sums[here]);
    const Floats x_scale = Vector::all(t.x_scales ? t.x_scales[here] : 1.0f);
    const Floats x_sum = Vector::all(float(t.sums[here]));
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      const int row = v * kVectorRows;
      uint8_t* const place = reinterpret_cast<uint8_t*>(sums + row);
      Floats value = Vector::floats(Vector::plus(from, Vector::load(place)));
      Vector::store(place, Vector::zeros());
      if (at.zeros) value = Vector::fused_less(Vector::floats(Vector::of_bytes(at.zeros + row)), x_sum, value);
      Floats sum = Vector::fused(value, Vector::times(scale[v], x_scale), Vector::load(y + row));
      if (at.minimums)
        sum = Vector::fused(Vector::numbers(t.scale_kind, at.minimums, row), Vector::times(x_sum, x_scale), sum);
      Vector::store(y + row, sum);
    }
  }
}

// A group's sums of kTokens tokens, of as many of the tile's rows as registers hold. Two blocks of a group are read one
// after the other: it lies in the nearest cache then.
template <class Product, int kBits, int kTokens>
struct Tile {
  static constexpr bool kInPairs = !Product::kFours && kBits == 4;  // registers hold sums of 16 bits
  static constexpr int kVectors = kTileVectors * kTokens > 8 ? 8 / kTokens : kTileVectors;
  static constexpr int kOffset = Product::kFours || kBits == 4 ? 0 : 128;
  static constexpr int kHalfBytes = 16 / 8 * int(kTileRows) * kBits;  // of 16 columns

  const size_t x_stride;
  Integers sums[kVectors][kTokens];

  template <int kV>
  TERSOR_INLINE Integers four_of(const int8_t* x, int i) const {
    int four;
    __builtin_memcpy(&four, x + size_t(i) * x_stride + 4 * kV, 4);
    return Vector::all(four);
  }
  template <bool kFirst>
  TERSOR_INLINE void multiply(int r, int i, Integers weights, Integers activations) {
    if constexpr (Product::kFours)
      Product::dot(sums[r][i], weights, activations);
    else if constexpr (!kInPairs)
      Product::dot(sums[r][i], Vector::size(weights), Vector::sign(weights), activations, Vector::words(1));
    else if constexpr (kFirst)
      Product::first(sums[r][i], weights, activations);
    else
      Product::next(sums[r][i], weights, activations);
  }
  template <int kV>
  TERSOR_INLINE Integers weights_of(const uint8_t* p, int r) const {
    const Integers v = codes<kBits, kV>(p + r * Vector::kBytes);
    if constexpr (kOffset != 0) return Vector::differing(v, Vector::bytes(kOffset));
    return v;
  }
  template <int kV, bool kFirst>
  TERSOR_INLINE void vector(const uint8_t* p, const int8_t* x) {
    // What is fewer stays in registers.
    if constexpr (kTokens < kVectors) {
      Integers activations[kTokens];
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i) activations[i] = four_of<kV>(x, i);
#pragma GCC unroll 8
      for (int r = 0; r < kVectors; ++r) {
        const Integers weights = weights_of<kV>(p, r);
#pragma GCC unroll 8
        for (int i = 0; i < kTokens; ++i) multiply<kFirst>(r, i, weights, activations[i]);
      }
      // Loads do not pass it: gcc 12 takes the next vector's so early that it runs out of registers.
      asm volatile("" ::: "memory");
    } else {
      Integers weights[kVectors];
#pragma GCC unroll 8
      for (int r = 0; r < kVectors; ++r) weights[r] = weights_of<kV>(p, r);
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i) {
        const Integers activations = four_of<kV>(x, i);
#pragma GCC unroll 8
        for (int r = 0; r < kVectors; ++r) multiply<kFirst>(r, i, weights[r], activations);
      }
    }
  }
  template <bool kFirst>
  TERSOR_INLINE void half(const uint8_t* p, const int8_t* x) {
    vector<0, kFirst>(p, x), vector<1, false>(p, x), vector<2, false>(p, x), vector<3, false>(p, x);
  }
  static TERSOR_INLINE uint8_t* place(int32_t* out, int r, int i) {
    return reinterpret_cast<uint8_t*>(out + i * int(kTileRows) + r * kVectorRows);
  }
  TERSOR_INLINE void widen(int32_t* out) {
    if constexpr (kInPairs)
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i)
#pragma GCC unroll 8
        for (int r = 0; r < kVectors; ++r) {
          uint8_t* const at = place(out, r, i);
          Vector::store(at, Vector::plus(Vector::load(at), Product::whole(sums[r][i], Vector::words(1))));
        }
  }
  // `halves` of a group. out: its sums, [token][32], which were 0.
  TERSOR_INLINE void run(const uint8_t* p, const int8_t* x, size_t halves, int32_t* out) {
    if constexpr (!kInPairs)
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i)
#pragma GCC unroll 8
        for (int r = 0; r < kVectors; ++r) sums[r][i] = Vector::zeros();
    for (; halves >= 2; halves -= 2, p += 2 * kHalfBytes, x += 32) {
      half<true>(p, x), half<false>(p + kHalfBytes, x + 16);
      widen(out);
    }
    if (halves) half<true>(p, x), widen(out);
    if constexpr (!kInPairs)
#pragma GCC unroll 8
      for (int i = 0; i < kTokens; ++i)
#pragma GCC unroll 8
        for (int r = 0; r < kVectors; ++r) Vector::store(place(out, r, i), sums[r][i]);
  }
};

// Apart from what scales its sums, or registers would be saved around that.
template <class Product, int kBits, int kTokens>
__attribute__((noinline)) void sum_group(const uint8_t* p, const int8_t* x, size_t x_stride, size_t halves,
                                         int32_t* out) {
  Tile<Product, kBits, kTokens> here{x_stride, {}};
  here.run(p, x, halves, out);
}

// Of the tile's tokens from `first` on. room: integers [kMostTokens][32].
template <class Product, int kBits, int kTokens>
__attribute__((noinline)) void tile(const IntegerTile& t, size_t first, int32_t* room) {
  const uint8_t* p = t.codes;
  const int8_t* x = t.x + first * t.x_stride;
  float* const y = t.y + first * kTileRows;
  t.load_numbers<0>();
  for (size_t i = 0; i < kTokens * kTileRows; ++i) room[i] = 0, y[i] = t.first ? 0 : y[i];
  Group at{t.scales.at, t.zeros.at, t.minimums.at, first * t.sums_stride, t.groups_a_scale};
  for (size_t left = 2 * t.steps; left;) {
    using Here = Tile<Product, kBits, kTokens>;
    const size_t halves = left < t.group_halves ? left : t.group_halves;
    for (int v = 0; v < kTileVectors; v += Here::kVectors)
      sum_group<Product, kBits, kTokens>(p + v * Vector::kBytes, x, t.x_stride, halves, room + v * kVectorRows);
    scale_group(t, at, kTokens, Here::kOffset, room, y);
    left -= halves, p += halves * Here::kHalfBytes, x += 16 * halves;
    ++at.number;
    if (--at.left != 0) continue;
    at.left = t.groups_a_scale;
    at.scales += t.scales.group_stride;
    if (at.zeros) at.zeros += t.zeros.group_stride;
    if (at.minimums) at.minimums += t.minimums.group_stride;
  }
}

template <class Product, int kBits>
void tile_of(const IntegerTile& t, size_t tokens) {
  alignas(64) int32_t room[kMostTokens * kTileRows];
  if (tokens == 4) return tile<Product, kBits, 4>(t, 0, room);
  if (tokens >= 2) tile<Product, kBits, 2>(t, 0, room);
  if (tokens != 2) tile<Product, kBits, 1>(t, tokens - 1, room);
}

constexpr uint16_t kTileWidths = 1 << 4 | 1 << 8;

template <class Product>
void integer_tile(const IntegerTile& t, size_t tokens) noexcept {
  t.bits == 4 ? tile_of<Product, 4>(t, tokens) : tile_of<Product, 8>(t, tokens);
}

template <int kBits, int kV = 0>
TERSOR_INLINE void decode_step(const uint8_t* p, uint8_t* out) {
  if constexpr (kV < 8) {
#pragma GCC unroll 4
    for (int at = 0; at < kUnitBytes; at += Vector::kBytes)
      Vector::store(out + kV * kUnitBytes + at, codes<kBits, kV>(p + at));
    decode_step<kBits, kV + 1>(p, out);
  }
}

template <int kBits>
void decode(const uint8_t* p, size_t steps, uint8_t* out) {
  for (; steps; --steps, p += kUnitBytes * kBits, out += 8 * kUnitBytes) decode_step<kBits>(p, out);
}

// Codes become integers, from tables of 16. VPSHUFB gives 0 for bytes of 128 and more: what is in none of a table's 16
// places gets there by the sum.
void look_up(const uint8_t* lookup, int tables, uint8_t* at, size_t bytes) {
  const Integers limit = Vector::bytes(0x70), sixteen = Vector::bytes(16);
  for (uint8_t* const end = at + bytes; at != end; at += Vector::kBytes) {
    Integers v = Vector::load(at);
    Integers found = Vector::zeros();
    for (int table = 0; table < tables; ++table) {
      const Integers sixteen_of = Vector::sixteen(lookup + 16 * table);
      found = Vector::either(found, Vector::shuffle(sixteen_of, Vector::plus_up_to_255(v, limit)));
      v = Vector::less(v, sixteen);
    }
    Vector::store(at, found);
  }
}

void integer_panel(int bits, const uint8_t* lookup, const uint8_t* codes, size_t steps, uint8_t* out) noexcept {
  switch (bits) {
    case 1: decode<1>(codes, steps, out); break;
    case 2: decode<2>(codes, steps, out); break;
    case 3: decode<3>(codes, steps, out); break;
    case 4: decode<4>(codes, steps, out); break;
    case 5: decode<5>(codes, steps, out); break;
    case 6: decode<6>(codes, steps, out); break;
    default: decode<8>(codes, steps, out); break;
  }
  if (lookup == nullptr) return;
  look_up(lookup, bits <= 4 ? 1 : 1 << (bits - 4), out, steps * 8 * kUnitBytes);
}

}  // namespace
}  // namespace tersor::gemm

#undef TERSOR_INLINE
