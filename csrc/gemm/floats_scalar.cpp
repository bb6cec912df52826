// Vectors of four floats, which any machine has or can do without. Fused multiply-adds are written as such, because the
// other levels have them.
#include <cmath>

#include "gemm/float_tile.h"
#include "gemm/packed.h"

namespace tersor::gemm {
namespace {

struct Four {
  typedef float Type __attribute__((vector_size(16)));
  static constexpr size_t kLanes = 4, kTokens = 1;

  static Type zero() noexcept { return Type{}; }
  static Type load(const float* at) noexcept {
    Type value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
  }
  static void store(float* at, Type value) noexcept { __builtin_memcpy(at, &value, sizeof value); }
  static Type broadcast(float value) noexcept { return Type{value, value, value, value}; }
  static Type multiply_add(Type a, Type b, Type sum) noexcept {
    return Type{std::fma(a[0], b[0], sum[0]), std::fma(a[1], b[1], sum[1]), std::fma(a[2], b[2], sum[2]),
                std::fma(a[3], b[3], sum[3])};
  }
  static Type bytes(const uint8_t* at) noexcept { return Type{float(at[0]), float(at[1]), float(at[2]), float(at[3])}; }
  static Type numbers(PackedScale kind, const uint8_t* at, size_t j) noexcept {
    Type value;
    for (size_t i = 0; i < 4; ++i) value[i] = number_at(kind, at, 4 * j + i);
    return value;
  }
  static const float* table(int, const float* levels) noexcept { return levels; }
  static Type levels(int, const float* table, const uint8_t* bytes, int byte) noexcept {
    const uint8_t* const at = bytes + byte;
    return Type{table[at[0]], table[at[4]], table[at[8]], table[at[12]]};
  }
};

}  // namespace

const FloatKernels kScalarFloatKernels = {float_tile<Four>, float_levels<Four>};

}  // namespace tersor::gemm
