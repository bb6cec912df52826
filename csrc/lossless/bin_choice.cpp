// Bins are the leaves of a binary tree: a node is all values that agree in their upper bits, and is cut where its
// halves are coded in fewer bits. Bottom up, so the cut is the best there is for the sample.
#include "lossless/bin_choice.h"

#include <algorithm>
#include <array>
#include <bit>

#include "entropy/table.h"

namespace tersor::lossless {
namespace {

using Logs = std::array<uint32_t, kMostSampled + 1>;

// log2 of 1..kMostSampled in 2^-16 bit.
const Logs& logs() noexcept {
  static const Logs table = [] {
    Logs made{};
    for (uint32_t n = 1; n <= kMostSampled; ++n) made[n] = entropy::cost_q16(1, n);
    return made;
  }();
  return table;
}

template <class U>
struct Leaf {
  U first;  // with the sign turned, so that it counts up from zero
  uint8_t bits;
};

template <class U>
class Tree {
 public:
  static constexpr size_t kMostLeaves = 1024;  // while choosing; a cut that does not fit is not made

  Tree(std::span<const U> sample, uint64_t penalty) noexcept
      : sample_(sample), log_all_(logs()[sample.size()]), penalty_(penalty) {}

  // The cheapest cut of the node that begins at `first` and is 2^bits wide; its leaves are appended.
  uint64_t cut(size_t begin, size_t end, U first, int bits) noexcept {
    const size_t n = end - begin, before = count;
    if (n == 0) {
      add({first, uint8_t(bits)});
      return kEmpty;
    }
    const uint64_t whole = n * ((uint64_t(bits) << 16) + log_all_ - logs()[n]) + penalty_;
    const bool single = sample_[begin] == sample_[end - 1];
    // Few values prove nothing about the law between them; many equal ones do.
    if (bits == 0 || (n < 4 && !(single && n > 1)) || count + 2 > kMostLeaves) {
      add({first, uint8_t(bits)});
      return whole;
    }
    const U half = U(first + (U(1) << (bits - 1)));
    const size_t middle = lower_half(begin, end, half);
    const uint64_t parts = cut(begin, middle, first, bits - 1) + cut(middle, end, half, bits - 1);
    if (parts < whole) return parts;
    count = before;
    add({first, uint8_t(bits)});
    return whole;
  }

  std::array<Leaf<U>, kMostLeaves + 2 * 64> leaves;  // and those of the nodes on the way
  size_t count = 0;

 private:
  static constexpr uint64_t kEmpty = 1 << 14;  // its width must be written, little more
  // The first of the sample that is not below `half`. Most nodes near the root have all on one side.
  size_t lower_half(size_t begin, size_t end, U half) const noexcept {
    if (sample_[begin] >= half) return begin;
    if (sample_[end - 1] < half) return end;
    return size_t(std::lower_bound(sample_.begin() + long(begin), sample_.begin() + long(end), half) - sample_.begin());
  }
  void add(Leaf<U> leaf) noexcept { leaves[count++] = leaf; }
  std::span<const U> sample_;
  uint64_t log_all_, penalty_;
};

// Byte by byte from the lowest on; bytes that all values share are passed over.
template <class U>
void sort_sample(std::span<U> sample) noexcept {
  std::array<std::array<uint32_t, 256>, sizeof(U)> counts{};
  for (const U value : sample)
    for (size_t byte = 0; byte < sizeof(U); ++byte) ++counts[byte][value >> (8 * byte) & 255];
  std::array<U, kMostSampled> room;
  std::span<U> from = sample, to = std::span<U>(room).first(sample.size());
  for (size_t byte = 0; byte < sizeof(U); ++byte) {
    auto& place = counts[byte];
    if (place[from[0] >> (8 * byte) & 255] == from.size()) continue;
    uint32_t sum = 0;
    for (uint32_t& count : place) sum += count, count = sum - count;
    for (const U value : from) to[place[value >> (8 * byte) & 255]++] = value;
    std::swap(from, to);
  }
  if (from.data() != sample.data()) std::copy(from.begin(), from.end(), sample.begin());
}

}  // namespace

template <class U>
uint64_t choose_bins(std::span<U> sample, size_t values, U least, U most, transform::ValueBins<U>& bins) noexcept {
  constexpr int kWidth = 8 * sizeof(U);
  constexpr U kSign = U(U(1) << (kWidth - 1));
  for (U& value : sample) value = U(value ^ kSign);
  sort_sample(sample);
  const U low = U(least ^ kSign), high = U(most ^ kSign);
  const int root_bits = std::bit_width(U(low ^ high));
  const U root = root_bits == kWidth ? U(0) : U(low >> root_bits << root_bits);
  // A bin costs about ten bits in its table, and as much trust as the sample can give: four bits of the sample itself.
  for (uint64_t penalty = (uint64_t(10) << 16) * sample.size() / values + (uint64_t(4) << 16);; penalty *= 2) {
    Tree<U> tree(sample, penalty);
    const uint64_t cost = tree.cut(0, sample.size(), root, root_bits);
    // Leaves outside the range are not needed, and empty neighbors may be one bin where they make a larger node.
    size_t begin = 0, end = tree.count;
    while (end - begin > 1 && tree.leaves[begin + 1].first <= low) ++begin;
    while (end - begin > 1 && tree.leaves[end - 1].first > high) --end;
    if (end - begin > transform::kMostBins) continue;
    bins = {};
    bins.count = end - begin;
    for (size_t i = begin; i < end; ++i) {
      bins.first[i - begin] = U(tree.leaves[i].first ^ kSign);
      bins.bits[i - begin] = tree.leaves[i].bits;
    }
    return cost / sample.size();
  }
}

#define TERSOR_FOR(U) template uint64_t choose_bins<U>(std::span<U>, size_t, U, U, transform::ValueBins<U>&) noexcept;
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
