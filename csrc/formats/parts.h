// The parts of a quantized matrix: named plain arrays, whose dtypes and shapes follow from the format and the matrix's
// shape. Page: docs/formats/quantized.md.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/array.h"
#include "formats/grid.h"

namespace tersor::formats {

template <class Byte>
struct PartOf {
  std::string name;
  DType dtype;
  Shape shape;
  std::span<Byte> data;  // row-major, bytes_of(dtype, shape) long
};
using Part = PartOf<const uint8_t>;  // read
using PartRoom = PartOf<uint8_t>;    // to be filled

struct PartNeed {
  std::string name;
  DType dtype;
  Shape shape;
};

// The data of the needed parts, in their order. Raises bad_data for a part that is missing, has another dtype or shape,
// or is not needed.
template <class Byte>
std::vector<std::span<Byte>> data_of(const std::vector<PartNeed>& needs, std::span<const PartOf<Byte>> parts);

// How many columns share a number: 16..256, or
inline constexpr size_t kChannel = 0;          // all of a row
inline constexpr size_t kTensor = ~size_t(0);  // all of the matrix

void require_group(size_t group);                 // bad_call unless it is one of these
void require_shape(size_t rows, size_t columns);  // bad_call for 0
std::string group_text(size_t group);             // "128", "channel"

// The numbers of groups of a matrix.
struct GroupLayout {
  size_t group;        // columns of a group; the last of a row may be shorter
  size_t rows, count;  // rows of numbers (1 for kTensor), numbers a row

  GroupLayout(size_t group_or_scope, size_t matrix_rows, size_t columns);
  size_t row_stride() const noexcept { return whole ? 0 : count; }
  bool whole;  // kTensor
};

DType dtype_of(NumberKind kind);  // of the part that holds such numbers

// Raise bad_data for numbers that are not finite; name is of the part.
void check_finite(std::span<const uint8_t> data, NumberKind kind, const char* name);
void check_most(std::span<const uint8_t> data, int most, const char* name);  // u8 above `most`

}  // namespace tersor::formats
