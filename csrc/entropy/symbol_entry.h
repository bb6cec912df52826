// What coders see of a set's tables: plain data, which a GPU reads as well (C++17, see cuda/warp.h).
#pragma once
#include <cstdint>

namespace tersor::entropy {

inline constexpr int kSlotBits = 16;  // coders see every table in 2^16 slots
inline constexpr uint32_t kTableSlots = uint32_t(1) << kSlotBits;

// One symbol as coders want it. inverse: a little less than 1 / frequency, see encode_one in indexed_scalar.cpp.
struct SymbolEntry {
  double inverse;
  uint32_t frequency;
  uint32_t start;
};

struct TableRow {
  uint32_t entry;   // of the first symbol; the escape's stands behind the last symbol's
  int32_t low;      // the first symbol
  uint32_t count;   // symbols low, low + 1, ...
  uint32_t direct;  // count, or 0 where a symbol between them has no slot, so that each has to be looked up
};

}  // namespace tersor::entropy
