// From the number of groups and the layout to the decoder's instance. A file of an instruction set includes it after
// naming its namespace TERSOR_LEVEL and defining in it decode<Tables, groups>, the tables Alias32<Rename>, Alias256 and
// Contiguous, and what names stand for: Consecutive, SymbolOfName.
#include "entropy/rans_kernels.h"

namespace tersor::entropy::TERSOR_LEVEL {

template <class Tables>
bool decode_groups(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
                   uint8_t* out) {
  switch (groups) {
    case 1: return decode<Tables, 1>(tables, states, floor, rows, out);
    case 2: return decode<Tables, 2>(tables, states, floor, rows, out);
    case 4: return decode<Tables, 4>(tables, states, floor, rows, out);
    default: return decode<Tables, 8>(tables, states, floor, rows, out);
  }
}

static bool decode_layouts(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor,
                           size_t rows, uint8_t* out) {
  switch (tables.layout) {
    case Layout::alias32:
      if (tables.named) return decode_groups<Alias32<SymbolOfName>>(tables, states, groups, floor, rows, out);
      return decode_groups<Alias32<Consecutive>>(tables, states, groups, floor, rows, out);
    case Layout::alias256: return decode_groups<Alias256>(tables, states, groups, floor, rows, out);
    case Layout::contiguous: return decode_groups<Contiguous>(tables, states, groups, floor, rows, out);
  }
  return false;
}

}  // namespace tersor::entropy::TERSOR_LEVEL
