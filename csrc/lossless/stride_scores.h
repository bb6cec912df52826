// How near a value's neighbors at many distances are. Its variants equal the scalar one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::lossless {

// Adds to scores[i] about 128 log2(|here - others[i]| + 1/2), from some origin on. Only numbers of up to 24 bits are
// converted to floats, exactly, so that it does not depend on how this thread rounds.
template <class U>
using StrideScores = void(U here, std::span<const U> others, uint32_t* scores) noexcept;
StrideScores<uint8_t> stride_scores_scalar, stride_scores_avx2, stride_scores_avx512;
StrideScores<uint16_t> stride_scores_scalar, stride_scores_avx2, stride_scores_avx512;
StrideScores<uint32_t> stride_scores_scalar, stride_scores_avx2, stride_scores_avx512;
StrideScores<uint64_t> stride_scores_scalar, stride_scores_avx2, stride_scores_avx512;

}  // namespace tersor::lossless
