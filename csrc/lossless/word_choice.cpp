#include "lossless/word_choice.h"

#include <algorithm>
#include <array>

#include "core/arena.h"
#include "entropy/table.h"

namespace tersor::lossless {
namespace {

constexpr size_t kMostBytes = 8;  // of a word
constexpr size_t kRuns = 16, kRunBytes = 1024, kLeastRaw = 4096;
using Counts = std::array<uint32_t, 256>;

// The cost of the counted bytes in 2^-16 bit, and what it takes to tell their law: half of log2 n for each value.
uint64_t cost_of(const Counts& counts) {
  uint32_t total = 0;
  uint64_t cost = 0, values = 0;
  for (const uint32_t count : counts) total += count;
  for (const uint32_t count : counts)
    if (count) cost += count * uint64_t(entropy::cost_q16(count, total)), ++values;
  return total ? cost + values * entropy::cost_q16(1, total) / 2 : 0;
}

// Counts by the place of a byte in a word of eight.
std::array<Counts, kMostBytes> counted(std::span<const uint8_t> raw) {
  std::array<Counts, kMostBytes> counts{};
  const size_t step = raw.size() <= kRuns * kRunBytes ? kRunBytes : raw.size() / kRuns / kMostBytes * kMostBytes;
  for (size_t at = 0; at < raw.size(); at += step)
    for (size_t i = at; i < std::min(at + kRunBytes, raw.size()); ++i) ++counts[i % kMostBytes][raw[i]];
  return counts;
}

Counts sum_of(const std::array<Counts, kMostBytes>& counts, size_t first, size_t step) {
  Counts sum{};
  for (size_t i = first; i < kMostBytes; i += step)
    for (size_t value = 0; value < sum.size(); ++value) sum[value] += counts[i][value];
  return sum;
}

struct Elements {
  size_t bytes;
  std::array<Element, 3> kinds;
  int count;
};
constexpr Elements kElementsOf[] = {{2, {Element::bf16, Element::fp16, Element::int16}, 3},
                                    {4, {Element::fp32, Element::int32}, 2},
                                    {8, {Element::fp64, Element::int64}, 2}};

}  // namespace

std::optional<WordChoice> choose_words(std::span<const uint8_t> raw, EncodeSample* encode) {
  if (raw.size() < kLeastRaw) return std::nullopt;
  const auto counts = counted(raw);
  const uint64_t alone = cost_of(sum_of(counts, 0, 1));
  uint64_t best = alone - alone / 32;
  const Elements* words = nullptr;
  std::array<uint64_t, kMostBytes> costs{}, own{};
  for (const Elements& elements : kElementsOf) {
    uint64_t sum = 0;
    for (size_t i = 0; i < elements.bytes; ++i) sum += own[i] = cost_of(sum_of(counts, i, elements.bytes));
    if (sum < best) best = sum, words = &elements, costs = own;
  }
  if (!words) return std::nullopt;
  // Numbers may begin with the chunk; behind their cheapest byte, a float's sign and exponent; or where the cost of
  // bytes rises most, from an integer's zeros to its lowest byte.
  size_t begins[] = {0, 0, 0};
  uint64_t least_cost = ~uint64_t(0);
  int64_t rise = 0;
  for (size_t i = 0; i < words->bytes; ++i) {
    const size_t before = (i + words->bytes - 1) % words->bytes;
    if (costs[before] < least_cost) least_cost = costs[before], begins[1] = i;
    if (int64_t(costs[i] - costs[before]) > rise) rise = int64_t(costs[i] - costs[before]), begins[2] = i;
  }
  constexpr size_t kMostSample = size_t(1) << 15;
  constexpr int kQuick = 1;
  ScratchFrame frame;
  const size_t whole = (raw.size() - words->bytes) / words->bytes * words->bytes;
  const size_t size = std::min(whole, kMostSample);
  const auto coded = frame.bytes(chunk_bound(size));
  size_t least = encode(Element::bytes, raw.first(size), kQuick, coded);
  least -= least / 64;
  std::optional<WordChoice> choice;
  for (size_t k = 0; k < std::size(begins); ++k) {
    if (std::find(begins, begins + k, begins[k]) != begins + k) continue;
    for (int i = 0; i < words->count; ++i) {
      const Element element = words->kinds[size_t(i)];
      const size_t bytes = encode(element, raw.subspan(begins[k], size), kQuick, coded);
      if (bytes < least) least = bytes, choice = {{uint16_t(words->bytes), element}, begins[k]};
    }
  }
  return choice;
}

}  // namespace tersor::lossless
