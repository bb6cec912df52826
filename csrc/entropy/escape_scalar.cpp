// Escapes split and merged symbol by symbol; the reference of the vector kernels.
#include "entropy/escape.h"

namespace tersor::entropy {

size_t split_escapes_scalar(const NameMap& map, const NameWindow&, const uint8_t* symbols, size_t count, uint8_t* names,
                            uint8_t* escaped) noexcept {
  uint8_t* at = escaped;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t symbol = symbols[i], name = map.name_of[symbol];
    names[i] = name;
    *at = symbol;
    at += name == map.escape;
  }
  return size_t(at - escaped);
}

bool merge_escapes_scalar(const NameMap& map, uint8_t* names, size_t count, const uint8_t*& escaped,
                          const uint8_t* escaped_end) noexcept {
  for (size_t i = 0; i < count; ++i) {
    if (names[i] != map.escape) {
      names[i] = map.symbol_of[names[i] & 31];
      continue;
    }
    if (escaped == escaped_end) return false;
    names[i] = *escaped++;
  }
  return true;
}

}  // namespace tersor::entropy
