// What a packed matrix has beside its codes: transforms that x goes through before it meets them, and side terms that
// are added to their product. One section behind the codes, which begins with its own head.
//
//   y = T(x) W^T + x S^T + (x V^T) U^T,   S: outliers, U V: low rank
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/arena.h"

namespace tersor::gemm {

struct Transform {
  enum class Kind : uint32_t { hadamard, hadamard_without_signs, scales, permutation };
  Kind kind;
  uint64_t seed = 0;                // of the Hadamard rotation's signs
  const float* scales = nullptr;    // [columns]: x is divided by them
  const uint32_t* order = nullptr;  // [columns]: x[order[k]] becomes column k
};

struct Extras {
  size_t rows = 0, columns = 0;
  std::vector<Transform> transforms;  // in the order in which x goes through them
  // Outliers in CSR: [rows + 1], [count], [count].
  size_t outliers = 0;
  const uint32_t *row_starts = nullptr, *places = nullptr;
  const float* values = nullptr;
  size_t rank = 0;
  const float *u = nullptr, *v = nullptr;    // [rank][rows], [rank][columns]
  std::span<const uint8_t> transform_bytes;  // of a parsed one: matrices that agree in them read x alike

  struct Range {
    size_t first = 0, end = 0;
  };
  Range outliers_of(size_t row) const noexcept;  // where there are outliers
  bool empty() const noexcept { return transforms.empty() && !has_side_terms(); }
  bool has_side_terms() const noexcept { return outliers != 0 || rank != 0; }

  uint64_t bytes() const noexcept;  // of the section, a multiple of 64
  void write(std::span<uint8_t> out) const;
  // Raises bad_data for what is no such section of a matrix [rows, columns]. A call of the driver does this, so that
  // places of outliers are not looked at: they are held within the matrix where they are used.
  static Extras parse(std::span<const uint8_t> data, size_t rows, size_t columns);

  // Rows of x through the transforms. room: as long as x.
  void transform(std::span<float> x, std::span<float> room, int threads) const;
  // A row of W: transforms undone, side terms added.
  void restore(size_t row, std::span<float> weights, std::span<float> room) const;
};

// Tokens beside which side terms are multiplied, sixteen at a time where there are more than one.
struct SideTokens {
  size_t count = 0, lanes = 1;
  std::span<float> columns;  // [block of lanes][column][lane]
  std::span<float> thin;     // x V^T: [token][rank]

  SideTokens() = default;
  SideTokens(const Extras& extras, size_t tokens, ScratchFrame& scratch);
  void read(const Extras& extras, const float* x, size_t token) const noexcept;
  void multiply(const Extras& extras, size_t block) const noexcept;  // fills `thin` of a block's tokens
  size_t blocks() const noexcept { return (count + lanes - 1) / lanes; }
  // out[token][0..31] += the side terms of rows [first_row, first_row + rows) for tokens [first, end). rows <= 32.
  void add(const Extras& extras, size_t first_row, size_t rows, size_t first, size_t end, float* out) const noexcept;
};

}  // namespace tersor::gemm
