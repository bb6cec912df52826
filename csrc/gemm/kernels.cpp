#include "gemm/kernels.h"

namespace tersor::gemm {

const KernelRow kKernelRows[] = {
    {"scalar", Isa::scalar, nullptr, &kScalarKernels},
    TERSOR_X86({"avx2", Isa::avx2, nullptr, &kAvx2Kernels},
               {"avx2, VNNI", Isa::avx2, has_avx_vnni, &kAvx2VnniKernels},
               {"avx2, AVX512-VNNI", Isa::avx2, has_avx512_vnni, &kAvx2Avx512VnniKernels},
               {"avx512", Isa::avx512, nullptr, &kAvx512Kernels},
               {"avx512, VNNI", Isa::avx512, has_avx512_vnni, &kAvx512VnniKernels},
               {"avx512vbmi", Isa::avx512vbmi, nullptr, &kAvx512VbmiKernels}, )};
const size_t kKernelRowCount = std::size(kKernelRows);

const Kernels& kernels() noexcept {
  size_t row = kKernelRowCount - 1;
  while (kKernelRows[row].level > active_isa() || (kKernelRows[row].runs && !kKernelRows[row].runs())) --row;
  return *kKernelRows[row].kernels;
}

}  // namespace tersor::gemm
