// One loop for all levels: compilers take as many numbers at a time as a file's instructions hold. A file includes it
// once, after naming its level TERSOR_LEVEL: also a namespace, so that no level's code serves another.
#include "lossless/stride_scores.h"

namespace tersor::lossless {
namespace TERSOR_LEVEL {

template <class U>
static void add(U here, const U* others, size_t count, uint32_t* scores) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const U difference = U(here - others[i]);
    const U size = difference >> (8 * sizeof(U) - 1) ? U(~difference) : difference;
    const int32_t large = int32_t(uint32_t(size) >> 20);
    const float scaled = large ? float(large) : float(int32_t(uint32_t(size) & 0xfffff)) + 0.5f;
    scores[i] += (__builtin_bit_cast(uint32_t, scaled) >> 16) + (large ? 20 << 7 : 0);
  }
}

template <>
void add(uint64_t here, const uint64_t* others, size_t count, uint32_t* scores) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t difference = here - others[i], size = difference >> 63 ? ~difference : difference;
    const uint32_t shift = size >> 44 ? 40 : size >> 20 ? 20 : 0;
    const float scaled = float(int32_t(size >> shift)) + (shift ? 0.0f : 0.5f);
    scores[i] += (__builtin_bit_cast(uint32_t, scaled) >> 16) + (shift << 7);
  }
}

}  // namespace TERSOR_LEVEL

#define TERSOR_JOIN_(a, b) a##b
#define TERSOR_JOIN(a, b) TERSOR_JOIN_(a, b)
#define TERSOR_FOR(U)                                                                                            \
  void TERSOR_JOIN(stride_scores_, TERSOR_LEVEL)(U here, std::span<const U> others, uint32_t* scores) noexcept { \
    TERSOR_LEVEL::add(here, others.data(), others.size(), scores);                                               \
  }
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
