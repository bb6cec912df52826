#include "entropy/table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "core/bits.h"
#include "entropy/bit_io.h"

namespace tersor::entropy {
namespace {

constexpr int kFraction = 10;  // bits of the mantissa that index the logarithm's table

// log2(1 + i / 1024) in Q32 by repeated squaring: integers only, so that every machine holds the same values.
constexpr std::array<uint64_t, (1 << kFraction) + 1> make_log2() {
  std::array<uint64_t, (1 << kFraction) + 1> table{};
  for (uint64_t i = 0; i < (1 << kFraction); ++i) {
    uint64_t mantissa = ((1 << kFraction) + i) << (31 - kFraction);  // Q31 in [1, 2)
    uint64_t log = 0;
    for (int bit = 31; bit >= 12; --bit) {
      mantissa = (mantissa * mantissa) >> 31;
      if (mantissa >> 32) mantissa >>= 1, log |= uint64_t(1) << bit;
    }
    table[size_t(i)] = log;
  }
  table[1 << kFraction] = uint64_t(1) << 32;
  return table;
}
constexpr auto kLog2 = make_log2();

uint64_t log2_q32(uint32_t value) noexcept {  // value >= 1; linear between the table's entries
  const int exponent = std::bit_width(value) - 1;
  const uint64_t mantissa = uint64_t(value) << (32 - exponent) & 0xffffffffu;  // Q32 below 1
  const size_t i = size_t(mantissa >> (32 - kFraction));
  const uint64_t rest = mantissa & ((uint64_t(1) << (32 - kFraction)) - 1);
  const uint64_t step = kLog2[i + 1] - kLog2[i];
  return (uint64_t(exponent) << 32) + kLog2[i] + ((step * (rest >> 2)) >> (30 - kFraction));
}

// log2((f + 1) / f) in Q32. Up to 1023 both logarithms are entries of the table; beyond, linear steps would make the
// rounding miss its optimum, and 2 atanh(1 / (2 f + 1)) / ln 2 needs two terms.
uint64_t log2_step_q32(uint32_t f) noexcept {
  if (f < (1 << kFraction)) return log2_q32(f + 1) - log2_q32(f);
  constexpr uint64_t kTwoOverLn2 = 12392656037;  // 2 / ln 2 in Q32
  const uint64_t t = 2 * uint64_t(f) + 1, first = (kTwoOverLn2 << 8) / t;
  return (first + first / (3 * t * t)) >> 8;
}

// Slots are moved one at a time to where they save most, until no move saves anything. The cost is convex in each
// frequency, so this ends at the optimum; starting from the rounded shares it takes few moves.
class SlotMover {
 public:
  SlotMover(std::span<const uint64_t> counts, uint64_t total, std::span<uint32_t> frequencies)
      : frequencies_(frequencies), weight_(counts.size()), gain_(counts.size()), loss_(counts.size()) {
    const int shift = std::max(0, int(std::bit_width(total)) - 31);  // weight times a logarithm in Q32 fits 64 bits
    for (size_t s = 0; s < counts.size(); ++s)
      if (counts[s]) weight_[s] = std::max<uint64_t>(1, counts[s] >> shift), update(s);
  }
  void grow() { change(best_gain(), +1); }
  void shrink() { change(least_loss(), -1); }
  bool exchange() {
    const size_t to = best_gain(), from = least_loss();
    if (from == to || frequencies_[from] <= 1 || gain_[to] <= loss_[from]) return false;
    change(to, +1), change(from, -1);
    return true;
  }

 private:
  static constexpr uint64_t kNever = ~uint64_t(0);
  size_t best_gain() const { return size_t(std::max_element(gain_.begin(), gain_.end()) - gain_.begin()); }
  size_t least_loss() const {  // absent symbols lose 0 - 1 = kNever
    return size_t(std::min_element(loss_.begin(), loss_.end(), [](uint64_t a, uint64_t b) { return a - 1 < b - 1; }) -
                  loss_.begin());
  }
  void change(size_t s, int by) { frequencies_[s] += uint32_t(by), update(s); }
  void update(size_t s) {
    const uint32_t f = frequencies_[s];
    gain_[s] = weight_[s] * log2_step_q32(f);
    loss_[s] = f > 1 ? weight_[s] * log2_step_q32(f - 1) : kNever;
  }
  std::span<uint32_t> frequencies_;
  std::vector<uint64_t> weight_, gain_, loss_;  // bits saved by one more slot, lost by one less
};

void round_to_slots(std::span<const uint64_t> counts, uint64_t total, uint32_t slots, std::span<uint32_t> frequencies) {
  uint64_t sum = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] == 0) continue;
    const auto share = (static_cast<unsigned __int128>(counts[s]) * slots + total / 2) / total;
    frequencies[s] = std::max<uint32_t>(1, uint32_t(share));
    sum += frequencies[s];
  }
  SlotMover mover(counts, total, frequencies);
  for (; sum < slots; ++sum) mover.grow();
  for (; sum > slots; --sum) mover.shrink();
  for (size_t moves = 0; moves < 2 * counts.size() && mover.exchange(); ++moves) {
  }
}

}  // namespace

uint32_t cost_q16(uint32_t part, uint32_t whole) noexcept { return uint32_t((log2_q32(whole) - log2_q32(part)) >> 16); }

Table::Table(std::vector<uint32_t> frequencies, int precision, bool escape)
    : frequencies_(std::move(frequencies)), precision_(precision), escape_(escape) {
  while (frequencies_[first_] == 0) ++first_;
  last_ = frequencies_.size() - 1;
  while (frequencies_[last_] == 0) --last_;
}

Table Table::from_frequencies(std::vector<uint32_t> frequencies, int precision, bool escape) {
  TERSOR_REQUIRE(precision >= kLeastPrecision && precision <= kMostPrecision, Code::bad_call,
                 "a table's precision is in 12..16, not ", precision);
  TERSOR_REQUIRE(frequencies.size() <= kMostSymbols + escape, Code::bad_call, "a table has at most ", kMostSymbols,
                 " symbols, not ", frequencies.size());
  const uint64_t sum = std::accumulate(frequencies.begin(), frequencies.end(), uint64_t(0));
  TERSOR_REQUIRE(sum == uint64_t(1) << precision, Code::bad_call, "frequencies sum to ", sum, ", not to 2^", precision);
  return Table(std::move(frequencies), precision, escape);
}

Table Table::from_counts(std::span<const uint64_t> counts, int precision) {
  TERSOR_REQUIRE(counts.size() <= kMostSymbols, Code::bad_call, "a table has at most ", kMostSymbols, " symbols, not ",
                 counts.size());
  TERSOR_REQUIRE(precision == 0 || (precision >= kLeastPrecision && precision <= kMostPrecision), Code::bad_call,
                 "a table's precision is in 12..16, not ", precision);
  uint64_t total = 0;
  size_t present = 0;
  for (const uint64_t count : counts) {
    total = checked_add(total, count, "counts");
    present += count != 0;
  }
  TERSOR_REQUIRE(present > 0, Code::bad_call, "no symbol is counted: a table needs at least one");
  if (precision == 0) {
    const int least = std::clamp(int(std::bit_width(present)) + 1, kLeastPrecision, kMostPrecision);
    Table best = from_counts(counts, least);
    if (best.single()) return best;
    const auto size_of = [&](const Table& table) {
      std::vector<uint8_t> bytes;
      table.serialize(bytes);
      return table.cost_q16(counts) + (uint64_t(bytes.size()) << 19);
    };
    for (int p = least + 1; p <= kMostPrecision; ++p) {
      Table next = from_counts(counts, p);
      if (size_of(next) < size_of(best)) best = std::move(next);
    }
    return best;
  }
  const uint32_t slots = 1u << precision;
  std::vector<uint32_t> frequencies(counts.size());
  if (present <= slots) {
    round_to_slots(counts, total, slots, frequencies);
    return Table(std::move(frequencies), precision, false);
  }
  // Whoever is not worth a whole slot gives way to the escape; the most frequent stays in any case.
  const size_t top = size_t(std::max_element(counts.begin(), counts.end()) - counts.begin());
  std::vector<uint64_t> kept(counts.size() + 1);
  for (size_t s = 0; s < counts.size(); ++s) {
    const bool stays = s == top || static_cast<unsigned __int128>(counts[s]) * slots >= total;
    kept[stays ? s : counts.size()] += counts[s];
  }
  frequencies.resize(kept.size());
  round_to_slots(kept, total, slots, frequencies);
  return Table(std::move(frequencies), precision, true);
}

uint64_t Table::cost_q16(std::span<const uint64_t> counts) const noexcept {
  uint64_t cost = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] == 0) continue;
    const uint32_t f = frequencies_[s] ? frequencies_[s] : frequencies_.back();  // not present: by the escape
    TERSOR_ASSERT(f > 0);
    cost += counts[s] * entropy::cost_q16(f, 1u << precision_);
  }
  return cost;
}

void Table::serialize(std::vector<uint8_t>& out) const {
  out.push_back(uint8_t(precision_ | escape_ << 7));
  put_varint(out, first_);
  put_varint(out, last_ - first_);
  put_varint(out, frequencies_.size() - 1 - last_);
  if (single()) return;
  BitWriter bits(out);
  int previous = precision_ - 4;
  for (size_t s = first_; s <= last_;) {
    const int width = std::bit_width(frequencies_[s]);
    const int step = width - previous;
    bits.put_gamma(uint32_t(step > 0 ? 2 * step : -2 * step + 1));  // 0, 1, -1, 2, ... -> 1, 2, 3, 4, ...
    if (width > 0) {
      bits.put(frequencies_[s] & ((1u << (width - 1)) - 1), width - 1);
      previous = width, ++s;
      continue;
    }
    size_t run = 1;
    while (frequencies_[s + run] == 0) ++run;  // ends: the last frequency is not 0
    bits.put_gamma(uint32_t(run));
    s += run;
  }
  bits.finish();
}

Table Table::parse(std::span<const uint8_t>& data) {
  TERSOR_REQUIRE(!data.empty(), Code::bad_data, "table: 0 bytes, at least 4 are needed");
  const int precision = data[0] & 127;
  const bool escape = data[0] >> 7;
  TERSOR_REQUIRE(precision >= kLeastPrecision && precision <= kMostPrecision, Code::bad_data, "table: precision ",
                 precision, ", 12..16 is needed");
  data = data.subspan(1);
  const uint64_t first = take_varint(data, "table"), span = take_varint(data, "table"),
                 after = take_varint(data, "table");
  TERSOR_REQUIRE(first < kMostSymbols + 1 && span < kMostSymbols + 1 && after < kMostSymbols + 1 &&
                     first + span + after < kMostSymbols + escape,
                 Code::bad_data, "table: ", first, " + ", span, " + ", after, " symbols, at most ", kMostSymbols,
                 " are allowed");
  std::vector<uint32_t> frequencies(size_t(first + span + after + 1));
  const size_t last = size_t(first + span);
  if (span == 0) {
    frequencies[last] = 1u << precision;
    return Table(std::move(frequencies), precision, escape);
  }
  BitReader bits(data);
  uint64_t sum = 0;
  int previous = precision - 4;
  for (size_t s = size_t(first); s <= last;) {
    const uint32_t code = bits.take_gamma(6);
    const int width = previous + (code % 2 ? -int(code / 2) : int(code / 2));
    TERSOR_REQUIRE(width >= 0 && width <= precision, Code::bad_data, "table: a frequency of ", width, " bits, at most ",
                   precision, " are allowed");
    if (width > 0) {
      sum += frequencies[s++] = 1u << (width - 1) | bits.take(width - 1);
      previous = width;
      continue;
    }
    const uint32_t run = bits.take_gamma(17);
    TERSOR_REQUIRE(s > first && s + run <= last, Code::bad_data, "table: ", run, " absent symbols at ", s, " of ",
                   last);
    s += run;
  }
  TERSOR_REQUIRE(sum == uint64_t(1) << precision, Code::bad_data, "table: frequencies sum to ", sum, ", not to 2^",
                 precision);
  TERSOR_REQUIRE(bits.padding_is_zero(), Code::bad_data, "table: padding bits are not 0");
  data = data.subspan(bits.used());
  return Table(std::move(frequencies), precision, escape);
}

}  // namespace tersor::entropy
