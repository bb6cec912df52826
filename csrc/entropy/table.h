// Static models as integer frequencies. A table knows no coder: it says how likely symbols are, nothing else.
// Bytes of a serialized table: docs/formats/table.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy {

inline constexpr int kLeastPrecision = 12, kMostPrecision = 16;
inline constexpr size_t kMostSymbols = 65536;

// -log2(part / whole) in units of 2^-16 bit, rounded down, in integers alone; 1 <= part <= whole < 2^32.
uint32_t cost_q16(uint32_t part, uint32_t whole) noexcept;

class Table {
 public:
  // Frequencies that minimize the coded size of `counts`: the rounding is optimal, every counted symbol gets at least
  // one slot. precision 0 takes the one in 12..16 whose coded data and serialized table are smallest together. Where
  // more symbols are counted than there are slots, the rarest share the escape. Raises bad_call without any count, for
  // over 65,536 symbols, and for a precision outside 12..16.
  static Table from_counts(std::span<const uint64_t> counts, int precision = 0);

  // As given; they must sum to 2^precision. escape: the last frequency is the escape's.
  static Table from_frequencies(std::vector<uint32_t> frequencies, int precision, bool escape = false);

  int precision() const noexcept { return precision_; }
  std::span<const uint32_t> frequencies() const noexcept { return frequencies_; }  // sum 2^precision
  bool has_escape() const noexcept { return escape_; }
  size_t first() const noexcept { return first_; }  // the first and last symbol with a frequency
  size_t last() const noexcept { return last_; }
  bool single() const noexcept { return first_ == last_; }  // then no bit needs to be coded

  // Bits, in units of 2^-16, to code `counts` with this table; every counted symbol must have a frequency.
  uint64_t cost_q16(std::span<const uint64_t> counts) const noexcept;

  void serialize(std::vector<uint8_t>& out) const;
  // Reads one table from the front of `data` and moves `data` behind it. Raises bad_data.
  static Table parse(std::span<const uint8_t>& data);

 private:
  Table(std::vector<uint32_t> frequencies, int precision, bool escape);
  std::vector<uint32_t> frequencies_;
  int precision_;
  bool escape_;
  size_t first_ = 0, last_ = 0;
};

}  // namespace tersor::entropy
