// The reference of sparse_map_avx512vbmi.cpp.
#include <algorithm>
#include <cstring>

#include "transform/sparse_map.h"

namespace tersor::transform {
namespace {

template <class U>
void place(const uint8_t* map, const U* others, std::span<U> values) noexcept {
  const size_t n = values.size();
  for (size_t i = 0; i < n; i += 8) {
    const uint8_t byte = map[i / 8];
    if (byte == 0) {
      std::memset(values.data() + i, 0, std::min<size_t>(8, n - i) * sizeof(U));
      continue;
    }
    for (size_t k = 0; k < std::min<size_t>(8, n - i); ++k) {
      const unsigned set = byte >> k & 1;
      values[i + k] = set ? *others : U(0);
      others += set;
    }
  }
}

}  // namespace

#define TERSOR_FOR(U)                                                                          \
  void fill_sparse_scalar(const uint8_t* map, const U* others, std::span<U> values) noexcept { \
    place(map, others, values);                                                                \
  }
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
