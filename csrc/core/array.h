// What a tensor is to the core: a dtype, a shape and bytes. Nothing here owns or converts.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tersor {

// Numbers are on disk: append only. Names are safetensors'.
enum class DType : uint8_t {
#define TERSOR_DTYPE(number, name, bytes) name = number,
#include "core/ids.def"
#undef TERSOR_DTYPE
};

std::string_view dtype_name(DType dtype) noexcept;                 // "BF16"
size_t dtype_bytes(DType dtype) noexcept;                          // 2
std::optional<DType> dtype_named(std::string_view name) noexcept;  // nothing for a name that is not ours
std::optional<DType> dtype_numbered(uint8_t number) noexcept;

inline constexpr size_t kMostDims = 32;
using Shape = std::vector<uint64_t>;

// Product of the dims times the dtype's size; bad_data when that overflows or there are over kMostDims dims.
uint64_t bytes_of(DType dtype, std::span<const uint64_t> shape);
std::string shape_text(std::span<const uint64_t> shape);  // "[384, 1536]"

struct TensorView {
  std::string name;
  DType dtype;
  Shape shape;
  std::span<const uint8_t> data;  // row-major, bytes_of(dtype, shape) long
};

}  // namespace tersor
