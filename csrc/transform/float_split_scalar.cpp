// Floats cut and joined word by word; the reference of the vector kernels.
#include <cstring>

#include "transform/float_split.h"

namespace tersor::transform {

size_t split_words_scalar(const FloatSplit& split, const uint16_t* words, size_t count, uint8_t* names, uint8_t* rest,
                          uint16_t* escaped) noexcept {
  const int low_bits = 7 - split.extra_bits;
  const unsigned low_mask = (1u << low_bits) - 1;
  uint16_t* at = escaped;
  for (size_t i = 0; i < count; ++i) {
    uint16_t word;
    std::memcpy(&word, words + i, 2);  // callers' arrays need not be aligned
    const uint16_t key = uint16_t((word & 0x7fff) >> low_bits);
    const unsigned place = uint16_t(key - split.window);
    const unsigned name = place < unsigned(kWindow) ? place : key == split.special ? kSpecialName : kEscapeName;
    names[i] = uint8_t(name);
    rest[i] = uint8_t((word >> 15) << low_bits | (word & low_mask));
    *at = key;
    at += name == kEscapeName;
  }
  return size_t(at - escaped);
}

bool merge_words_scalar(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, size_t count,
                        uint16_t* words, const uint16_t*& escaped, const uint16_t* escaped_end) noexcept {
  const int low_bits = 7 - split.extra_bits;
  const unsigned low_mask = (1u << low_bits) - 1;
  for (size_t i = 0; i < count; ++i) {
    unsigned key = split.window + unsigned(names[i]);
    if (names[i] == kSpecialName) key = split.special;
    if (names[i] == kEscapeName) {
      if (escaped == escaped_end) return false;
      key = *escaped++;
    }
    const uint16_t word =
        uint16_t((key << low_bits & 0x7fff) | unsigned(rest[i] >> low_bits & 1) << 15 | (rest[i] & low_mask));
    std::memcpy(words + i, &word, 2);
  }
  return true;
}

void split32_scalar(const uint32_t* words, size_t count, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept {
  for (size_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, words + i, 4);
    upper[i] = uint16_t(word >> 16), byte1[i] = uint8_t(word >> 8), byte0[i] = uint8_t(word);
  }
}

void merge32_scalar(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, size_t count,
                    uint32_t* words) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t word = uint32_t(upper[i]) << 16 | uint32_t(byte1[i]) << 8 | byte0[i];
    std::memcpy(words + i, &word, 4);
  }
}

// The loops over 64 bytes are plain enough for every compiler to vectorize.
void pack_rest_scalar(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  const int bits = extra_bits, kept = 8 - bits, runs = bits == 1 ? 7 : 3;
  for (; blocks > 0; --blocks, from += 64 * (runs + 1), to += 64 * runs) {
    const uint8_t* const dealt = from + 64 * runs;
    for (int run = 0; run < runs; ++run)
      for (int i = 0; i < 64; ++i) to[64 * run + i] = uint8_t(from[64 * run + i] | (dealt[i] >> (run * bits)) << kept);
  }
}

void unpack_rest_scalar(int extra_bits, const uint8_t* from, size_t blocks, uint8_t* to) noexcept {
  const int bits = extra_bits, kept = 8 - bits, runs = bits == 1 ? 7 : 3;
  for (; blocks > 0; --blocks, from += 64 * runs, to += 64 * (runs + 1)) {
    uint8_t* const dealt = to + 64 * runs;
    std::memset(dealt, 0, 64);
    for (int run = 0; run < runs; ++run)
      for (int i = 0; i < 64; ++i) {
        to[64 * run + i] = uint8_t(from[64 * run + i] & ((1 << kept) - 1));
        dealt[i] = uint8_t(dealt[i] | (from[64 * run + i] >> kept) << (run * bits));
      }
  }
}

}  // namespace tersor::transform
