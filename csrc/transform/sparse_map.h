// Values that are zero but where a map has a bit. Page: docs/formats/lossless.md, method 8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor::transform {

// Bits that are set.
size_t count_map(std::span<const uint8_t> map) noexcept;

// Readable bytes that `others` has behind its last value.
inline constexpr size_t kOthersSpare = 64;

// values[i] = the next of others where bit i of the map is set, lowest first, else 0. U: uint8_t to uint64_t.
template <class U>
void fill_sparse(const uint8_t* map, const U* others, std::span<U> values) noexcept;

template <class U>
using FillSparse = void(const uint8_t* map, const U* others, std::span<U> values) noexcept;
FillSparse<uint8_t> fill_sparse_scalar, fill_sparse_avx512vbmi;
FillSparse<uint16_t> fill_sparse_scalar, fill_sparse_avx512vbmi;
FillSparse<uint32_t> fill_sparse_scalar, fill_sparse_avx512vbmi;
FillSparse<uint64_t> fill_sparse_scalar, fill_sparse_avx512vbmi;

}  // namespace tersor::transform
