// A side term of any format: a product of two thin matrices that is added after dequantizing. Page:
// docs/formats/low_rank.md.
//
//   out[n, k] += sum over r of u(n, r) * v(r, k), in float32, r in order
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/grid.h"
#include "formats/parts.h"

namespace tersor::formats {

struct LowRank {
  size_t rows = 0, columns = 0, rank = 0;
  NumberKind kind = NumberKind::f16;  // or bf16; none: int8 times a scale a rank
  const uint8_t* u = nullptr;         // [rows, rank]
  const uint8_t* v = nullptr;         // [rank, columns]
  const uint8_t* u_scales = nullptr;  // f16 [rank], of int8 only
  const uint8_t* v_scales = nullptr;

  float u_at(size_t row, size_t r) const noexcept;
  float v_at(size_t r, size_t column) const noexcept;
  // To columns [first, first + count) of a row.
  void add(size_t row, size_t first, size_t count, float* out) const noexcept;
};

// u, v and, of int8, u_scales and v_scales.
std::vector<PartNeed> low_rank_parts(NumberKind kind, size_t rank, size_t rows, size_t columns);

// Reads the parts, which stay alive with the view. Raises bad_call (kind, a rank beyond 1..min(rows, columns), shape)
// and bad_data (parts; numbers that are not finite).
LowRank low_rank_of(NumberKind kind, size_t rank, size_t rows, size_t columns, std::span<const Part> parts);

}  // namespace tersor::formats
