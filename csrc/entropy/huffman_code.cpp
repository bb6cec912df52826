// Code lengths, canonical codes and the tables of both directions. Rules: docs/formats/huffman.md.
#include <algorithm>
#include <vector>

#include "core/error.h"
#include "entropy/huffman.h"

namespace tersor::entropy::huffman {
namespace {

uint32_t reversed(uint32_t code, int length) noexcept {
  uint32_t out = 0;
  for (int i = 0; i < length; ++i) out |= (code >> i & 1) << (length - 1 - i);
  return out;
}

// f(symbol, length, code with its first bit lowest), shorter codes first, then smaller symbols.
template <class F>
void each_code(const Lengths& lengths, const F& f) {
  uint32_t code = 0;
  for (int length = 1; length <= kMostLength; ++length, code <<= 1)
    for (int s = 0; s < 256; ++s)
      if (lengths[size_t(s)] == length) f(uint8_t(s), length, reversed(code++, length));
  TERSOR_ASSERT(code == 2u << kMostLength);  // complete
}

}  // namespace

Lengths limited_lengths(const ByteCounts& counts, int most) {
  std::vector<uint8_t> leaves;
  for (int s = 0; s < 256; ++s)
    if (counts[size_t(s)]) leaves.push_back(uint8_t(s));
  TERSOR_ASSERT(leaves.size() >= 2 && leaves.size() <= size_t(1) << most && most <= kMostLength);
  std::stable_sort(leaves.begin(), leaves.end(), [&](uint8_t a, uint8_t b) { return counts[a] < counts[b]; });
  // A level's items are the leaves and the pairs of the level below, by weight. The lightest 2n - 2 of the last level
  // cover n - 1 units of Kraft's sum at least weight; a leaf's length is how often it is among what they consist of.
  std::vector<std::vector<bool>> is_leaf(static_cast<size_t>(most));
  std::vector<uint64_t> weights, below;
  for (int level = 0; level < most; ++level) {
    below.swap(weights), weights.clear();
    std::vector<bool>& marks = is_leaf[size_t(level)];
    for (size_t leaf = 0, pair = 0; leaf < leaves.size() || 2 * pair + 1 < below.size();) {
      const bool pairs_left = 2 * pair + 1 < below.size();
      const uint64_t joined = pairs_left ? below[2 * pair] + below[2 * pair + 1] : 0;
      const bool take_leaf = leaf < leaves.size() && (!pairs_left || counts[leaves[leaf]] <= joined);
      weights.push_back(take_leaf ? counts[leaves[leaf]] : joined), marks.push_back(take_leaf);
      take_leaf ? ++leaf : ++pair;
    }
  }
  Lengths lengths{};
  size_t taken = 2 * leaves.size() - 2;
  for (int level = most; level-- > 0;) {
    const std::vector<bool>& marks = is_leaf[size_t(level)];
    const auto of_leaves = size_t(std::count(marks.begin(), marks.begin() + long(taken), true));
    for (size_t leaf = 0; leaf < of_leaves; ++leaf) ++lengths[leaves[leaf]];
    taken = 2 * (taken - of_leaves);
  }
  return lengths;
}

void prepare_encode(const Lengths& lengths, EncodeTable& out) {
  std::fill(std::begin(out.code), std::end(out.code), uint64_t(0));
  each_code(lengths, [&](uint8_t symbol, int length, uint32_t code) {
    out.code[symbol] = uint64_t(code) << (64 - length) | uint64_t(length);
  });
}

void prepare_decode(const Lengths& lengths, DecodeTable& out) {
  out.index_bits = *std::max_element(lengths.begin(), lengths.end());
  const uint32_t entries = 1u << out.index_bits;
  each_code(lengths, [&](uint8_t symbol, int length, uint32_t code) {
    for (uint32_t i = code; i < entries; i += 1u << length) out.single[i] = uint16_t(symbol << 8 | length);
  });
  uint64_t all = 0;
  for (uint32_t i = 0; i < entries; ++i) {
    uint32_t symbols = 0;
    int used = 0, many = 0;
    for (; many < kMostSeveral; ++many) {
      const uint16_t next = out.single[i >> used];
      if (used + (next & 255) > out.index_bits) break;
      symbols |= uint32_t(next >> 8) << (8 * many), used += next & 255;
    }
    out.several[i] = uint64_t(symbols) << 32 | uint32_t(many << 8 | used);
    all += uint64_t(many);
  }
  out.one_by_one = all < entries + entries / 2;  // measured: where both loops are as quick
}

}  // namespace tersor::entropy::huffman
