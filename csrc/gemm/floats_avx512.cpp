#include "gemm/codes_zmm.h"
#include "gemm/float_tile.h"

namespace tersor::gemm {
namespace {

struct Sixteen {
  using Type = __m512;
  static constexpr size_t kLanes = 16, kTokens = 4;
  struct Table {
    __m512 low, high;
    const float* all;
  };

  static Type zero() noexcept { return _mm512_setzero_ps(); }
  static Type load(const float* at) noexcept { return _mm512_loadu_ps(at); }
  static void store(float* at, Type value) noexcept { _mm512_storeu_ps(at, value); }
  static Type broadcast(float value) noexcept { return _mm512_set1_ps(value); }
  static Type multiply_add(Type a, Type b, Type sum) noexcept { return _mm512_fmadd_ps(a, b, sum); }
  static Type bytes(const uint8_t* at) noexcept { return zeros_at(at); }
  static Type numbers(PackedScale kind, const uint8_t* at, size_t j) noexcept { return numbers_at(kind, at, int(j)); }
  static Table table(int bits, const float* levels) noexcept {
    if (bits > 4) return {_mm512_loadu_ps(levels), _mm512_loadu_ps(levels + 16), levels};
    const __mmask16 present = __mmask16((1u << (1 << bits)) - 1);
    return {_mm512_maskz_loadu_ps(present, levels), _mm512_setzero_ps(), levels};
  }
  static Type levels(int bits, const Table& table, const uint8_t* bytes, int byte) noexcept {
    const __m512i words = _mm512_loadu_si512(bytes);
    const __m512i codes =
        _mm512_and_si512(_mm512_srlv_epi32(words, _mm512_set1_epi32(8 * byte)), _mm512_set1_epi32(255));
    if (bits <= 4) return _mm512_permutexvar_ps(codes, table.low);
    if (bits == 5) return _mm512_permutex2var_ps(table.low, codes, table.high);
    return _mm512_i32gather_ps(codes, table.all, 4);
  }
};

}  // namespace

const FloatKernels kAvx512FloatKernels = {float_tile<Sixteen>, float_levels<Sixteen>};

}  // namespace tersor::gemm
