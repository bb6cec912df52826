// Kept codes are expanded into a register of the code of 0 (VPEXPANDB), which is what a unit of 8-bit codes is.
#include "gemm/integer_sums_zmm.h"
#include "gemm/sparse.h"

namespace tersor::gemm {
namespace {

// Near, into the second cache, where memory sets the pace; far where expanding does.
template <int kBits>
__attribute__((always_inline)) inline void prefetch(const uint8_t* p) {
  constexpr int kAhead = kBits == 8 ? 1024 : 4096;
  _mm_prefetch(reinterpret_cast<const char*>(p) + kAhead, kBits == 8 ? _MM_HINT_T1 : _MM_HINT_T0);
}

// The next 64 weights, whose kept codes are at `p`.
template <int kBits>
__attribute__((always_inline)) inline __m512i expanded(const uint8_t*& p, const uint8_t* word, __m512i center) {
  uint64_t mask;
  __builtin_memcpy(&mask, word, sizeof mask);
  const auto count = size_t(__builtin_popcountll(mask));
  if constexpr (kBits == 8) {
    const __m512i codes = _mm512_loadu_si512(p);
    p += count;
    return _mm512_mask_expand_epi8(center, mask, codes);
  } else {
    const __m512i two = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i codes =
        _mm512_ternarylogic_epi32(two, _mm512_slli_epi16(two, 4), _mm512_set1_epi8(15), 0xa8);  // (a | b) & c
    p += (count + 1) / 2;
    return _mm512_mask_expand_epi8(center, mask, codes);
  }
}

__attribute__((always_inline)) inline const uint8_t* before_end(const uint8_t* p, const uint8_t* end) {
  return p < end ? p : end;
}

template <int kBits>
const uint8_t* panel_of(const Kept& kept, const uint8_t* p, size_t steps, uint8_t* out) {
  const __m512i center = _mm512_set1_epi8(char(kept.center));
  for (size_t step = 0; step < steps; ++step, out += 1024) {
    const uint8_t* const words = before_end(p, kept.end);
    p = words + kStepMaskBytes;
#pragma GCC unroll 4
    for (int i = 0; i < int(kStepWords); ++i) {
      prefetch<kBits>(p);
      _mm512_storeu_si512(out + 64 * i, expanded<kBits>(p, words + 8 * i, center));
    }
  }
  return p;
}

const uint8_t* panel(const Kept& kept, const uint8_t* from, size_t steps, uint8_t* out) noexcept {
  return kept.bits == 8 ? panel_of<8>(kept, from, steps, out) : panel_of<4>(kept, from, steps, out);
}

// Two blocks, kTokens tokens.
template <int kBits, int kTokens>
struct Tile {
  TokenSums<kTokens> sums;
  const Kept& kept;
  const __m512i center;
  template <int kV>
  __attribute__((always_inline)) void vector(const uint8_t*& p, const uint8_t* words, const int8_t* x) {
    prefetch<kBits>(p);
    const __m512i a = expanded<kBits>(p, words + 16 * kV, center);
    const __m512i b = expanded<kBits>(p, words + 16 * kV + 8, center);
    sums.add(a, b, x, kV);
  }
  __attribute__((always_inline)) void run() {
    const IntegerTile& t = sums.t;
    sums.load();
    Place at = first_place(t);
    t.load_numbers<0>();
    sums.start(at);
    const uint8_t* p = t.codes;
    const int8_t* x = t.x;
    for (size_t step = 0; step < t.steps; ++step, x += kStepColumns) {
      const uint8_t* const words = before_end(p, kept.end);
      p = words + kStepMaskBytes;
      vector<0>(p, words, x), vector<1>(p, words, x), vector<2>(p, words, x), vector<3>(p, words, x);
      sums.half(at);
      vector<4>(p, words, x), vector<5>(p, words, x), vector<6>(p, words, x), vector<7>(p, words, x);
      sums.half(at);
    }
    if (at.halves_left != t.group_halves) sums.finish(at);
    sums.store();
  }
};

template <int kBits, int kTokens>
__attribute__((noinline)) void tile_of(const IntegerTile& t, const Kept& kept) {
  Tile<kBits, kTokens> here{{t, {}, {}, {}, {}}, kept, _mm512_set1_epi8(char(kept.center))};
  here.run();
}

template <int kBits>
void tiles_of(const IntegerTile& t, const Kept& kept, size_t tokens) {
  switch (tokens) {
    case 1: return tile_of<kBits, 1>(t, kept);
    case 2: return tile_of<kBits, 2>(t, kept);
    case 3: return tile_of<kBits, 3>(t, kept);
    default: return tile_of<kBits, 4>(t, kept);
  }
}

void tile(const IntegerTile& t, const Kept& kept, size_t tokens) noexcept {
  kept.bits == 8 ? tiles_of<8>(t, kept, tokens) : tiles_of<4>(t, kept, tokens);
}

}  // namespace

const SparseKernels kAvx512VbmiSparseKernels = {panel, tile};

}  // namespace tersor::gemm
