#include "entropy/range.h"

#include <algorithm>
#include <bit>

#include "core/bits.h"
#include "entropy/bit_io.h"

namespace tersor::entropy::range {
namespace {

constexpr const char* kWhat = "range stream";
constexpr uint8_t kStream = 5, kVersion = 1;  // core/ids.def
constexpr size_t kHeadBytes = 2, kWordBytes = 4, kMostBeyond = 8;

// Estimates of a context, with what every bin needs of the rates.
class Adaptation {
 public:
  explicit Adaptation(Rates rates)
      : quick_(rates.quick), slow_(rates.slow), quick_half_(1 << (quick_ - 1)), slow_half_(1 << (slow_ - 1)) {}
  static uint64_t probability(State state) { return (uint32_t(state.quick) + state.slow) >> 1; }
  // Rounds to the nearest, without a branch on the bin: where bins are hard to guess, branches are too.
  State after(State state, uint32_t one) const {
    const int target = int(one << 16);
    return {uint16_t(state.quick + ((target - state.quick + quick_half_) >> quick_)),
            uint16_t(state.slow + ((target - state.slow + slow_half_) >> slow_))};
  }

 private:
  int quick_, slow_, quick_half_, slow_half_;
};

// An encoder's interval [low, low + range) of 64 bits, range at least 2^32 between bins. Lives in registers while a
// call runs. From one word to the next low passes 2^64 once at most, so a carry can wait for the word.
struct Interval {
  uint64_t low, range;
  uint32_t carry;
  std::vector<uint8_t>& out;

  void add(uint64_t part) {
    low += part;
    carry += low < part;
  }
  void normalize() {
    if (range >> 32 == 0) [[unlikely]] {
      put_word(out, carry, uint32_t(low >> 32));
      low <<= 32, range <<= 32, carry = 0;
    }
  }
  void bin(const Adaptation& adaptation, State& state, uint32_t one) {
    const uint64_t bound = (range >> 16) * Adaptation::probability(state);
    const uint64_t mask = uint64_t(one) - 1;  // ones for a zero, which takes the upper part
    add(bound & mask);
    range = bound + ((range - 2 * bound) & mask);
    state = adaptation.after(state, one);
    normalize();
  }
  void bits(uint32_t value, int width) {
    range >>= width;
    add(range * value);
    normalize();
  }

  static void carry_into(std::vector<uint8_t>& bytes) {
    size_t at = bytes.size();
    while (++bytes[--at] == 0) TERSOR_ASSERT(at > kHeadBytes);
  }
  __attribute__((noinline)) static void put_word(std::vector<uint8_t>& bytes, uint32_t carried, uint32_t word) {
    if (carried) carry_into(bytes);
    const uint8_t four[] = {uint8_t(word >> 24), uint8_t(word >> 16), uint8_t(word >> 8), uint8_t(word)};
    bytes.insert(bytes.end(), four, four + 4);
  }
};

// A decoder's: value is how far into the interval the stream points, always below range.
struct Pointed {
  uint64_t value, range;
  std::span<const uint8_t> data;
  size_t at;
  bool impossible;

  void normalize() {
    if (range >> 32 == 0) [[unlikely]] {
      range <<= 32;
      value = value << 32 | word();
    }
  }
  uint32_t bin(const Adaptation& adaptation, State& state) {
    const uint64_t bound = (range >> 16) * Adaptation::probability(state);
    const uint64_t rest = value - bound;
    const uint64_t mask = uint64_t(0) - (value < bound);
    const uint32_t one = uint32_t(mask & 1);
    value = rest + (bound & mask);
    range = range - bound + ((2 * bound - range) & mask);
    state = adaptation.after(state, one);
    normalize();
    return one;
  }
  uint32_t bits(int width) {
    range >>= width;
    uint64_t found = width == 1 ? value >= range : value / range;
    value -= found * range;
    if (found >> width || value >= range) [[unlikely]]  // in what the shift has cut off
      impossible = true, found = 0, value = 0;
    normalize();
    return uint32_t(found);
  }

  uint32_t word() {
    const size_t from = at;
    at += kWordBytes;
    if (from + kWordBytes > data.size()) [[unlikely]]
      return last_word(data, from);
    return __builtin_bswap32(load_le<uint32_t>(data.data() + from));
  }
  __attribute__((noinline)) static uint32_t last_word(std::span<const uint8_t> bytes, size_t from) {
    uint32_t found = 0;
    for (size_t i = from; i < from + kWordBytes; ++i) found = found << 8 | (i < bytes.size() ? bytes[i] : 0);
    return found;
  }
};

template <class Id>
void require_contexts(std::span<const Id> ids, size_t contexts, size_t span) {
  Id most = 0;
  for (const Id id : ids) most = std::max(most, id);
  TERSOR_REQUIRE(span >= 1 && span <= contexts && (ids.empty() || most <= contexts - span), Code::bad_call, "context ",
                 uint64_t(most), " and ", span - 1, " behind it, ", contexts, " are there");
}

void require_width(int width) {
  TERSOR_REQUIRE(width >= 1 && width <= kMostWidth, Code::bad_call, "values of ", width, " bits, 1..32 are allowed");
}

void require_order(int order) {
  TERSOR_REQUIRE(order >= 0 && order <= kMostOrder, Code::bad_call, "Exp-Golomb order ", order, ", 0..31 are allowed");
}

template <class A, class B>
void require_pairs(std::span<A> a, std::span<B> b, const char* what) {
  TERSOR_REQUIRE(a.size() == b.size(), Code::bad_call, a.size(), " ", what, " for ", b.size(), " contexts");
}

}  // namespace

States::States(size_t contexts, Rates rates, std::span<const uint16_t> start) : rates_(rates) {
  TERSOR_REQUIRE(contexts >= 1 && contexts <= kMostContexts, Code::bad_call, contexts,
                 " contexts, 1..2^24 are allowed");
  for (const int rate : {rates.quick, rates.slow})
    TERSOR_REQUIRE(rate >= kLeastRate && rate <= kMostRate, Code::bad_call, "a rate of ", rate, ", 2..12 are allowed");
  TERSOR_REQUIRE(start.empty() || start.size() == contexts, Code::bad_call, start.size(), " start probabilities for ",
                 contexts, " contexts");
  TERSOR_REQUIRE(std::ranges::find(start, uint16_t(0)) == start.end(), Code::bad_call,
                 "a start probability of 0, 1..65535 are allowed");
  states_.resize(contexts, {0x8000, 0x8000});
  for (size_t i = 0; i < start.size(); ++i) states_[i] = {start[i], start[i]};
}

Encoder::Encoder(size_t contexts, Rates rates, std::span<const uint16_t> start)
    : states_(contexts, rates, start), out_{kStream, kVersion} {}

void Encoder::require_open() const { TERSOR_REQUIRE(!finished_, Code::bad_call, "the encoder has finished"); }

template <class Id>
void Encoder::encode(std::span<const uint8_t> bins, std::span<const Id> contexts) {
  require_open();
  require_pairs(bins, contexts, "bins");
  require_contexts(contexts, states_.size(), 1);
  uint8_t seen = 0;
  for (const uint8_t one : bins) seen |= one;
  TERSOR_REQUIRE(seen <= 1, Code::bad_call, "bins are 0 or 1");
  const Adaptation adaptation(states_.rates());
  State* const states = states_.data();
  Interval interval{low_, range_, carry_, out_};
  for (size_t i = 0; i < bins.size(); ++i) interval.bin(adaptation, states[contexts[i]], bins[i]);
  low_ = interval.low, range_ = interval.range, carry_ = interval.carry;
}

void Encoder::encode_bypass(std::span<const uint32_t> values, int width) {
  require_open();
  require_width(width);
  uint32_t seen = 0;
  for (const uint32_t value : values) seen |= value;
  TERSOR_REQUIRE(uint64_t(seen) >> width == 0, Code::bad_call, "a value of ", std::bit_width(seen), " bits, ", width,
                 " are given to each");
  Interval interval{low_, range_, carry_, out_};
  for (const uint32_t value : values) interval.bits(value, width);
  low_ = interval.low, range_ = interval.range, carry_ = interval.carry;
}

template <class Id>
void Encoder::encode_exp_golomb(std::span<const uint32_t> values, std::span<const Id> first, size_t span, int order,
                                bool zigzag) {
  require_open();
  require_order(order);
  require_pairs(values, first, "values");
  require_contexts(first, states_.size(), span);
  const Adaptation adaptation(states_.rates());
  Interval interval{low_, range_, carry_, out_};
  const int most = kMostWidth - order;  // ones of a prefix: behind so many no zero is needed
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t value = zigzag ? values[i] << 1 ^ uint32_t(int32_t(values[i]) >> 31) : values[i];
    const uint64_t raised = value + (uint64_t(1) << order);
    const int width = std::bit_width(raised) - 1, ones = width - order;
    State* const states = states_.data() + first[i];
    for (int k = 0; k < ones; ++k) interval.bin(adaptation, states[std::min(size_t(k), span - 1)], 1);
    if (ones < most) interval.bin(adaptation, states[std::min(size_t(ones), span - 1)], 0);
    if (width > 0) interval.bits(uint32_t(raised - (uint64_t(1) << width)), width);
  }
  low_ = interval.low, range_ = interval.range, carry_ = interval.carry;
}

std::vector<uint8_t> Encoder::finish() {
  require_open();
  finished_ = true;
  // The shortest number in the interval, which zeros follow; range >= 2^32 leaves four bytes at most.
  int bytes = 0;
  uint64_t up = uint64_t(0) - low_;
  while (up >= range_) ++bytes, up = (uint64_t(0) - low_) & (~uint64_t(0) >> (8 * bytes));
  const uint64_t last = low_ + up;
  if (carry_ + (last < up)) Interval::carry_into(out_);
  for (int i = 0; i < bytes; ++i) out_.push_back(uint8_t(last >> (56 - 8 * i)));
  return std::move(out_);
}

Decoder::Decoder(std::span<const uint8_t> data, size_t contexts, Rates rates, std::span<const uint16_t> start)
    : states_(contexts, rates, start) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  data_ = data.subspan(kHeadBytes);
  Pointed pointed{0, range_, data_, 0, false};
  value_ = uint64_t(pointed.word()) << 32;
  value_ |= pointed.word();
  at_ = pointed.at;
  TERSOR_REQUIRE(value_ < range_, Code::bad_data, kWhat, ": begins with eight bytes of 255");
}

void Decoder::require_sound() const {
  TERSOR_REQUIRE(at_ <= data_.size() + kMostBeyond, Code::bad_data, kWhat, ": ends after ", data_.size() + kHeadBytes,
                 " bytes, more is needed");
  TERSOR_REQUIRE(!impossible_, Code::bad_data, kWhat, ": bits that no encoder writes");
}

template <class Id>
void Decoder::decode(std::span<const Id> contexts, std::span<uint8_t> bins) {
  require_pairs(bins, contexts, "bins");
  require_contexts(contexts, states_.size(), 1);
  const Adaptation adaptation(states_.rates());
  State* const states = states_.data();
  Pointed pointed{value_, range_, data_, at_, impossible_};
  for (size_t i = 0; i < bins.size(); ++i) bins[i] = uint8_t(pointed.bin(adaptation, states[contexts[i]]));
  value_ = pointed.value, range_ = pointed.range, at_ = pointed.at;
  require_sound();
}

void Decoder::decode_bypass(int width, std::span<uint32_t> values) {
  require_width(width);
  Pointed pointed{value_, range_, data_, at_, impossible_};
  for (uint32_t& value : values) value = pointed.bits(width);
  value_ = pointed.value, range_ = pointed.range, at_ = pointed.at, impossible_ = pointed.impossible;
  require_sound();
}

template <class Id>
void Decoder::decode_exp_golomb(std::span<const Id> first, size_t span, int order, bool zigzag,
                                std::span<uint32_t> values) {
  require_order(order);
  require_pairs(values, first, "values");
  require_contexts(first, states_.size(), span);
  const Adaptation adaptation(states_.rates());
  Pointed pointed{value_, range_, data_, at_, impossible_};
  const int most = kMostWidth - order;
  for (size_t i = 0; i < values.size(); ++i) {
    State* const states = states_.data() + first[i];
    int ones = 0;
    while (ones < most && pointed.bin(adaptation, states[std::min(size_t(ones), span - 1)])) ++ones;
    const int width = ones + order;
    const uint64_t rest = width > 0 ? pointed.bits(width) : 0;
    const uint64_t value = (uint64_t(1) << width) + rest - (uint64_t(1) << order);
    pointed.impossible |= value >> 32 != 0;
    const uint32_t found = uint32_t(value);
    values[i] = zigzag ? found >> 1 ^ (uint32_t(0) - (found & 1)) : found;
  }
  value_ = pointed.value, range_ = pointed.range, at_ = pointed.at, impossible_ = pointed.impossible;
  require_sound();
}

void Decoder::finish() const {
  require_sound();
  TERSOR_REQUIRE(at_ >= data_.size() + kWordBytes, Code::bad_data, kWhat, ": bytes are left after the last bin");
}

#define TERSOR_CONTEXT_IDS(Id)                                                                                     \
  template void Encoder::encode<Id>(std::span<const uint8_t>, std::span<const Id>);                                \
  template void Encoder::encode_exp_golomb<Id>(std::span<const uint32_t>, std::span<const Id>, size_t, int, bool); \
  template void Decoder::decode<Id>(std::span<const Id>, std::span<uint8_t>);                                      \
  template void Decoder::decode_exp_golomb<Id>(std::span<const Id>, size_t, int, bool, std::span<uint32_t>);
TERSOR_CONTEXT_IDS(uint8_t)
TERSOR_CONTEXT_IDS(uint16_t)
TERSOR_CONTEXT_IDS(uint32_t)
TERSOR_CONTEXT_IDS(uint64_t)
#undef TERSOR_CONTEXT_IDS

}  // namespace tersor::entropy::range
