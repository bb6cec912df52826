// Rows of a grid, as bodies for a warp that owns the row: dequantized, and times up to four tokens. gemv.cu compiles
// them for the GPU, gemv_warp_check.cpp for the host. They read the stored parts as formats/grid.h has them, not the
// packed layout of the CPU's kernels. Reference: Grid::dequantize, which dequantize_row_warp equals bit for bit.
//
// A lane takes a piece of a row whose codes are whole 32-bit words, and of it a run of columns at a time. Groups are of
// 16 columns at least, or a row, so that a run has one scale.
// C++17, as cuda/warp.h.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/error.h"
#include "cuda/warp.h"
#include "formats/grid.h"
#if defined(__CUDACC__)
#include <cuda_fp16.h>
// Words and codes of a piece are registers only where every index is a constant.
#define TERSOR_UNROLL _Pragma("unroll")
#else
#define TERSOR_UNROLL
#endif

namespace tersor::gemm {

inline constexpr uint32_t kMostWarpTokens = 4, kMostWarpColumns = 1u << 30;

// ---- numbers --------------------------------------------------------------------------------------------------------

// What lies at a multiple of its size. The device's compiler takes a memcpy apart into bytes.
template <class T>
TERSOR_HD T load(const void* at) {
#if defined(__CUDA_ARCH__)
  return *static_cast<const T*>(at);
#else
  T value;
  std::memcpy(&value, __builtin_assume_aligned(at, sizeof(T)), sizeof(T));
  return value;
#endif
}

template <class T>
TERSOR_HD void store(void* at, const T& value) {
#if defined(__CUDA_ARCH__)
  *static_cast<T*>(at) = value;
#else
  std::memcpy(__builtin_assume_aligned(at, sizeof(T)), &value, sizeof(T));
#endif
}

TERSOR_HD bool is_aligned(const void* at, uint32_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; }

TERSOR_HD float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

TERSOR_HD uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// A product that is rounded by itself: nvcc would fuse a plain one with the addition behind it.
TERSOR_HD float times(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// Elements of arrays. Small floats are finite, as formats have checked, so that a shift and a power of two make them.
struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

TERSOR_HD float value_of(float element) { return element; }
TERSOR_HD float value_of(Bf16 element) { return float_of_bits(uint32_t(element.bits) << 16); }
TERSOR_HD float value_of(Half element) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(element.bits));
#else
  const float size = float_of_bits(uint32_t(element.bits & 0x7fff) << 13) * 0x1p112f;
  return element.bits & 0x8000 ? -size : size;
#endif
}
TERSOR_HD float value_of_e8m0(uint8_t byte) { return float_of_bits(byte ? uint32_t(byte) << 23 : 0x400000); }
TERSOR_HD float value_of_e4m3(uint8_t byte) {
  const float size = float_of_bits(uint32_t(byte & 0x7f) << 20) * 0x1p120f;
  return byte & 0x80 ? -size : size;
}

TERSOR_HD void set(float& element, float value) { element = value; }
TERSOR_HD void set(Bf16& element, float value) {  // to the nearest, ties to even; NaN stays NaN
  const uint32_t bits = bits_of_float(value);
  const bool number = (bits & 0x7fffffff) <= 0x7f800000;
  element.bits = uint16_t(number ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40);
}

// GroupNumbers::at. Numbers of several bytes are aligned to them.
TERSOR_HD float number_at(const formats::GroupNumbers& numbers, size_t row, uint32_t group) {
  using formats::NumberKind;
  const size_t i = row * numbers.row_stride + group;
  float value = 0;
  switch (numbers.kind) {
    case NumberKind::none: return 0;
    case NumberKind::f32: value = load<float>(numbers.data + 4 * i); break;
    case NumberKind::f16: value = value_of(load<Half>(numbers.data + 2 * i)); break;
    case NumberKind::bf16: value = value_of(load<Bf16>(numbers.data + 2 * i)); break;
    case NumberKind::e8m0: value = value_of_e8m0(numbers.data[i]); break;
    case NumberKind::e4m3: value = value_of_e4m3(numbers.data[i]); break;
    case NumberKind::super: {
      const size_t super = row * numbers.supers_row_stride + group / uint32_t(numbers.supers_span);
      value = times(value_of(load<Half>(numbers.supers + 2 * super)), float(numbers.data[i]));
      break;
    }
    case NumberKind::u8: value = float(numbers.data[i]); break;
  }
  return times(value, numbers.factor);
}

// ---- runs of elements -----------------------------------------------------------------------------------------------

// What one load takes of `bytes` bytes whose begin is a multiple of them from an aligned address; 0: less than a word.
TERSOR_HD constexpr uint32_t vector_bytes(uint32_t bytes) {
  return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 ? 0 : 4;
}

template <uint32_t kBytes>
struct alignas(kBytes) Vector {
  uint32_t word[kBytes / 4];
};

// kCount values of which `left` are there; the others are 0. aligned: the array that the run belongs to is, to 16.
template <uint32_t kCount, class X>
TERSOR_HD void read_run(const X* from, uint32_t left, bool aligned, float* values) {
  constexpr uint32_t kBytes = vector_bytes(kCount * uint32_t(sizeof(X)));
  if constexpr (kBytes != 0) {
    if (aligned && left >= kCount) {
      constexpr uint32_t kEach = kBytes / uint32_t(sizeof(X));
      TERSOR_UNROLL
      for (uint32_t i = 0; i < kCount; i += kEach) {
        const auto some = load<Vector<kBytes>>(from + i);
        TERSOR_UNROLL
        for (uint32_t j = 0; j < kEach; ++j) {
          if constexpr (sizeof(X) == 4)
            values[i + j] = float_of_bits(some.word[j]);
          else
            values[i + j] = value_of(X{uint16_t(some.word[j / 2] >> (j % 2 * 16))});
        }
      }
      return;
    }
  }
  TERSOR_UNROLL
  for (uint32_t i = 0; i < kCount; ++i) values[i] = i < left ? value_of(from[i]) : 0;
}

template <uint32_t kCount, class Y>
TERSOR_HD void write_run(const float* values, uint32_t left, bool aligned, Y* to) {
  constexpr uint32_t kBytes = vector_bytes(kCount * uint32_t(sizeof(Y)));
  if constexpr (kBytes != 0) {
    if (aligned && left >= kCount) {
      constexpr uint32_t kEach = kBytes / uint32_t(sizeof(Y));
      TERSOR_UNROLL
      for (uint32_t i = 0; i < kCount; i += kEach) {
        Vector<kBytes> some{};
        TERSOR_UNROLL
        for (uint32_t j = 0; j < kEach; ++j) {
          if constexpr (sizeof(Y) == 4) {
            some.word[j] = bits_of_float(values[i + j]);
          } else {
            Y element;
            set(element, values[i + j]);
            some.word[j / 2] |= uint32_t(element.bits) << (j % 2 * 16);
          }
        }
        store(to + i, some);
      }
      return;
    }
  }
  TERSOR_UNROLL
  for (uint32_t i = 0; i < kCount; ++i)
    if (i < left) set(to[i], values[i]);
}

// ---- codes ----------------------------------------------------------------------------------------------------------

template <uint32_t kBits>
struct BitCodes {
  static constexpr uint32_t kCodes = 1u << kBits;
  static constexpr uint32_t kColumns = 32, kWords = kBits, kRun = 16;  // of a piece, and of a run the columns
  static TERSOR_HD uint32_t code(const uint32_t* words, uint32_t i) {
    const uint32_t word = i * kBits / 32, shift = i * kBits % 32;
    uint32_t code = words[word] >> shift;
    if (shift + kBits > 32) code |= words[word + 1] << (32 - shift);
    return code & ((1u << kBits) - 1);
  }
};

struct TritCodes {
  static constexpr uint32_t kCodes = 3;
  static constexpr uint32_t kColumns = 40, kWords = 2, kRun = 8;
  static TERSOR_HD uint32_t code(const uint32_t* words, uint32_t i) {
    const uint32_t byte = words[i / 20] >> (i / 5 % 4 * 8) & 255, at = i % 5;
    return byte / (at == 0 ? 1 : at == 1 ? 3 : at == 2 ? 9 : at == 3 ? 27 : 81) % 3;
  }
};

// Words of a piece of which `left` bytes are there; the others are 0.
template <uint32_t kWords>
TERSOR_HD void read_words(const uint8_t* from, size_t left, bool aligned, uint32_t* words) {
  constexpr uint32_t kBytes = vector_bytes(4 * kWords);
  if (aligned && left >= 4 * kWords) {
    TERSOR_UNROLL
    for (uint32_t i = 0; i < kWords; i += kBytes / 4) {
      const auto some = load<Vector<kBytes>>(from + 4 * i);
      TERSOR_UNROLL
      for (uint32_t j = 0; j < kBytes / 4; ++j) words[i + j] = some.word[j];
    }
    return;
  }
  TERSOR_UNROLL
  for (uint32_t i = 0; i < kWords; ++i) {
    words[i] = 0;
    TERSOR_UNROLL
    for (uint32_t j = 0; j < 4; ++j)
      if (4 * i + j < left) words[i] |= uint32_t(from[4 * i + j]) << (8 * j);
  }
}

// ---- the grid -------------------------------------------------------------------------------------------------------

struct WarpGrid {  // a Grid whose parts lie where the warp can read them
  uint32_t rows, columns;
  uint32_t bits;
  bool trits;
  uint32_t log_group;  // of columns; 31: a row is a group
  const uint8_t* codes;
  size_t row_bytes;
  const float* levels;
  size_t level_row_stride, level_group_stride;
  formats::GroupNumbers scales, zeros, minimums;

  TERSOR_HD bool one_table() const { return level_row_stride == 0 && level_group_stride == 0; }
};

// Raises bad_call for a group or a size that the bodies do not take.
inline WarpGrid warp_grid_of(const formats::Grid& grid) {
  TERSOR_REQUIRE(grid.rows <= kMostWarpColumns && grid.columns <= kMostWarpColumns, Code::bad_call, "a matrix of [",
                 grid.rows, ", ", grid.columns, "], at most ", kMostWarpColumns, " of each are possible");
  uint32_t log_group = 31;
  if (grid.group < grid.columns) {
    TERSOR_REQUIRE(grid.group >= 16 && (grid.group & (grid.group - 1)) == 0, Code::bad_call, "groups of ", grid.group,
                   " columns, a power of two from 16 on or a row is needed");
    for (log_group = 4; size_t(1) << log_group < grid.group;) ++log_group;
  }
  return {uint32_t(grid.rows),
          uint32_t(grid.columns),
          uint32_t(grid.bits),
          grid.trits,
          log_group,
          grid.codes,
          grid.row_bytes,
          grid.levels,
          grid.level_row_stride,
          grid.level_group_stride,
          grid.scales,
          grid.zeros,
          grid.minimums};
}

// Calls run(column, words, i) for the runs of a lane: the first column, and the words whose codes from the i-th on are
// the run's.
template <class Codes, class Run>
TERSOR_HD void each_run(const WarpGrid& grid, uint32_t row, uint32_t lane, Run&& run) {
  constexpr uint32_t kBytes = 4 * Codes::kWords;
  const uint8_t* const codes = grid.codes + row * grid.row_bytes;
  const bool aligned = is_aligned(codes, vector_bytes(kBytes));
  for (uint32_t first = lane * Codes::kColumns; first < grid.columns; first += cuda::kWarpLanes * Codes::kColumns) {
    const size_t at = size_t(first / Codes::kColumns) * kBytes;
    uint32_t words[Codes::kWords];
    read_words<Codes::kWords>(codes + at, grid.row_bytes - at, aligned, words);
    TERSOR_UNROLL
    for (uint32_t i = 0; i < Codes::kColumns; i += Codes::kRun)
      if (first + i < grid.columns) run(first + i, words, i);
  }
}

// levels: the grid's, or a copy in a memory that is nearer. out: the row's columns.
template <class Codes, class Warp, class Y>
TERSOR_HD void dequantize_row_warp(const Warp& warp, const WarpGrid& grid, const float* levels, uint32_t row, Y* out) {
  const bool shifted = grid.minimums.kind != formats::NumberKind::none;  // without one nothing is added: -0 stays
  const bool aligned = is_aligned(out, 16);
  levels += row * grid.level_row_stride;
  warp.each([&](uint32_t lane) {
    each_run<Codes>(grid, row, lane, [&](uint32_t column, const uint32_t* words, uint32_t first) {
      const uint32_t group = column >> grid.log_group;
      const float scale = number_at(grid.scales, row, group), zero = number_at(grid.zeros, row, group);
      const float minimum = number_at(grid.minimums, row, group);
      const float* const level = levels + group * grid.level_group_stride;
      float values[Codes::kRun];
      TERSOR_UNROLL
      for (uint32_t i = 0; i < Codes::kRun; ++i) {
        const float scaled = times(scale, level[Codes::code(words, first + i)] - zero);
        values[i] = shifted ? scaled + minimum : scaled;
      }
      write_run<Codes::kRun>(values, grid.columns - column, aligned, out + column);
    });
  });
}

// y[m][row] = sum over k of w[row][k] x[m][k] for the tokens m; x: [kTokens][columns], y: [kTokens][rows]. A lane sums
// a run by fused multiply-adds, then runs in their order times their scales; lanes are summed by halves.
template <class Codes, uint32_t kTokens, class Warp, class X>
TERSOR_HD void gemv_row_warp(const Warp& warp, const WarpGrid& grid, const float* levels, uint32_t row, const X* x,
                             X* y) {
  typename Warp::template reg<float> sums[kTokens];
  const bool shifted = grid.minimums.kind != formats::NumberKind::none;
  const bool aligned = is_aligned(x, 16) && (kTokens == 1 || grid.columns * sizeof(X) % 16 == 0);
  levels += row * grid.level_row_stride;
  warp.each([&](uint32_t lane) {
    float sum[kTokens] = {};
    each_run<Codes>(grid, row, lane, [&](uint32_t column, const uint32_t* words, uint32_t first) {
      const uint32_t group = column >> grid.log_group;
      const float scale = number_at(grid.scales, row, group), zero = number_at(grid.zeros, row, group);
      const float minimum = number_at(grid.minimums, row, group);
      const float* const level = levels + group * grid.level_group_stride;
      float weights[Codes::kRun];
      TERSOR_UNROLL
      for (uint32_t i = 0; i < Codes::kRun; ++i) weights[i] = level[Codes::code(words, first + i)] - zero;
      TERSOR_UNROLL
      for (uint32_t m = 0; m < kTokens; ++m) {
        float values[Codes::kRun];  // 0 beyond the row, so that what is beyond in weights adds nothing
        read_run<Codes::kRun>(x + size_t(m) * grid.columns + column, grid.columns - column, aligned, values);
        float product = 0;
        TERSOR_UNROLL
        for (uint32_t i = 0; i < Codes::kRun; ++i) product = fmaf(weights[i], values[i], product);
        sum[m] = fmaf(scale, product, sum[m]);
        if (shifted) {
          float total = 0;
          TERSOR_UNROLL
          for (uint32_t i = 0; i < Codes::kRun; ++i) total += values[i];
          sum[m] = fmaf(minimum, total, sum[m]);
        }
      }
    });
    TERSOR_UNROLL
    for (uint32_t m = 0; m < kTokens; ++m) sums[m][lane] = sum[m];
  });
  float total[kTokens];
  TERSOR_UNROLL
  for (uint32_t m = 0; m < kTokens; ++m) total[m] = warp.sum(sums[m]);
  warp.each([&](uint32_t lane) {
    TERSOR_UNROLL
    for (uint32_t m = 0; m < kTokens; ++m)
      if (lane == m) set(y[size_t(m) * grid.rows + row], total[m]);
  });
}

// ---- from numbers to types: f is called with a value of the type ----------------------------------------------------

template <uint32_t kNumber>
using Constant = std::integral_constant<uint32_t, kNumber>;

template <class F>
void with_tokens(uint32_t tokens, F&& f) {
  switch (tokens) {
    case 1: return f(Constant<1>{});
    case 2: return f(Constant<2>{});
    case 3: return f(Constant<3>{});
    case 4: return f(Constant<4>{});
  }
  fail(Code::bad_call, "1..4 tokens are possible, not ", tokens);
}

template <class F>
void with_codes(const WarpGrid& grid, F&& f) {
  if (grid.trits) return f(TritCodes{});
  switch (grid.bits) {
    case 1: return f(BitCodes<1>{});
    case 2: return f(BitCodes<2>{});
    case 3: return f(BitCodes<3>{});
    case 4: return f(BitCodes<4>{});
    case 5: return f(BitCodes<5>{});
    case 6: return f(BitCodes<6>{});
    case 8: return f(BitCodes<8>{});
  }
  fail(Code::bad_call, "codes of ", grid.bits, " bits, 1, 2, 3, 4, 5, 6 or 8 are possible");
}

}  // namespace tersor::gemm
