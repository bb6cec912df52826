#include "transform/float_split.h"

#include <algorithm>
#include <cstring>

#include "core/isa.h"

namespace tersor::transform {
namespace {

constexpr Variant<SplitWords> kSplitWords[] = {
    {Isa::scalar, split_words_scalar}, TERSOR_X86({Isa::avx2, split_words_avx2}, {Isa::avx512, split_words_avx512}, )};
constexpr Variant<MergeWords> kMergeWords[] = {
    {Isa::scalar, merge_words_scalar}, TERSOR_X86({Isa::avx2, merge_words_avx2}, {Isa::avx512, merge_words_avx512}, )};
constexpr Variant<Split32> kSplit32[] = {{Isa::scalar, split32_scalar},
                                         TERSOR_X86({Isa::avx2, split32_avx2}, {Isa::avx512, split32_avx512}, )};
constexpr Variant<Merge32> kMerge32[] = {{Isa::scalar, merge32_scalar},
                                         TERSOR_X86({Isa::avx2, merge32_avx2}, {Isa::avx512, merge32_avx512}, )};

constexpr Variant<PackRest> kPackRest[] = {{Isa::scalar, pack_rest_scalar},
                                           TERSOR_X86({Isa::avx2, pack_rest_avx2}, {Isa::avx512, pack_rest_avx512}, )};
constexpr Variant<PackRest> kUnpackRest[] = {
    {Isa::scalar, unpack_rest_scalar}, TERSOR_X86({Isa::avx2, unpack_rest_avx2}, {Isa::avx512, unpack_rest_avx512}, )};

// Bytes of rest in one packed block, and in it packed.
constexpr size_t block_of(int extra_bits) { return extra_bits == 1 ? 512 : 256; }
constexpr size_t packed_block(int extra_bits) { return block_of(extra_bits) - 64; }

}  // namespace

size_t split_words(const FloatSplit& split, std::span<const uint16_t> words, uint8_t* names, uint8_t* rest,
                   uint16_t* escaped) noexcept {
  return pick(kSplitWords)(split, words.data(), words.size(), names, rest, escaped);
}

bool merge_words(const FloatSplit& split, const uint8_t* names, const uint8_t* rest, std::span<uint16_t> words,
                 std::span<const uint16_t>& escaped) noexcept {
  const uint16_t* at = escaped.data();
  const bool enough =
      pick(kMergeWords)(split, names, rest, words.size(), words.data(), at, escaped.data() + escaped.size());
  escaped = escaped.subspan(size_t(at - escaped.data()));
  return enough;
}

// Plain enough for every compiler to vectorize.
void split_keys(std::span<const uint16_t> words, uint8_t* keys, uint8_t* rest) noexcept {
  for (size_t i = 0; i < words.size(); ++i) {
    uint16_t word;
    std::memcpy(&word, words.data() + i, 2);  // callers' arrays need not be aligned
    keys[i] = uint8_t(word >> 7), rest[i] = uint8_t((word & 0x7f) | (word >> 15) << 7);
  }
}

void merge_keys(const uint8_t* keys, const uint8_t* rest, std::span<uint16_t> words) noexcept {
  for (size_t i = 0; i < words.size(); ++i) {
    const uint16_t word = uint16_t((rest[i] & 0x80) << 8 | keys[i] << 7 | (rest[i] & 0x7f));
    std::memcpy(words.data() + i, &word, 2);
  }
}

void split32(std::span<const uint32_t> words, uint16_t* upper, uint8_t* byte1, uint8_t* byte0) noexcept {
  pick(kSplit32)(words.data(), words.size(), upper, byte1, byte0);
}

void merge32(const uint16_t* upper, const uint8_t* byte1, const uint8_t* byte0, std::span<uint32_t> words) noexcept {
  pick(kMerge32)(upper, byte1, byte0, words.size(), words.data());
}

size_t packed_bytes(int extra_bits, size_t count) noexcept {
  if (extra_bits == 0) return count;
  return count / block_of(extra_bits) * packed_block(extra_bits) + count % block_of(extra_bits);
}

void pack_rest(int extra_bits, std::span<const uint8_t> rest, uint8_t* packed) noexcept {
  size_t done = 0;
  if (extra_bits > 0) {
    const size_t blocks = rest.size() / block_of(extra_bits);
    pick(kPackRest)(extra_bits, rest.data(), blocks, packed);
    done = blocks * block_of(extra_bits), packed += blocks * packed_block(extra_bits);
  }
  std::copy(rest.begin() + long(done), rest.end(), packed);
}

void unpack_rest(int extra_bits, const uint8_t* packed, std::span<uint8_t> rest) noexcept {
  size_t done = 0;
  if (extra_bits > 0) {
    const size_t blocks = rest.size() / block_of(extra_bits);
    pick(kUnpackRest)(extra_bits, packed, blocks, rest.data());
    done = blocks * block_of(extra_bits), packed += blocks * packed_block(extra_bits);
  }
  std::copy_n(packed, rest.size() - done, rest.begin() + long(done));
}

}  // namespace tersor::transform
