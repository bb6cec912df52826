// Binary adaptive range coding: bins with a probability each, which follows what was coded; plain bits; Exp-Golomb
// numbers out of both. Calls of any kind and size may follow each other; a decoder makes the calls that the encoder
// made. Page: docs/formats/range.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy::range {

inline constexpr size_t kMostContexts = size_t(1) << 24;
inline constexpr int kLeastRate = 2, kMostRate = 12;
inline constexpr int kMostWidth = 32, kMostOrder = 31;

// Two estimates of a context's probability of a one, in 2^-16. Each moves by 2^-rate of what it is off; their mean
// codes: the quick one follows what changes, the slow one keeps what stays.
struct State {
  uint16_t quick, slow;  // 1..65535
};

struct Rates {
  int quick = 4, slow = 7;  // kLeastRate..kMostRate
};

class States {
 public:
  // start: one probability for each context, 1..65535 in 2^-16, or none: a half for all. Raises bad_call.
  States(size_t contexts, Rates rates, std::span<const uint16_t> start);
  size_t size() const noexcept { return states_.size(); }
  State* data() noexcept { return states_.data(); }
  Rates rates() const noexcept { return rates_; }

 private:
  std::vector<State> states_;
  Rates rates_;
};

// Contexts are numbered 0.., by integers of 8 to 64 bits without a sign: Id. All arguments are checked before anything
// is coded; what is wrong raises bad_call.
class Encoder {
 public:
  Encoder(size_t contexts, Rates rates, std::span<const uint16_t> start);

  // Bin i, 0 or 1, in context contexts[i].
  template <class Id>
  void encode(std::span<const uint8_t> bins, std::span<const Id> contexts);

  // Each value, below 2^width, in `width` bits; width 1..32.
  void encode_bypass(std::span<const uint32_t> values, int width);

  // Exp-Golomb codes of order 0..31: bin k of a prefix in context first[i] + min(k, span - 1), span >= 1, the rest as
  // plain bits. zigzag: the values are int32_t, coded as 0, -1, 1, -2, 2, ...
  template <class Id>
  void encode_exp_golomb(std::span<const uint32_t> values, std::span<const Id> first, size_t span, int order,
                         bool zigzag);

  // The stream. Ends the coding: every further call raises bad_call.
  std::vector<uint8_t> finish();

 private:
  void require_open() const;

  States states_;
  std::vector<uint8_t> out_;
  uint64_t low_ = 0, range_ = ~uint64_t(0);
  uint32_t carry_ = 0;  // of low_, into out_
  bool finished_ = false;
};

// Takes no byte beyond its data: zeros stand there, eight at most. Who needs more has been given a damaged stream or
// makes other calls than the encoder: bad_data. Work is bounded by what a call asks for.
class Decoder {
 public:
  // Keeps a view of data. Raises bad_data, and bad_call as the encoder does.
  Decoder(std::span<const uint8_t> data, size_t contexts, Rates rates, std::span<const uint16_t> start);

  template <class Id>
  void decode(std::span<const Id> contexts, std::span<uint8_t> bins);
  void decode_bypass(int width, std::span<uint32_t> values);
  template <class Id>
  void decode_exp_golomb(std::span<const Id> first, size_t span, int order, bool zigzag, std::span<uint32_t> values);

  // Raises bad_data where bytes are left that nothing decoded so far has called for.
  void finish() const;

 private:
  void require_sound() const;

  States states_;
  std::span<const uint8_t> data_;
  size_t at_ = 0;  // of the next word in data_, or behind it
  uint64_t value_, range_ = ~uint64_t(0);
  bool impossible_ = false;  // bits that no encoder writes were met
};

}  // namespace tersor::entropy::range
