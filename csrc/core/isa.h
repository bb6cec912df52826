// Which instruction sets this machine runs, and which row of a unit's table is taken.
#pragma once
#include <iterator>

namespace tersor {

// Each level includes those below it. A unit need not have a row for every level.
enum class Isa : int {
  scalar,      // x86-64 or any other machine; the reference
  avx2,        // AVX2, BMI2, F16C, FMA, SSE4.2 (Haswell, Zen)
  avx512,      // F, BW, CD, DQ, VL (Skylake server)
  avx512vbmi,  // and VBMI, VBMI2, VNNI (Ice Lake, Zen 4)
  avx512bf16,  // and BF16 (Sapphire Rapids, Zen 4)
};
inline constexpr const char* kIsaNames[] = {"scalar", "avx2", "avx512", "avx512vbmi", "avx512bf16"};

Isa machine_isa() noexcept;  // the highest level this machine runs
Isa active_isa() noexcept;   // that, lowered by TERSOR_ISA or by hold_isa
void hold_isa(Isa level);    // for tests; raises bad_call above machine_isa()

// Dot products of 8-bit integers, which come with no level or only with a higher one.
bool has_avx_vnni() noexcept;     // of 256 bits, beside AVX2 (Alder Lake, Zen 5)
bool has_avx512_vnni() noexcept;  // of 512 and of 256 bits, beside AVX-512 (Cascade Lake and later)

template <class Function>
struct Variant {
  Isa level;
  Function* function;
};

// Slowest first; the last row that the active level runs wins.
template <class Function, int kRows>
Function* pick(const Variant<Function> (&rows)[kRows]) noexcept {
  const Isa level = active_isa();
  int row = kRows - 1;
  while (row > 0 && rows[row].level > level) --row;
  return rows[row].function;
}

}  // namespace tersor

#if defined(__x86_64__)
#define TERSOR_X86(...) __VA_ARGS__
#else
#define TERSOR_X86(...)
#endif
