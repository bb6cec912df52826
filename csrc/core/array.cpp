#include "core/array.h"

#include "core/bits.h"

namespace tersor {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr Row kRows[] = {
#define TERSOR_DTYPE(number, name, bytes) {DType::name, #name, bytes},
#include "core/ids.def"
#undef TERSOR_DTYPE
};

const Row& row_of(DType dtype) noexcept {
  for (const Row& row : kRows)
    if (row.dtype == dtype) return row;
  TERSOR_ASSERT(false);
  return kRows[0];
}

}  // namespace

std::string_view dtype_name(DType dtype) noexcept { return row_of(dtype).name; }

size_t dtype_bytes(DType dtype) noexcept { return row_of(dtype).bytes; }

std::optional<DType> dtype_named(std::string_view name) noexcept {
  for (const Row& row : kRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

std::optional<DType> dtype_numbered(uint8_t number) noexcept {
  for (const Row& row : kRows)
    if (uint8_t(row.dtype) == number) return row.dtype;
  return std::nullopt;
}

uint64_t bytes_of(DType dtype, std::span<const uint64_t> shape) {
  TERSOR_REQUIRE(shape.size() <= kMostDims, Code::bad_data, "a tensor has at most ", kMostDims, " dims, found ",
                 shape.size());
  uint64_t bytes = dtype_bytes(dtype);
  bool empty = false;
  for (const uint64_t dim : shape) {
    empty = empty || dim == 0;
    if (dim) bytes = checked_mul(bytes, dim, "shape");
  }
  return empty ? 0 : bytes;
}

std::string shape_text(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace tersor
