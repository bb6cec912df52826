#include "lossless/stride_choice.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <type_traits>

#include "core/arena.h"
#include "core/isa.h"
#include "entropy/table.h"
#include "lossless/stride_scores.h"

namespace tersor::lossless {
namespace {

constexpr size_t kPlaces = 96, kFirstPlaces = 24, kCandidates = 32, kMostScored = 1024, kLeastValues = 64;

template <class U>
constexpr Variant<StrideScores<U>> kStrideScores[] = {
    {Isa::scalar, stride_scores_scalar},
    TERSOR_X86({Isa::avx2, stride_scores_avx2}, {Isa::avx512, stride_scores_avx512}, )};

// The stride in 2..farthest with the smallest differences from values[i] (or values[i] - values[i - 1]) on. A few
// places leave candidates, more choose among these.
template <class U>
size_t best_stride(std::span<const U> values, bool of_differences, size_t farthest) {
  ScratchFrame frame;
  const auto window = frame.take<U>(farthest + 1);
  const auto scores = frame.take<uint32_t>(farthest + 1);
  std::fill(scores.begin(), scores.end(), 0);
  const auto at = [&](size_t i) noexcept { return of_differences ? U(values[i] - values[i - 1]) : values[i]; };
  const size_t begin = farthest + 1, left = values.size() - begin;
  const auto each_place = [&](size_t places, auto&& visit) noexcept {
    const size_t step = std::max<size_t>(1, left / places);
    for (size_t place = begin; place < values.size(); place += step) visit(place);
  };
  each_place(farthest > 2 * kCandidates ? kFirstPlaces : kPlaces, [&](size_t place) noexcept {
    for (size_t s = 0; s <= farthest; ++s) window[s] = at(place - s);
    pick(kStrideScores<U>)(window[0], window.subspan(2), scores.data() + 2);
  });
  if (farthest <= 2 * kCandidates) return size_t(std::min_element(scores.begin() + 2, scores.end()) - scores.begin());
  const auto order = frame.take<uint64_t>(farthest - 1);
  for (size_t s = 2; s <= farthest; ++s) order[s - 2] = uint64_t(scores[s]) << 32 | s;
  std::nth_element(order.begin(), order.begin() + kCandidates, order.end());
  std::array<uint64_t, kCandidates> best;
  for (size_t i = 0; i < kCandidates; ++i) best[i] = uint32_t(order[i]);
  std::array<uint32_t, kCandidates> sums{};
  each_place(kPlaces, [&](size_t place) noexcept {
    for (size_t i = 0; i < kCandidates; ++i) window[i] = at(place - best[i]);
    pick(kStrideScores<U>)(at(place), window.first(kCandidates), sums.data());
  });
  uint64_t least = ~uint64_t(0);
  for (size_t i = 0; i < kCandidates; ++i) least = std::min(least, uint64_t(sums[i]) << 32 | best[i]);
  return uint32_t(least);
}

// Bits a difference costs when its size's magnitude is coded and the rest is not, in 2^-16 bit.
template <class U>
uint64_t score(std::span<const U> values, const Strides& strides) {
  using S = std::make_signed_t<U>;
  uint32_t counts[2 * (64 * 2 + 2)] = {}, total = 0;
  uint64_t cost = 0;
  // Runs, so that neighbors are loaded together; the part before the strides have begun is not typical.
  constexpr size_t kRun = 8;
  const size_t scored = std::clamp(values.size() / 8, kMostScored / 2, kMostScored);
  const size_t begin = std::min(strides[0] + strides[1], values.size() - 1);
  const size_t step = std::max<size_t>(kRun, (values.size() - begin) / (scored / kRun));
  // Around their middle: differences of clocks and counters are never near zero.
  S some[31];
  for (size_t i = 0; i < std::size(some); ++i)
    some[i] = S(difference<U>(values, values[0], strides, begin + i * (values.size() - begin) / std::size(some)));
  std::nth_element(some, some + std::size(some) / 2, std::end(some));
  const U middle = U(some[std::size(some) / 2]);
  size_t turn = 0;
  for (size_t at = begin; at < values.size(); at += step, turn = (turn + 5) % 13) {
    const size_t from = std::min(at + turn, values.size() - 1);  // rows must not be met at the same columns
    for (size_t i = from; i < std::min(from + kRun, values.size()); ++i, ++total) {
      const S signed_difference = S(U(difference<U>(values, values[0], strides, i) - middle));
      const uint64_t size = signed_difference < 0 ? uint64_t(~int64_t(signed_difference)) : uint64_t(signed_difference);
      const int width = std::bit_width(size), extra = std::max(0, width - 2);
      ++counts[2 * (2 * width + int(size >> extra & 1)) + (signed_difference < 0)];
      cost += uint64_t(extra) << 16;
    }
  }
  for (const uint32_t count : counts)
    if (count) cost += count * uint64_t(entropy::cost_q16(count, total));
  return cost / total;
}

}  // namespace

template <class U>
StrideChoice choose_strides(std::span<const U> values, size_t farthest, uint64_t plain) {
  StrideChoice best;
  if (values.size() < 8) return best;
  const auto consider = [&](const Strides& strides) {
    const uint64_t cost = score(values, strides);
    if (cost < best.cost) best = {strides, cost};
  };
  for (const Strides& strides : {Strides{1, 0}, {1, 1}, {2, 0}, {3, 0}, {4, 0}}) consider(strides);
  const size_t quarter = values.size() / 4;
  if (best.cost >= plain)
    for (const size_t row : kUsualRows)
      if (row <= std::min(quarter, farthest)) consider({row, 0});
  farthest = std::min(quarter, best.cost < plain ? farthest : farthest / 12);
  if (values.size() < kLeastValues || farthest < 5) return best;
  const size_t along = best_stride(values, false, farthest), across = best_stride(values, true, farthest);
  for (const Strides& strides : {Strides{along, 0}, {along, 1}, {across, 1}, {across, 0}}) consider(strides);
  return best;
}

#define TERSOR_FOR(U) template StrideChoice choose_strides<U>(std::span<const U>, size_t, uint64_t);
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
