// Rows of a grid into a tile's layout (kernels.h). What packed.cpp calls, tile by tile.
#pragma once
#include <cstddef>
#include <cstdint>

#include "formats/grid.h"
#include "gemm/kernels.h"

namespace tersor::gemm {

// Codes of rows [first_row, first_row + 32) as far as there are any; 0 for the others, as for columns up to a multiple
// of 32. out: 128 * bits bytes for every 32 columns.
void pack_codes(const formats::Grid& grid, size_t first_row, uint8_t* out) noexcept;

// Numbers of these rows' groups as [group][32], `groups` of them, of which the rows have `present`; 0 for the others.
// kind: how a scale or a minimum is stored; fp8 becomes bf16, two levels of numbers become f32.
void pack_numbers(const formats::GroupNumbers& numbers, PackedScale kind, size_t first_row, size_t rows, size_t groups,
                  size_t present, uint8_t* out) noexcept;
void pack_zeros(const formats::GroupNumbers& numbers, size_t first_row, size_t rows, size_t groups, size_t present,
                uint8_t* out) noexcept;

}  // namespace tersor::gemm
