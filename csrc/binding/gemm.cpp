// Packed matrices and y = x W^T. Arrays arrive as addresses, formats and parts as binding/formats.h says; the GIL is
// released around all work on them.
#include "gemm/linear.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "binding/bind.h"
#include "binding/formats.h"
#include "core/array.h"
#include "core/error.h"
#include "gemm/experts.h"
#include "gemm/rows.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

std::span<uint8_t> bytes_at(uintptr_t address, size_t bytes) { return {reinterpret_cast<uint8_t*>(address), bytes}; }

DType dtype_of(const std::string& name) {
  const auto dtype = dtype_named(name);
  TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", name);
  return *dtype;
}

std::span<const int64_t> ids_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<const int64_t*>(address), count};
}

using ExpertRow = std::tuple<uintptr_t, size_t, std::string, uintptr_t, size_t>;
using ProductRow = std::tuple<uintptr_t, size_t, std::string, uintptr_t, size_t, uintptr_t, size_t, uintptr_t, size_t>;

// What the driver packs.
using View = std::variant<formats::Grid, formats::VectorCodes, formats::Sparse>;

View view_of(const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, int threads) {
  const auto family = number_of<std::string>(format, "family");
  if (family != "vector_codebook" && family != "sparse") return grid_of(format, rows, columns, parts, threads);
  const auto found = parts_of(parts);
  if (family == "sparse") {
    const auto sparse = sparse_format_of(format);
    const nb::gil_scoped_release released;
    return formats::sparse_of(sparse, rows, columns, found, threads);
  }
  const auto codebook = vector_codebook_of(format);
  const nb::gil_scoped_release released;
  return formats::vector_codes_of(codebook, rows, columns, found, threads);
}

uint64_t bytes_of(const formats::Grid& grid, int) { return gemm::packed_bytes(grid); }
uint64_t bytes_of(const formats::VectorCodes& codes, int) { return gemm::packed_bytes(codes); }
uint64_t bytes_of(const formats::Sparse& sparse, int threads) { return gemm::packed_bytes(sparse, threads); }

gemm::Activations activations_of(const std::string& name) {
  if (name == "int8") return gemm::Activations::int8;
  if (name == "int8-g128") return gemm::Activations::int8_g128;
  if (name == "int8-outlier") return gemm::Activations::int8_outlier;
  if (name == "exact") return gemm::Activations::exact;
  fail(Code::bad_call, "the driver reads activations as int8, int8-g128, int8-outlier or exact, not as \"", name, "\"");
}

// Transforms as (kind, seed or none, address of K numbers or 0); outliers and factors by address.
using TransformRow = std::tuple<std::string, std::optional<uint64_t>, uintptr_t>;

gemm::Extras extras_of(size_t rows, size_t columns, const std::vector<TransformRow>& transforms, size_t outliers,
                       uintptr_t row_starts, uintptr_t places, uintptr_t values, size_t rank, uintptr_t u,
                       uintptr_t v) {
  gemm::Extras extras;
  extras.rows = rows, extras.columns = columns, extras.outliers = outliers, extras.rank = rank;
  for (const auto& [kind, seed, numbers] : transforms) {
    using Kind = gemm::Transform::Kind;
    if (kind == "hadamard")
      extras.transforms.push_back({seed ? Kind::hadamard : Kind::hadamard_without_signs, seed.value_or(0)});
    else if (kind == "channel_scales")
      extras.transforms.push_back({Kind::scales, 0, reinterpret_cast<const float*>(numbers)});
    else if (kind == "permutation")
      extras.transforms.push_back({Kind::permutation, 0, nullptr, reinterpret_cast<const uint32_t*>(numbers)});
    else
      fail(Code::bad_call, "the driver applies hadamard, channel_scales and permutation, not ", kind);
  }
  extras.row_starts = reinterpret_cast<const uint32_t*>(row_starts);
  extras.places = reinterpret_cast<const uint32_t*>(places);
  extras.values = reinterpret_cast<const float*>(values);
  extras.u = reinterpret_cast<const float*>(u), extras.v = reinterpret_cast<const float*>(v);
  return extras;
}

}  // namespace

void bind_gemm(nb::module_& m) {
  m.def(
      "gemm_extras",
      [](size_t rows, size_t columns, const std::vector<TransformRow>& transforms, size_t outliers,
         uintptr_t row_starts, uintptr_t places, uintptr_t values, size_t rank, uintptr_t u, uintptr_t v, uintptr_t out,
         size_t bytes) {
        const auto extras = extras_of(rows, columns, transforms, outliers, row_starts, places, values, rank, u, v);
        if (out) extras.write(bytes_at(out, bytes));
        return extras.bytes();
      },
      nb::arg("rows"), nb::arg("columns"), nb::arg("transforms"), nb::arg("outliers"), nb::arg("row_starts"),
      nb::arg("places"), nb::arg("values"), nb::arg("rank"), nb::arg("u"), nb::arg("v"), nb::arg("out"),
      nb::arg("bytes"), "Bytes of the section, which is written where `out` is not 0. u is [rank, rows].");
  m.def(
      "gemm_packed_bytes",
      [](const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, int threads) {
        const View view = view_of(format, rows, columns, parts, threads);
        const nb::gil_scoped_release released;
        return std::visit([&](const auto& one) { return bytes_of(one, threads); }, view);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("threads"));
  m.def(
      "gemm_pack",
      [](const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, uintptr_t out,
         size_t bytes, int threads) {
        const View view = view_of(format, rows, columns, parts, threads);
        const nb::gil_scoped_release released;
        std::visit([&](const auto& one) { gemm::pack(one, bytes_at(out, bytes), threads); }, view);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("out"), nb::arg("bytes"),
      nb::arg("threads"));
  m.def(
      "gemm_linear",
      [](const std::string& dtype, uintptr_t x, size_t tokens, size_t columns, const std::vector<ProductRow>& rows,
         const std::string& activations, int threads) {
        const auto read = activations_of(activations);
        const gemm::Matrix from{dtype_of(dtype), reinterpret_cast<const uint8_t*>(x), tokens, columns};
        std::vector<gemm::Packed> packed;
        std::vector<gemm::Product> products;
        packed.reserve(rows.size());
        for (const auto& [data, data_bytes, bias_dtype, bias, bias_size, x_rows, x_row_count, y, y_bytes] : rows) {
          packed.push_back(gemm::Packed::parse(bytes_at(data, data_bytes)));
          products.push_back({&packed.back(),
                              {dtype_of(bias_dtype), reinterpret_cast<const uint8_t*>(bias), 1, bias_size},
                              reinterpret_cast<const uint32_t*>(x_rows),
                              x_row_count,
                              bytes_at(y, y_bytes)});
        }
        const nb::gil_scoped_release released;
        gemm::linear(from, products, read, from.dtype, threads);
      },
      nb::arg("dtype"), nb::arg("x"), nb::arg("tokens"), nb::arg("columns"), nb::arg("products"),
      nb::arg("activations"), nb::arg("threads"),
      "products: rows of (packed, its bytes, dtype of bias, bias, its count, rows of x, their count, y, its bytes); "
      "bias and rows of x: address 0 for none");
  m.def(
      "gemm_experts",
      [](const std::string& dtype, uintptr_t x, size_t tokens, size_t columns, const std::vector<ExpertRow>& rows,
         uintptr_t chosen, size_t chosen_count, const std::string& activations, uintptr_t y, size_t y_bytes,
         int threads) {
        const auto read = activations_of(activations);
        const gemm::Matrix from{dtype_of(dtype), reinterpret_cast<const uint8_t*>(x), tokens, columns};
        std::vector<gemm::Packed> packed;
        std::vector<gemm::Expert> experts;
        packed.reserve(rows.size());
        for (const auto& [data, data_bytes, bias_dtype, bias, bias_size] : rows) {
          packed.push_back(gemm::Packed::parse(bytes_at(data, data_bytes)));
          experts.push_back(
              {&packed.back(), {dtype_of(bias_dtype), reinterpret_cast<const uint8_t*>(bias), 1, bias_size}});
        }
        const nb::gil_scoped_release released;
        gemm::linear_experts(from, experts, ids_at(chosen, chosen_count), read, from.dtype, bytes_at(y, y_bytes),
                             threads);
      },
      nb::arg("dtype"), nb::arg("x"), nb::arg("tokens"), nb::arg("columns"), nb::arg("experts"), nb::arg("chosen"),
      nb::arg("chosen_count"), nb::arg("activations"), nb::arg("y"), nb::arg("y_bytes"), nb::arg("threads"),
      "experts: rows of (packed, its bytes, dtype of bias, bias, its count); chosen: int64 [tokens, slots]");
  m.def(
      "gemm_rows",
      [](uintptr_t data, size_t bytes, uintptr_t ids, size_t count, const std::string& dtype, uintptr_t out,
         size_t out_bytes, int threads) {
        const auto packed = gemm::Packed::parse(bytes_at(data, bytes));
        const DType wanted = dtype_of(dtype);
        const nb::gil_scoped_release released;
        gemm::dequantize_rows(packed, ids_at(ids, count), wanted, bytes_at(out, out_bytes), threads);
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("ids"), nb::arg("count"), nb::arg("dtype"), nb::arg("out"),
      nb::arg("out_bytes"), nb::arg("threads"), "ids: int64");
  m.def(
      "gemm_codes",
      [](uintptr_t data, size_t bytes, bool trits, uintptr_t out, size_t out_bytes, int threads) {
        const auto packed = gemm::Packed::parse(bytes_at(data, bytes));
        const nb::gil_scoped_release released;
        gemm::codes_of(packed, {packed.head.bits, trits}, bytes_at(out, out_bytes), threads);
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("trits"), nb::arg("out"), nb::arg("out_bytes"), nb::arg("threads"));
}

}  // namespace tersor::binding
