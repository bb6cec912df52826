#include "gemm/kernels.h"

namespace tersor::gemm {
namespace {

template <class Functions>
struct Level {
  Isa level;
  const Functions* functions;
};

// Of ascending levels, the last that is in use.
template <class Functions, size_t kRows>
const Functions* highest(const Level<Functions> (&rows)[kRows]) noexcept {
  const Functions* found = rows[0].functions;
  for (const auto& row : rows)
    if (row.level <= active_isa()) found = row.functions;
  return found;
}

}  // namespace

const KernelRow kKernelRows[] = {
    {"scalar", Isa::scalar, nullptr, &kScalarKernels},
    TERSOR_X86({"avx2", Isa::avx2, nullptr, &kAvx2Kernels}, {"avx2, VNNI", Isa::avx2, has_avx_vnni, &kAvx2VnniKernels},
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

const FloatKernels& float_kernels() noexcept {
  static constexpr Level<FloatKernels> kRows[] = {
      {Isa::scalar, &kScalarFloatKernels},
      TERSOR_X86({Isa::avx2, &kAvx2FloatKernels}, {Isa::avx512, &kAvx512FloatKernels}, )};
  return *highest(kRows);
}

const Bf16Kernels* bf16_kernels() noexcept {
  static constexpr Level<Bf16Kernels> kRows[] = {{Isa::scalar, nullptr},
                                                 TERSOR_X86({Isa::avx512bf16, &kAvx512Bf16Kernels}, )};
  return highest(kRows);
}

}  // namespace tersor::gemm
