// Rows of x as the kernels read them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/arena.h"
#include "core/array.h"
#include "gemm/kernels.h"

namespace tersor::gemm {

// How x is read. Numbers are those of the operators' schema: append only.
enum class Activations : uint8_t {
  int8 = 0,          // 8 bits, one scale a token: the largest |x| / 127
  int8_g128 = 1,     // one a token and 128 columns
  int8_outlier = 2,  // int8, but elements beyond six times the mean of |x| are float32 (LLM.int8)
  exact = 3,         // bfloat16 as it is where the machine multiplies it, else float32
};

// What multiplies it.
enum class Arithmetic : uint8_t { int8, bf16, f32 };

// Row-major, rows end to end, of F32, F16 or BF16.
struct Matrix {
  DType dtype;
  const uint8_t* data;
  size_t rows, columns;
};

void require_float(DType dtype, const char* what);  // bad_type
void to_floats(DType dtype, const uint8_t* from, size_t count, float* to) noexcept;
void from_floats(DType dtype, const float* from, size_t count, uint8_t* to) noexcept;

// What decides how a token is read: matrices that agree in it share tokens.
struct Reading {
  Activations activations;
  Arithmetic arithmetic;
  size_t padded_columns;
  size_t group;  // columns that kernels sum before they scale
  bool operator==(const Reading&) const = default;
};

// Elements that stay exact, in steps of 32 columns of which some token has one.
inline constexpr size_t kStepSums = 3;
struct LargeElements {
  std::vector<uint32_t> steps;
  std::span<float> x;     // [step][token][32], 0 for all others
  std::span<float> sums;  // [step][token][kStepSums]: of 16 columns each, or of all 32, and one more
};

struct Tokens {
  Reading reading;
  size_t count = 0, stride = 0;   // stride: bytes of a token
  size_t groups = 0;              // of a token; its row of sums has one more
  std::span<uint8_t> values;      // as the arithmetic's kernels take them, zeros behind
  std::span<int32_t> sums;        // of int8: [token][groups + 1]
  std::span<float> float_sums;    // of the others
  std::span<float> scales;        // [token]; 1 where groups have scales, and of floats
  std::span<float> group_scales;  // [token][groups + 1], or none

  struct Large {
    uint32_t column;
    float value;
  };
  std::span<Large> large;  // of int8_outlier: [token][most_large]
  std::span<uint32_t> large_counts;
  size_t most_large = 0;
  LargeElements large_elements;

  // Room for `tokens`, which lives as long as the frame.
  Tokens(const Reading& reading, size_t tokens, ScratchFrame& scratch);
  // Reads a row of x.
  void read(const Matrix& x, size_t row, size_t token, const Kernels& kernel) const;
  // When all are read.
  void gather_large(ScratchFrame& scratch);

 private:
  void read_integers(const float* x, size_t columns, size_t token, const Kernels& kernel) const;
  void take_large(std::span<float> x, size_t token) const;
  void read_halves(const float* x, size_t columns, size_t token) const;
  void read_floats(const float* x, size_t columns, size_t token) const;
};

}  // namespace tersor::gemm
