// Packs and unpacks 32 bytes of values a step. Compiled with -mavx2, no inline code of ours inside.
// Page: docs/formats/bitpack.md. Reference: bitpack_scalar.cpp, equal byte for byte.
// The door (bitpack.cpp) has checked: bits are fewer than the type has, the packed side is as long as the values need.
#include <immintrin.h>

#include "entropy/bitpack.h"

namespace tersor::entropy::bitpack {
namespace {

// A step takes two lanes of 16 bytes of values; a lane's packed bytes begin and end at whole bytes. Kernels load and
// store 16 packed bytes a lane, so that the last steps are the reference's.
constexpr size_t kLane = 16;

struct alignas(32) Bytes {
  uint8_t at[32];
};
struct alignas(32) Words {
  uint16_t at[16];
};
struct alignas(32) Longs {
  uint32_t at[8];
};

template <class Table>
__m256i load(const Table& table) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(&table));
}

__m256i load_lanes(const uint8_t* low, const uint8_t* high) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)),
                                 1);
}

void store_lanes(uint8_t* low, uint8_t* high, __m256i packed) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm256_castsi256_si128(packed));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm256_extracti128_si256(packed, 1));
}

// Of values of so many bits.
template <int kBits>
uint32_t or_of(__m256i all) {
  uint32_t words[8], result = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), all);
  for (const uint32_t word : words)
    for (int shift = 0; shift < 32; shift += kBits) result |= word >> shift;
  return result & ((1u << kBits) - 1);
}

// The steps of `a_step` values, two lanes of `lane_bytes` packed bytes, whose loads and stores stay inside `packed`
// bytes.
size_t steps_inside(size_t values, size_t a_step, size_t lane_bytes, size_t packed) {
  const size_t reach = lane_bytes + kLane;  // of a step from its first byte on
  if (packed < reach) return 0;
  const size_t steps = (packed - reach) / (2 * lane_bytes) + 1;
  return steps < values / a_step ? steps : values / a_step;
}

// Where four values end: at a whole byte, or in the middle of one, so that the next four move up by 4 bits. 15 bits
// leave no room to do that on the way.
enum Half { kWholeBytes, kOdd, kFifteen };

template <Half kHalf>
uint32_t pack16(std::span<const uint16_t> values, int bits, std::span<uint8_t> out) noexcept {
  const size_t bytes = size_t(bits);  // of 8 values
  const __m256i up2 = _mm256_set1_epi32(1 << 16 | 1 << (16 - bits)), up4 = _mm256_set1_epi64x(32 - 2 * bits);
  const __m128i down2 = _mm_cvtsi32_si128(16 - bits), down4 = _mm_cvtsi32_si128(32 - 2 * bits);
  const __m256i nibble = _mm256_set_epi64x(4, 0, 4, 0);
  const long long shift = 32 - 2 * bits;
  const __m256i down4_odd = _mm256_set_epi64x(shift - 4, shift, shift - 4, shift);
  const int half = bits / 2;
  Bytes lower, upper, both;
  for (int i = 0; i < 32; ++i) {
    const int at = i % 16;
    lower.at[i] = at < half + (kHalf != kWholeBytes) ? uint8_t(at) : 128;
    upper.at[i] = at >= half && at < bits ? uint8_t(8 + at - half) : 128;
    both.at[i] = lower.at[i] < upper.at[i] ? lower.at[i] : upper.at[i];
  }
  const __m256i order_low = load(lower), order_high = load(upper), order = load(both);
  __m256i all = _mm256_setzero_si256();
  const size_t steps = steps_inside(values.size(), 16, bytes, out.size());
  const uint16_t* from = values.data();
  uint8_t* to = out.data();
#pragma GCC unroll 4
  for (size_t i = 0; i < steps; ++i, from += 16, to += 2 * bytes) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    all = _mm256_or_si256(all, v);
    const __m256i two = _mm256_srl_epi32(_mm256_mullo_epi16(v, up2), down2);
    const __m256i high = _mm256_sllv_epi32(two, up4);
    if (kHalf == kWholeBytes) {
      store_lanes(to, to + bytes, _mm256_shuffle_epi8(_mm256_srl_epi64(high, down4), order));
    } else {
      const __m256i four =
          kHalf == kOdd ? _mm256_srlv_epi64(high, down4_odd) : _mm256_sllv_epi64(_mm256_srl_epi64(high, down4), nibble);
      store_lanes(to, to + bytes,
                  _mm256_or_si256(_mm256_shuffle_epi8(four, order_low), _mm256_shuffle_epi8(four, order_high)));
    }
  }
  return or_of<16>(all) | pack_scalar(values.subspan(16 * steps), bits, out.subspan(2 * bytes * steps));
}

}  // namespace

uint32_t pack_avx2(std::span<const uint8_t> values, int bits, std::span<uint8_t> out) noexcept {
  const size_t bytes = 2 * size_t(bits);  // of 16 values
  // Pairs join by multiplication; then the lower of two is shifted up to the higher one, and both down.
  const __m256i pair = _mm256_set1_epi16(short(1 << bits << 8 | 1)), fours = _mm256_set1_epi32(1 << 2 * bits << 16 | 1);
  const __m256i up = _mm256_set1_epi64x(32 - 4 * bits);
  const __m128i down = _mm_cvtsi32_si128(32 - 4 * bits);
  Bytes places;
  for (int i = 0; i < 32; ++i) {
    const int at = i % 16;
    places.at[i] = at < bits ? uint8_t(at) : at < 2 * bits ? uint8_t(8 + at - bits) : 128;
  }
  const __m256i order = load(places);
  __m256i all = _mm256_setzero_si256();
  const size_t steps = steps_inside(values.size(), 32, bytes, out.size());
  const uint8_t* from = values.data();
  uint8_t* to = out.data();
  for (size_t i = 0; i < steps; ++i, from += 32, to += 2 * bytes) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    all = _mm256_or_si256(all, v);
    const __m256i four = _mm256_madd_epi16(_mm256_maddubs_epi16(pair, v), fours);
    const __m256i eight = _mm256_srl_epi64(_mm256_sllv_epi32(four, up), down);
    store_lanes(to, to + bytes, _mm256_shuffle_epi8(eight, order));
  }
  return or_of<8>(all) | pack_scalar(values.subspan(32 * steps), bits, out.subspan(2 * bytes * steps));
}

uint32_t pack_avx2(std::span<const uint16_t> values, int bits, std::span<uint8_t> out) noexcept {
  return (bits % 2 == 0 ? pack16<kWholeBytes> : bits < 15 ? pack16<kOdd> : pack16<kFifteen>)(values, bits, out);
}

void unpack_avx2(std::span<const uint8_t> data, int bits, std::span<uint8_t> out) noexcept {
  const size_t bytes = 2 * size_t(bits);  // of 16 values
  // Each value comes with its byte and the next one into 16 bits, the even and the odd ones apart; multiplication moves
  // it to the top, or to bit 8, where the odd ones belong.
  Bytes even, odd;
  Words to_top, to_eight;
  for (int i = 0; i < 16; ++i) {
    const int bit = i % 8 * 2 * bits, next = bit + bits;
    even.at[2 * i] = uint8_t(bit / 8), even.at[2 * i + 1] = uint8_t(bit / 8 + 1);
    odd.at[2 * i] = uint8_t(next / 8), odd.at[2 * i + 1] = uint8_t(next / 8 + 1);
    to_top.at[i] = uint16_t(1 << (16 - bits - bit % 8)), to_eight.at[i] = uint16_t(1 << (8 - next % 8));
  }
  const __m256i even_order = load(even), odd_order = load(odd), even_shift = load(to_top), odd_shift = load(to_eight);
  const __m256i mask = _mm256_set1_epi16(short(((1 << bits) - 1) << 8));
  const __m128i down = _mm_cvtsi32_si128(16 - bits);
  const size_t steps = steps_inside(out.size(), 32, bytes, data.size());
  const uint8_t* from = data.data();
  uint8_t* to = out.data();
  for (size_t i = 0; i < steps; ++i, from += 2 * bytes, to += 32) {
    const __m256i packed = load_lanes(from, from + bytes);
    const __m256i low = _mm256_srl_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(packed, even_order), even_shift), down);
    const __m256i high = _mm256_and_si256(_mm256_mullo_epi16(_mm256_shuffle_epi8(packed, odd_order), odd_shift), mask);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_or_si256(low, high));
  }
  unpack_scalar(data.subspan(2 * bytes * steps), bits, out.subspan(32 * steps));
}

void unpack_avx2(std::span<const uint8_t> data, int bits, std::span<uint16_t> out) noexcept {
  const size_t bytes = size_t(bits);  // of 8 values
  Bytes even, odd;
  Longs down, up;
  for (int i = 0; i < 8; ++i) {
    const int bit = i % 4 * 2 * bits, next = bit + bits;
    for (int byte = 0; byte < 4; ++byte)
      even.at[4 * i + byte] = uint8_t(bit / 8 + byte) & 15, odd.at[4 * i + byte] = uint8_t(next / 8 + byte) & 15;
    down.at[i] = uint32_t(bit % 8), up.at[i] = uint32_t(16 - next % 8);
  }
  const __m256i even_order = load(even), odd_order = load(odd), even_shift = load(down), odd_shift = load(up);
  const __m256i mask = _mm256_set1_epi32((1 << bits) - 1), high_mask = _mm256_slli_epi32(mask, 16);
  const size_t steps = steps_inside(out.size(), 16, bytes, data.size());
  const uint8_t* from = data.data();
  uint16_t* to = out.data();
  for (size_t i = 0; i < steps; ++i, from += 2 * bytes, to += 16) {
    const __m256i packed = load_lanes(from, from + bytes);
    const __m256i low = _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(packed, even_order), even_shift), mask);
    const __m256i high =
        _mm256_and_si256(_mm256_sllv_epi32(_mm256_shuffle_epi8(packed, odd_order), odd_shift), high_mask);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_or_si256(low, high));
  }
  unpack_scalar(data.subspan(2 * bytes * steps), bits, out.subspan(16 * steps));
}

}  // namespace tersor::entropy::bitpack
