// Many tables of integers at once: a symbol is coded by the table that its index names. Each covers a run of integers
// and has an escape for all others. How coders use them: docs/formats/indexed.md; bytes: docs/formats/table_set.md.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/error.h"
#include "entropy/symbol_entry.h"

namespace tersor::entropy {

inline constexpr size_t kMostTables = 4096;
inline constexpr int kMostFractionBits = 4;                 // positions of the mean between two integers: 16
inline constexpr size_t kMostTableSymbols = 65536;          // a table's, without its escape
inline constexpr size_t kMostSetSymbols = size_t(1) << 24;  // all tables' together, escapes counted
inline constexpr size_t kMostSlotless = size_t(1) << 20;    // of those, without a slot: they cost no bytes

SymbolEntry symbol_entry(uint32_t start, uint32_t frequency) noexcept;

// A table before rounding. Masses have any common scale; their sum with `outside`, the mass of all integers that are
// not listed, is 2^47 at most.
struct Masses {
  int32_t low = 0;
  std::vector<uint64_t> mass;
  uint64_t outside = 0;
};

class TableSet {
 public:
  // Rounds masses to slots. What is worth less than a quarter of a slot is left to the escape, which has one at least.
  // fraction_bits: tables stand in groups of 2^fraction_bits, one for each position of the mean between two integers.
  // Raises bad_call: no table or too many, no mass, too many symbols, precision outside 12..16.
  static TableSet from_masses(std::span<const Masses> tables, int precision, int fraction_bits = 0);
  // The same one table at a time, so that masses need not all be held.
  static TableSet from_masses(size_t tables, const std::function<Masses(size_t)>& masses_of, int precision,
                              int fraction_bits = 0);

  // Frequencies as they are, the escape's last; a row's sum is 2^precision. Where the escape has none, the most
  // frequent symbol gives it one slot of 2^16. Raises bad_call.
  struct Frequencies {
    int32_t low = 0;
    std::vector<uint32_t> frequencies;
  };
  static TableSet from_frequencies(std::vector<Frequencies> tables, int precision, int fraction_bits = 0);

  // Cumulative frequencies, from 0 to 2^precision, the last interval the escape's. Raises bad_call.
  struct Cdf {
    int32_t low = 0;
    std::span<const int32_t> values;
  };
  static TableSet from_cdfs(std::span<const Cdf> tables, int precision);

  size_t groups() const noexcept { return rows_.size() >> fraction_bits_; }  // that an index can name
  size_t tables() const noexcept { return rows_.size(); }
  int precision() const noexcept { return precision_; }
  int fraction_bits() const noexcept { return fraction_bits_; }
  std::span<const TableRow> rows() const noexcept { return rows_; }
  std::span<const SymbolEntry> entries() const noexcept { return entries_; }

  // How decoders find a slot's symbol. places()[table]: its first bucket, 24 bits | log2 of a bucket's slots, 8 bits |
  // its low, 32 bits. A bucket tells of the first two symbols that have slots in it: first slot | frequencies of both |
  // the first's number, 16 bits each. The second is the first's neighbor, or its frequency is 0, as it is for the
  // escape: what neither of the two covers has to be searched for.
  std::span<const uint64_t> places() const noexcept { return places_; }
  std::span<const uint64_t> buckets() const noexcept { return buckets_; }

  // The escape codes integers outside by their distance, in Exp-Golomb codes of this order.
  static int escape_order(uint32_t count) noexcept;

  void serialize(std::vector<uint8_t>& out) const;
  static TableSet parse(std::span<const uint8_t> data);  // to its last byte; raises bad_data

 private:
  TableSet(int precision, int fraction_bits) : precision_(precision), fraction_bits_(fraction_bits) {}
  // The same less symbols without slots at both ends, which are cut off in place. Raises bad_call.
  void append_trimmed(int32_t low, std::span<uint32_t> frequencies);
  // frequencies: sum to 2^16, the escape's last. Raises `code` beyond what a set may hold.
  void append(int32_t low, std::span<const uint32_t> frequencies, Code code);
  int precision_, fraction_bits_;
  size_t slotless_ = 0;
  std::vector<TableRow> rows_;
  std::vector<SymbolEntry> entries_;
  std::vector<uint64_t> places_, buckets_;
};

}  // namespace tersor::entropy
