// The loop of stride_scores_scalar.cpp, which compilers take sixteen at a time.
#include "lossless/stride_scores.h"

namespace tersor::lossless {
namespace avx512 {

template <class U>
static void add_narrow(U here, const U* others, size_t count, uint32_t* scores) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const U difference = U(here - others[i]);
    const U size = difference >> (8 * sizeof(U) - 1) ? U(~difference) : difference;
    const int32_t large = int32_t(uint32_t(size) >> 20);
    const float scaled = large ? float(large) : float(int32_t(uint32_t(size) & 0xfffff)) + 0.5f;
    scores[i] += (__builtin_bit_cast(uint32_t, scaled) >> 16) + (large ? 20 << 7 : 0);
  }
}

static void add_wide(uint64_t here, const uint64_t* others, size_t count, uint32_t* scores) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t difference = here - others[i], size = difference >> 63 ? ~difference : difference;
    const uint32_t shift = size >> 44 ? 40 : size >> 20 ? 20 : 0;
    const float scaled = float(int32_t(size >> shift)) + (shift ? 0.0f : 0.5f);
    scores[i] += (__builtin_bit_cast(uint32_t, scaled) >> 16) + (shift << 7);
  }
}

}  // namespace avx512

void stride_scores_avx512(uint8_t here, std::span<const uint8_t> others, uint32_t* scores) noexcept {
  avx512::add_narrow(here, others.data(), others.size(), scores);
}

void stride_scores_avx512(uint16_t here, std::span<const uint16_t> others, uint32_t* scores) noexcept {
  avx512::add_narrow(here, others.data(), others.size(), scores);
}

void stride_scores_avx512(uint32_t here, std::span<const uint32_t> others, uint32_t* scores) noexcept {
  avx512::add_narrow(here, others.data(), others.size(), scores);
}

void stride_scores_avx512(uint64_t here, std::span<const uint64_t> others, uint32_t* scores) noexcept {
  avx512::add_wide(here, others.data(), others.size(), scores);
}

}  // namespace tersor::lossless
