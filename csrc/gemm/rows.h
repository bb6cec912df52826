// Rows back out of a packed matrix: dequantized, for look-ups and gradients, and as the codes that a format stores.
#pragma once
#include <cstdint>
#include <span>

#include "core/array.h"
#include "formats/code_rows.h"
#include "gemm/packed.h"

namespace tersor::gemm {

// The rows named by ids, in their order, of F32, F16 or BF16, row-major: what Grid::dequantize gives, with transforms
// undone and side terms added, rounded to dtype.
// Raises bad_call (an id that is no row, the size of out), bad_type.
void dequantize_rows(const Packed& packed, std::span<const int64_t> ids, DType dtype, std::span<uint8_t> out,
                     int threads);
// Rows first, first + 1, ...
void dequantize_rows(const Packed& packed, size_t first, size_t count, DType dtype, std::span<uint8_t> out,
                     int threads);

// The codes that were packed, in rows as formats store them, bit for bit. width: the format's, of as many bits.
void codes_of(const Packed& packed, formats::CodeWidth width, std::span<uint8_t> out, int threads);

}  // namespace tersor::gemm
