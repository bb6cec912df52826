// The reference: a kept code after the other into a panel of zeros.
#include <algorithm>
#include <bit>
#include <cstring>

#include "gemm/sparse.h"

namespace tersor::gemm {
namespace {

const uint8_t* panel(const Kept& kept, const uint8_t* from, size_t steps, uint8_t* out) noexcept {
  for (size_t step = 0; step < steps; ++step) {
    from = std::min(from, kept.end);
    const uint8_t* codes = from + kStepMaskBytes;
    for (size_t i = 0; i < kStepWords; ++i, out += 64) {
      uint64_t word;
      std::memcpy(&word, from + 8 * i, sizeof word);
      std::memset(out, kept.center, 64);
      size_t count = 0;
      for (; word; word &= word - 1, ++count)
        out[std::countr_zero(word)] = kept.bits == 8 ? codes[count] : uint8_t(codes[count / 2] >> count % 2 * 4 & 15);
      codes += kept.bits == 8 ? count : (count + 1) / 2;
    }
    from = codes;
  }
  return from;
}

}  // namespace

const SparseKernels kScalarSparseKernels = {panel, nullptr};

}  // namespace tersor::gemm
