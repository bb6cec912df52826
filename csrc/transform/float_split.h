// 16-bit words of a float (bf16, fp16, or the upper half of fp32) cut where the information is: a small name for the
// exponent with the first mantissa bits, which is worth modeling, and the rest, which looks random.
//
// With e extra bits, a word is sign | key (8 + e bits) | 7 - e bits. Keys of a window of 30 neighbors get the names
// 0..29, one more key name 30, and all others name 31, the escape. The rest is sign << (7 - e) | low bits, 8 - e bits.
// Page: docs/formats/lossless.md.
#pragma once
#include <cstdint>
#include <span>

namespace tersor::transform {

inline constexpr int kWindow = 30, kSpecialName = 30, kEscapeName = 31, kMostExtraBits = 2;

struct FloatSplit {
  int extra_bits;    // 0..2
  uint16_t window;   // the key of name 0
  uint16_t special;  // the key of name 30; kNoKey where there is none
  static constexpr uint16_t kNoKey = 0xffff;
};

// names, rest: as long as words. escaped: room for all words and 32 more. Returns how many keys escaped.
size_t split_words(const FloatSplit& split, std::span<const uint16_t> words, uint8_t* names, uint8_t* rest,
                   uint16_t* escaped) noexcept;

// The inverse. Takes escaped keys from the front of `escaped` and moves it on; false when there are too few.
bool merge_words(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, std::span<uint16_t> words,
                 std::span<const uint16_t>& escaped) noexcept;

// The plain cut, for words whose keys need a whole byte (fp16): key = bits 7..14, rest = sign << 7 | bits 0..6.
void split_keys(std::span<const uint16_t> words, uint8_t* keys, uint8_t* rest) noexcept;
void merge_keys(const uint8_t* keys, const uint8_t* rest, std::span<uint16_t> words) noexcept;

// 32-bit words to their upper halves and the two lower bytes, and back.
void split32(std::span<const uint32_t> words, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept;
void merge32(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, std::span<uint32_t> words) noexcept;

// Rests of 8 - e bits without holes: of 8 (e = 1) or 4 (e = 2) runs of 64, the last is dealt out to the free upper bits
// of the others. What does not fill such a block stays one byte each. e = 0: copied.
size_t packed_bytes(int extra_bits, size_t count) noexcept;
void pack_rest(int extra_bits, std::span<const uint8_t> rest, uint8_t* packed) noexcept;
void unpack_rest(int extra_bits, const uint8_t* packed, std::span<uint8_t> rest) noexcept;
inline constexpr size_t kPackBlock = 512;  // packing may be cut at multiples of this

using SplitWords = size_t(const FloatSplit& split, const uint16_t* words, size_t count, uint8_t* names, uint8_t* rest,
                          uint16_t* escaped) noexcept;
using MergeWords = bool(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, size_t count,
                        uint16_t* words, const uint16_t*& escaped, const uint16_t* escaped_end) noexcept;
using Split32 = void(const uint32_t* words, size_t count, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept;
using Merge32 = void(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, size_t count,
                     uint32_t* words) noexcept;
using PackRest = void(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept;  // whole blocks
SplitWords split_words_scalar, split_words_avx2, split_words_avx512;
MergeWords merge_words_scalar, merge_words_avx2, merge_words_avx512;
Split32 split32_scalar, split32_avx2, split32_avx512;
Merge32 merge32_scalar, merge32_avx2, merge32_avx512;
PackRest pack_rest_scalar, pack_rest_avx2, pack_rest_avx512, unpack_rest_scalar, unpack_rest_avx2, unpack_rest_avx512;

}  // namespace tersor::transform
