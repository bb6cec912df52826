#include "entropy/distribution.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>

#include "core/error.h"

namespace tersor::entropy {
namespace {

using u128 = unsigned __int128;

constexpr int kOneBits = 62;  // fraction bits of exp2_minus
constexpr uint64_t kOne = uint64_t(1) << kOneBits;
constexpr uint64_t kLn2 = 3196577161300663914;    // ln 2 in Q62
constexpr uint64_t kLog2E = 6653256548922161245;  // 1 / ln 2 in Q62
constexpr int kExponentBits = 56;                 // fraction bits of exp2_minus's argument

constexpr uint64_t multiply_q62(uint64_t a, uint64_t b) noexcept { return uint64_t((u128(a) * b) >> kOneBits); }

constexpr uint64_t root(u128 square) noexcept {
  u128 low = 0, high = u128(1) << 63;
  while (low < high) {
    const u128 middle = (low + high + 1) >> 1;
    if (middle * middle <= square)
      low = middle;
    else
      high = middle - 1;
  }
  return uint64_t(low);
}

constexpr std::array<uint64_t, 128> make_steps() {  // 2^(-i / 128) in Q62
  uint64_t step = kOne / 2;
  for (int i = 0; i < 7; ++i) step = root(u128(step) << kOneBits);
  std::array<uint64_t, 128> steps{kOne};
  for (size_t i = 1; i < 128; ++i) steps[i] = multiply_q62(steps[i - 1], step);
  return steps;
}
constexpr auto kSteps = make_steps();

// 2^-y in Q62, y in Q56: a step of 1/128 from the table, then the exponential's series of seven terms.
uint64_t exp2_minus(u128 y) noexcept {
  const auto whole = uint64_t(y >> kExponentBits);
  if (whole >= kOneBits) return 0;
  const uint64_t fraction = uint64_t(y) & ((uint64_t(1) << kExponentBits) - 1);
  const uint64_t rest = fraction & ((uint64_t(1) << (kExponentBits - 7)) - 1);
  const uint64_t x = multiply_q62(rest << (kOneBits - kExponentBits), kLn2);  // below 0.0055
  uint64_t series = kOne;
  for (uint64_t term = 7; term >= 1; --term) series = kOne - multiply_q62(x, series) / term;
  return multiply_q62(kSteps[size_t(fraction >> (kExponentBits - 7))], series) >> whole;
}

constexpr size_t kSubsteps = 8;
using Batch = std::array<uint64_t, kSubsteps>;

// log2 of values / 2^72 >= 1 in Q48, a bit at a time; side by side, since each step of one waits for the last.
Batch log2_q48(const std::array<u128, kSubsteps>& values) noexcept {
  Batch mantissas, logs;
  for (size_t i = 0; i < kSubsteps; ++i) {
    const auto high = uint64_t(values[i] >> 64);
    const int exponent = 127 - std::countl_zero(high);  // of a value that is 2^72 at least
    mantissas[i] = uint64_t(values[i] >> (exponent - 63));
    logs[i] = uint64_t(exponent - 72) << 48;
  }
  for (int bit = 47; bit >= 0; --bit)
    for (size_t i = 0; i < kSubsteps; ++i) {
      const u128 square = u128(mantissas[i]) * mantissas[i];  // Q126 in [1, 4)
      const bool over = square >> 127;
      mantissas[i] = uint64_t(square >> (over ? 64 : 63));
      logs[i] |= uint64_t(over) << bit;
    }
  return logs;
}

constexpr int kZBits = 36;

// A multiple of the density at each z, Q36, that is 1 in Q62 at most.
Batch densities(Family family, uint32_t freedom, const Batch& zs) noexcept {
  Batch found;
  const auto each = [&](const auto& density) { std::transform(zs.begin(), zs.end(), found.begin(), density); };
  const auto exp_minus = [](uint64_t z) {
    return exp2_minus((u128(z) * kLog2E) >> (kZBits + kOneBits - kExponentBits));
  };
  switch (family) {
    case Family::gaussian:
      each([](uint64_t z) -> uint64_t {
        const u128 half_square = (u128(z) * z) >> (2 * kZBits - kExponentBits + 1);
        return half_square >> 63 ? 0 : exp2_minus((half_square * kLog2E) >> kOneBits);
      });
      break;
    case Family::laplace: each(exp_minus); break;
    case Family::logistic:
      each([&](uint64_t z) {
        const auto below = uint64_t((u128(kOne) << kOneBits) / (kOne + exp_minus(z)));  // 1 / (1 + e^-z)
        return multiply_q62(kOne - below, below);
      });
      break;
    default: {  // (1 + z^2 / v)^(-(v + 1) / 2)
      std::array<u128, kSubsteps> sums;
      for (size_t i = 0; i < kSubsteps; ++i)
        sums[i] = (u128(1) << 72) + ((u128(zs[i]) * zs[i]) << kFreedomBits) / freedom;
      const Batch logs = log2_q48(sums);
      for (size_t i = 0; i < kSubsteps; ++i)
        found[i] =
            exp2_minus((u128(logs[i]) * (freedom + (1u << kFreedomBits))) >> (48 + kFreedomBits + 1 - kExponentBits));
    }
  }
  return found;
}

constexpr int kStepsAnOctave = 64;

}  // namespace

Shape::Shape(Family family, uint32_t freedom) {
  const bool heavy = family == Family::student_t;
  const int octaves = heavy ? 20 : 6;  // beyond 2^6 the others have less than 2^-60
  const size_t nodes = size_t(kStepsAnOctave) * size_t(1 + octaves) + 1;
  const auto octave_of = [](size_t i) { return i < kStepsAnOctave ? 0 : int(i / kStepsAnOctave) - 1; };
  const auto node = [&](size_t i) {  // Q36
    const int octave = octave_of(i);
    const uint64_t steps = i < kStepsAnOctave ? i : kStepsAnOctave + i % kStepsAnOctave;
    return steps << (kZBits - 6 + octave);
  };
  // Simpson's rule in eight parts of each piece, from the far end on: tails in Q62 times 24.
  std::vector<u128> tails(nodes);
  std::vector<uint64_t> heights(nodes);
  heights[nodes - 1] = densities(family, freedom, {node(nodes - 1)})[0];
  // Far out Student's density falls as z^-(v + 1), and its tail is z / v times the density.
  tails[nodes - 1] = heavy ? (u128(heights[nodes - 1]) * 24 << (octaves + kFreedomBits)) / freedom : 0;
  for (size_t i = nodes - 1; i-- > 0;) {
    const uint64_t from = node(i), part = (node(i + 1) - from) / kSubsteps;
    Batch zs;
    for (size_t k = 0; k < kSubsteps; ++k) zs[k] = from + k * part;
    const Batch found = densities(family, freedom, zs);
    heights[i] = found[0];
    u128 sum = u128(heights[i]) + heights[i + 1];
    for (size_t k = 1; k < kSubsteps; ++k) sum += u128(found[k]) * (k % 2 ? 4 : 2);
    tails[i] = tails[i + 1] + ((sum * 8 << octave_of(i)) / (uint64_t(kStepsAnOctave) * kSubsteps));
  }
  // Scaled so that the tail at 0 is a half; the slope is that of one step.
  const u128 whole = tails[0];
  const auto scaled = [&](u128 value) { return int64_t((value << (kTailBits - 1)) / whole); };
  pieces_.resize(nodes);
  std::vector<int64_t> values(nodes);
  for (size_t i = 0; i < nodes; ++i) values[i] = scaled(tails[i]);
  for (size_t i = 0; i + 1 < nodes; ++i) {
    const int octave = octave_of(i);
    const int64_t left = scaled((u128(heights[i]) * 24 << octave) / kStepsAnOctave),
                  right = scaled((u128(heights[i + 1]) * 24 << octave) / kStepsAnOctave),
                  fall = values[i] - values[i + 1];
    pieces_[i] = {values[i], left, 3 * fall - 2 * left - right, left + right - 2 * fall};
  }
  pieces_[nodes - 1] = {0, 0, 0, 0};
}

uint64_t Shape::tail(uint64_t position) const noexcept {
  constexpr int kWithin = 20;  // fraction bits of the place within a piece
  const int octave = std::max(0, int(std::bit_width(position)) - kPositionBits - 1);
  const int shift = kPositionBits - 6 + octave;
  const uint64_t steps = position >> shift;
  const uint64_t piece = steps < kStepsAnOctave ? steps : steps + uint64_t(kStepsAnOctave) * uint64_t(octave);
  if (piece >= pieces_.size()) return 0;
  const uint64_t rest = position & ((uint64_t(1) << shift) - 1);
  const auto t = int64_t(shift > kWithin ? rest >> (shift - kWithin) : rest << (kWithin - shift));
  const Piece& p = pieces_[size_t(piece)];
  const int64_t fall = (t * (p.slope + ((t * (p.square + ((t * p.cube) >> kWithin))) >> kWithin))) >> kWithin;
  return uint64_t(std::max<int64_t>(0, p.value - fall));
}

namespace {

// P(X > edge) of a component, Q47. edge: twice an integer's upper or lower edge, so odd.
uint64_t upper(const Component& c, int64_t edge) noexcept {
  const int64_t distance = edge * (int64_t(1) << (kScaleBits - 1)) - c.mean;
  const auto far = uint64_t(distance < 0 ? -distance : distance);
  const uint64_t position = (far << Shape::kPositionBits) / c.scale;  // means and edges leave far below 2^36
  const uint64_t tail = c.shape->tail(position);
  return distance < 0 ? (uint64_t(1) << Shape::kTailBits) - tail : tail;
}

// The weighted sum over components, weights of 16 bits that sum to 2^16 in the end.
class Mixture {
 public:
  explicit Mixture(std::span<const Component> components) : components_(components) {
    TERSOR_REQUIRE(!components.empty() && components.size() <= kMostComponents, Code::bad_call, "a mixture of ",
                   components.size(), " distributions, 1..", kMostComponents, " are allowed");
    uint64_t sum = 0;
    for (const Component& c : components) {
      TERSOR_REQUIRE(c.scale >= kLeastScale && c.scale <= kMostScale, Code::bad_call, "a scale of ",
                     double(c.scale) / (1 << kScaleBits), ", 1/256..8192 are allowed");
      sum += c.weight;
    }
    TERSOR_REQUIRE(sum > 0 && sum < uint64_t(1) << 32, Code::bad_call, "weights sum to ", sum,
                   ", more than 0 and less than 2^32 are needed");
    sum_ = sum;
  }
  uint64_t operator()(int64_t edge) const noexcept {
    if (components_.size() == 1) return upper(components_[0], edge);
    u128 weighted = 0;
    for (const Component& c : components_) weighted += u128(upper(c, edge)) * c.weight;
    return uint64_t(weighted / sum_);
  }

 private:
  std::span<const Component> components_;
  uint64_t sum_ = 0;
};

}  // namespace

Masses masses_of(std::span<const Component> components, int precision) {
  const Mixture above(components);
  TERSOR_REQUIRE(precision >= 12 && precision <= 16, Code::bad_call, "a table's precision is in 12..16, not ",
                 precision);
  const uint64_t half_slot = uint64_t(1) << (Shape::kTailBits - precision - 1);
  const auto center = [](const Component& c) { return (int64_t(c.mean) + (1 << (kScaleBits - 1))) >> kScaleBits; };
  int64_t first = INT64_MAX, last = INT64_MIN;
  for (const Component& c : components) first = std::min(first, center(c)), last = std::max(last, center(c));
  TERSOR_REQUIRE(last - first < int64_t(kMostTableSymbols) - 1, Code::bad_call, "a mixture's means lie ", last - first,
                 " apart, less than ", kMostTableSymbols - 1, " are allowed");
  // From the outermost means outward masses only fall, so the first that is too small ends the table.
  Masses masses;
  std::vector<uint64_t> below;
  const uint64_t inner = above(2 * first - 1);
  uint64_t edge = inner;
  const size_t most = kMostTableSymbols - 1 - size_t(last - first + 1);
  for (int64_t k = first - 1; below.size() < most / 2; --k) {
    const uint64_t next = above(2 * k - 1), mass = std::max(next, edge) - edge;
    if (mass < half_slot) break;
    below.push_back(mass);
    edge = std::max(next, edge);
  }
  masses.outside = (uint64_t(1) << Shape::kTailBits) - edge;
  masses.low = int32_t(first - int64_t(below.size()));
  masses.mass.assign(below.rbegin(), below.rend());
  edge = inner;
  for (int64_t k = first; masses.mass.size() < kMostTableSymbols - 1; ++k) {
    const uint64_t next = std::min(edge, above(2 * k + 1)), mass = edge - next;
    if (k > last && mass < half_slot) break;
    masses.mass.push_back(mass);
    edge = next;
  }
  masses.outside += edge;
  TERSOR_REQUIRE(*std::max_element(masses.mass.begin(), masses.mass.end()) >= half_slot, Code::bad_call, "scales from ",
                 double(components[0].scale) / (1 << kScaleBits), " on are too wide for a precision of ", precision,
                 ": the likeliest integer is worth less than half a slot");
  return masses;
}

namespace {

const Shape& shape_of(Family family) {
  static const Shape gaussian(Family::gaussian, 0), laplace(Family::laplace, 0), logistic(Family::logistic, 0);
  return family == Family::gaussian ? gaussian : family == Family::laplace ? laplace : logistic;
}

// Student's shapes take one to two milliseconds each: one for each number of degrees of freedom.
class Shapes {
 public:
  Shapes(Family family, std::span<const uint32_t> freedoms, size_t count) : family_(family), freedoms_(freedoms) {
    const size_t needed = family == Family::student_t ? count : 0;
    TERSOR_REQUIRE(freedoms.size() == needed, Code::bad_call, freedoms.size(), " degrees of freedom for ", count,
                   " distributions, ", needed, " are needed");
    for (const uint32_t freedom : freedoms) {
      TERSOR_REQUIRE(freedom >= kLeastFreedom && freedom <= kMostFreedom, Code::bad_call, "degrees of freedom are ",
                     double(freedom) / (1 << kFreedomBits), ", 1..256 are allowed");
      if (!made_.contains(freedom)) made_.emplace(freedom, Shape(family, freedom));
    }
  }
  const Shape& operator[](size_t i) const { return freedoms_.empty() ? shape_of(family_) : made_.at(freedoms_[i]); }

 private:
  Family family_;
  std::span<const uint32_t> freedoms_;
  std::map<uint32_t, Shape> made_;
};

}  // namespace

TableSet make_mixtures(Family family, size_t components, std::span<const uint32_t> weights,
                       std::span<const int32_t> means, std::span<const uint32_t> scales,
                       std::span<const uint32_t> freedoms, int precision, int fraction_bits) {
  TERSOR_REQUIRE(components >= 1 && components <= kMostComponents && scales.size() % components == 0 &&
                     weights.size() == scales.size() && means.size() == scales.size(),
                 Code::bad_call, "mixtures of ", components, " distributions (1..", kMostComponents,
                 " are allowed): ", weights.size(), " weights, ", means.size(), " means and ", scales.size(),
                 " scales");
  TERSOR_REQUIRE(fraction_bits >= 0 && fraction_bits <= kMostFractionBits, Code::bad_call, fraction_bits,
                 " fraction bits, 0..", kMostFractionBits, " are allowed");
  TERSOR_REQUIRE(scales.size() / components <= kMostTables, Code::bad_call, scales.size() / components,
                 " tables, at most ", kMostTables, " are allowed");
  const Shapes shapes(family, freedoms, scales.size());
  const auto masses = [&](size_t table) {
    const size_t first = (table >> fraction_bits) * components;
    const int64_t fraction = int64_t(table) & ((1 << fraction_bits) - 1);
    Component parts[kMostComponents];
    for (size_t c = 0; c < components; ++c) {
      const int64_t mean = int64_t(means[first + c]) + (fraction << (kScaleBits - fraction_bits));
      TERSOR_REQUIRE(mean <= INT32_MAX, Code::bad_call, "a mean of ", double(mean) / (1 << kScaleBits),
                     ", less than 32768 is allowed");
      parts[c] = {&shapes[first + c], weights[first + c], int32_t(mean), scales[first + c]};
    }
    return masses_of(std::span(parts, components), precision);
  };
  return TableSet::from_masses((scales.size() / components) << fraction_bits, masses, precision, fraction_bits);
}

TableSet make_tables(Family family, std::span<const uint32_t> scales, std::span<const uint32_t> freedoms, int precision,
                     int fraction_bits) {
  const std::vector<uint32_t> weights(scales.size(), 1);
  const std::vector<int32_t> means(scales.size(), 0);
  return make_mixtures(family, 1, weights, means, scales, freedoms, precision, fraction_bits);
}

Masses masses_of_pmf(int32_t low, std::span<const double> pmf, double outside) {
  double most = outside;
  const auto check = [](double p, size_t i) {
    TERSOR_REQUIRE(p >= 0 && std::isfinite(p), Code::bad_call, "probability ", i, " is ", p,
                   ", finite and not negative is needed");
  };
  check(outside, pmf.size());
  for (size_t i = 0; i < pmf.size(); ++i) check(pmf[i], i), most = std::max(most, pmf[i]);
  int exponent;
  std::frexp(most, &exponent);  // most < 2^exponent
  const int shift = 46 - int(std::bit_width(pmf.size() + 1)) - exponent;
  const auto mass = [&](double p) { return uint64_t(std::nearbyint(std::ldexp(p, shift))); };
  Masses masses;
  masses.low = low;
  masses.outside = mass(outside);
  masses.mass.reserve(pmf.size());
  for (const double p : pmf) masses.mass.push_back(mass(p));
  return masses;
}

}  // namespace tersor::entropy
