// From a Table to what the rANS kernels read. Rules of both layouts: docs/formats/rans8.md.
#pragma once
#include <array>
#include <span>

#include "entropy/rans_kernels.h"
#include "entropy/table.h"

namespace tersor::entropy {

// Entries that prepare_encode fills for a table.
inline size_t slot_entries(const Table& table) noexcept { return size_t(1) << table.precision(); }

// Alias layouts. table: up to 256 symbols, at least two of them present, no escape.
void prepare_decode(const Table& table, DecodeTables& out);
// The same for names: the symbols 0, 1, ... of `table` stand for symbol_of[0], ...; at most 32 of them.
void prepare_decode(const Table& table, std::span<const uint8_t, 32> symbol_of, DecodeTables& out);
void prepare_encode(const Table& table, EncodeTables& out, std::span<uint16_t> slot_of);  // slot_entries(table)

// A small alphabet for the contiguous layout: the likely symbols, each with at least 1/64 of the slots, renamed to
// 0, 1, ... in ascending order; all others become the escape, the last of the new names.
struct DirectAlphabet {
  static constexpr uint32_t kLeastFrequency = 1024;
  std::array<uint8_t, 32> symbol{};  // of each new name
  int direct = 0;                    // names without the escape
  bool escape = false;
  Table table = Table::from_frequencies({0, 1u << 16}, 16);  // over the new names, precision 16

  int names() const noexcept { return direct + escape; }
};

// The choice that costs least for `counts` (of 256 symbols), the one of fewest names among equals. escapes: whether
// symbols that are not counted may come, so that an escape is needed in any case. slack: escapes cost time, so the
// choice of most names is taken that costs at most so many 1024ths more. Returns false where none is worth coding.
bool choose_direct(std::span<const uint64_t> counts, bool escapes, DirectAlphabet& out, int slack = 0);

void prepare_decode(const DirectAlphabet& alphabet, DecodeTables& out);
void prepare_encode(const DirectAlphabet& alphabet, EncodeTables& out);

}  // namespace tersor::entropy
