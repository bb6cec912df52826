// 8-bit integers with VPDPBUSD; tables of up to 64 codes with VPERMB.
#include "gemm/integer_tile_zmm.h"
#include "gemm/kernels.h"

namespace tersor::gemm {

// Widths 1..6, and 8 without a table.
const Kernels kAvx512VbmiKernels = {0x17e, 0x7e, integer_tile, integer_panel, quantize_avx512, sum_groups_avx2};

}  // namespace tersor::gemm
