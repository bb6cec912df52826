// Sums along a stride, one loop for the levels whose compilers need no help. A file includes it once, after naming its
// level TERSOR_LEVEL: also a namespace, so that no level's code serves another.
#include "transform/value_bins.h"

namespace tersor::transform {
namespace TERSOR_LEVEL {

template <class U>
static void add(U* values, size_t begin, size_t end, size_t stride) noexcept {
  begin = begin > stride ? begin : stride;
  if (stride == 1 && begin < end) {
    U sum = values[begin - 1];
    for (size_t i = begin; i < end; ++i) values[i] = sum = U(sum + values[i]);
    return;
  }
  // Pieces of a stride do not depend on themselves, so compilers may take many values at once.
  while (begin < end) {
    const size_t piece = stride < end - begin ? stride : end - begin;
    const U* const before = values + begin - stride;
    U* const here = values + begin;
    for (size_t i = 0; i < piece; ++i) here[i] = U(here[i] + before[i]);
    begin += piece;
  }
}

}  // namespace TERSOR_LEVEL

#define TERSOR_JOIN_(a, b) a##b
#define TERSOR_JOIN(a, b) TERSOR_JOIN_(a, b)
#define TERSOR_FOR(U)                                                                                         \
  void TERSOR_JOIN(add_stride_, TERSOR_LEVEL)(U * values, size_t begin, size_t end, size_t stride) noexcept { \
    TERSOR_LEVEL::add(values, begin, end, stride);                                                            \
  }
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
