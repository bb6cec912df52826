// Packed matrices and y = x W^T. Arrays arrive as addresses, formats and parts as binding/formats.h says; the GIL is
// released around all work on them.
#include "gemm/linear.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "binding/bind.h"
#include "binding/formats.h"
#include "core/array.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

std::span<uint8_t> bytes_at(uintptr_t address, size_t bytes) { return {reinterpret_cast<uint8_t*>(address), bytes}; }

DType dtype_of(const std::string& name) {
  const auto dtype = dtype_named(name);
  TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", name);
  return *dtype;
}

gemm::Activations activations_of(const std::string& name) {
  if (name == "int8") return gemm::Activations::int8;
  if (name == "int8-g128") return gemm::Activations::int8_g128;
  fail(Code::bad_call, "the driver reads activations as int8 or int8-g128, not as \"", name, "\"");
}

}  // namespace

void bind_gemm(nb::module_& m) {
  m.def(
      "gemm_packed_bytes",
      [](const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, int threads) {
        return gemm::packed_bytes(grid_of(format, rows, columns, parts, threads));
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("threads"));
  m.def(
      "gemm_pack",
      [](const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, uintptr_t out,
         size_t bytes, int threads) {
        const formats::Grid grid = grid_of(format, rows, columns, parts, threads);
        const nb::gil_scoped_release released;
        gemm::pack(grid, bytes_at(out, bytes), threads);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("out"), nb::arg("bytes"),
      nb::arg("threads"));
  m.def(
      "gemm_linear",
      [](uintptr_t packed, size_t packed_size, const std::string& dtype, uintptr_t x, size_t tokens, size_t columns,
         const std::string& bias_dtype, uintptr_t bias, size_t bias_size, const std::string& activations, uintptr_t y,
         size_t y_bytes, int threads) {
        const auto read = activations_of(activations);
        const gemm::Matrix from{dtype_of(dtype), reinterpret_cast<const uint8_t*>(x), tokens, columns};
        const gemm::Matrix added{dtype_of(bias_dtype), reinterpret_cast<const uint8_t*>(bias), 1, bias_size};
        const nb::gil_scoped_release released;
        gemm::linear(from, gemm::Packed::parse(bytes_at(packed, packed_size)), added, read, from.dtype,
                     bytes_at(y, y_bytes), threads);
      },
      nb::arg("packed"), nb::arg("packed_bytes"), nb::arg("dtype"), nb::arg("x"), nb::arg("tokens"), nb::arg("columns"),
      nb::arg("bias_dtype"), nb::arg("bias"), nb::arg("bias_count"), nb::arg("activations"), nb::arg("y"),
      nb::arg("y_bytes"), nb::arg("threads"), "bias: address 0 for none");
}

}  // namespace tersor::binding
