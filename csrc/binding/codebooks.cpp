// Formats with codebooks and sparse ones, side terms, rotations and permutations. Arrays arrive as addresses, formats
// and parts as binding/formats.h says; the GIL is released around all work on them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "binding/bind.h"
#include "binding/formats.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/codebook.h"
#include "formats/low_rank.h"
#include "formats/outliers.h"
#include "formats/sparse.h"
#include "solve/codebook_fit.h"
#include "solve/topk.h"
#include "transform/hadamard.h"
#include "transform/permutation.h"

namespace nb = nanobind;

namespace tersor::binding {

using formats::NumberKind;
using formats::ScalarCodebook;
using formats::SparseFormat;
using formats::VectorCodebook;

NumberKind number_kind_of(const std::string& name, const char* what) {
  if (name == "fp32") return NumberKind::f32;
  if (name == "fp16") return NumberKind::f16;
  if (name == "bf16") return NumberKind::bf16;
  fail(Code::bad_call, what, ": fp32, fp16 and bf16 are known, not \"", name, "\"");
}

ScalarCodebook scalar_codebook_of(const FormatDict& format) {
  ScalarCodebook found;
  const auto scope = number_of<std::string>(format, "scope"), scale = number_of<std::string>(format, "scale");
  constexpr const char* kScopes[] = {"nf4", "tensor", "channel", "group"};
  const auto* const at = std::find(std::begin(kScopes), std::end(kScopes), scope);
  TERSOR_REQUIRE(at != std::end(kScopes), Code::bad_call,
                 "the scope of a codebook is nf4, tensor, channel or group, not \"", scope, "\"");
  found.scope = formats::Scope(at - kScopes);
  const int levels = number_of<int>(format, "levels");
  found.levels = levels < 0 ? 0 : size_t(levels);
  found.group = group_of(format);
  found.scale = scale == "none" ? NumberKind::none : number_kind_of(scale, "scale");
  found.table = number_kind_of(number_of<std::string>(format, "storage"), "storage");
  return found;
}

namespace {

size_t size_of(const FormatDict& format, const char* name) {
  const int number = number_of<int>(format, name);
  TERSOR_REQUIRE(number >= 0, Code::bad_call, "the format's ", name, " is ", number);
  return size_t(number);
}

}  // namespace

VectorCodebook vector_codebook_of(const FormatDict& format) {
  return {number_of<int>(format, "dimension"), number_of<int>(format, "stages"), size_of(format, "entries")};
}

SparseFormat sparse_format_of(const FormatDict& format) {
  SparseFormat found;
  const auto support = number_of<std::string>(format, "support"), values = number_of<std::string>(format, "values");
  constexpr const char* kSupports[] = {"bitmap", "nm", "block"};
  const auto* const at = std::find(std::begin(kSupports), std::end(kSupports), support);
  TERSOR_REQUIRE(at != std::end(kSupports), Code::bad_call, "a support is bitmap, nm or block, not \"", support, "\"");
  found.support = formats::Support(at - kSupports);
  found.keep = size_of(format, "keep"), found.span = size_of(format, "span");
  const bool coded = values.size() == 4 && values.starts_with("int");
  found.values = coded ? NumberKind::none : number_kind_of(values, "values other than int2 to int8");
  found.bits = coded ? values[3] - '0' : 0;
  found.group = group_of(format);
  found.scale = number_kind_of(number_of<std::string>(format, "scale"), "scale");
  return found;
}

namespace {

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

// Formats that are no grids.
using Stored = std::variant<VectorCodebook, SparseFormat>;

Stored stored_of(const FormatDict& format) {
  const auto family = number_of<std::string>(format, "family");
  if (family == "vector_codebook") return vector_codebook_of(format);
  if (family == "sparse") return sparse_format_of(format);
  fail(Code::bad_call, "a format of family vector_codebook or sparse is needed, not ", family);
}

formats::VectorCodes view_of(const VectorCodebook& format, size_t rows, size_t columns,
                             const std::vector<formats::Part>& parts, int threads) {
  return formats::vector_codes_of(format, rows, columns, parts, threads);
}
formats::Sparse view_of(const SparseFormat& format, size_t rows, size_t columns,
                        const std::vector<formats::Part>& parts, int threads) {
  return formats::sparse_of(format, rows, columns, parts, threads);
}

std::vector<NeedRow> stored_parts(const FormatDict& format, size_t rows, size_t columns, size_t kept) {
  const auto chosen = stored_of(format);
  if (const auto* sparse = std::get_if<SparseFormat>(&chosen))
    return rows_of(formats::parts_of(*sparse, rows, columns, kept));
  return rows_of(formats::parts_of(std::get<VectorCodebook>(chosen), rows, columns));
}

// Rows [first, first + count) into out, if there is one; the parts are checked in any case.
void stored_dequantize(const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts,
                       size_t first, size_t count, uintptr_t out, int threads) {
  const auto chosen = stored_of(format);
  const auto found = parts_of(parts);
  const nb::gil_scoped_release released;
  TERSOR_REQUIRE(first <= rows && count <= rows - first, Code::bad_call, "rows ", first, " to ", first + count, " of ",
                 rows);
  std::visit(
      [&](const auto& one) {
        const auto view = view_of(one, rows, columns, found, threads);
        float* const to = reinterpret_cast<float*>(out);
        parallel_for(count, std::max<size_t>(1, (size_t(1) << 15) / columns), threads, [&](size_t begin, size_t end) {
          for (size_t row = begin; row < end; ++row) view.dequantize(first + row, 0, columns, to + row * columns);
        });
      },
      chosen);
}

void codebook_fit(const FormatDict& format, const std::string& dtype_text, size_t rows, size_t columns,
                  uintptr_t weights, size_t bytes, bool least_squares, uintptr_t importance, bool given, uint64_t seed,
                  const std::vector<PartRow>& parts, int threads) {
  const bool scalar = number_of<std::string>(format, "family") == "codebook";
  const auto dtype = dtype_named(dtype_text);
  TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", dtype_text);
  const auto rooms = rooms_of(parts);
  const solve::Weights matrix{*dtype, rows, columns, span_at<const uint8_t>(weights, bytes)};
  const solve::CodebookFit options{.least_squares = least_squares,
                                   .importance = span_at<const float>(importance, importance ? columns : 0),
                                   .given = given,
                                   .seed = seed};
  const auto scalars = scalar ? scalar_codebook_of(format) : ScalarCodebook();
  const auto vectors = scalar ? VectorCodebook() : vector_codebook_of(format);
  const nb::gil_scoped_release released;
  if (scalar)
    solve::codebook_fit(matrix, scalars, options, rooms, threads);
  else
    solve::codebook_fit(matrix, vectors, options, rooms, threads);
}

// A side term to each row of a matrix; no matrix: the parts are checked alone.
template <class View>
void add_rows(const View& view, uintptr_t matrix, int threads) {
  if (matrix == 0) return;
  float* const to = reinterpret_cast<float*>(matrix);
  parallel_for(view.rows, std::max<size_t>(1, (size_t(1) << 15) / view.columns), threads,
               [&](size_t begin, size_t end) {
                 for (size_t row = begin; row < end; ++row) view.add(row, 0, view.columns, to + row * view.columns);
               });
}

void bind_side_terms(nb::module_& m) {
  m.def(
      "outliers_add",
      [](const std::string& values, size_t rows, size_t columns, const std::vector<PartRow>& parts, uintptr_t matrix,
         int threads) {
        const auto kind = number_kind_of(values, "values of outliers");
        const auto found = parts_of(parts);
        const nb::gil_scoped_release released;
        add_rows(formats::outliers_of(kind, rows, columns, found, threads), matrix, threads);
      },
      nb::arg("values"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("matrix"), nb::arg("threads"));
  m.def(
      "low_rank_add",
      [](const std::string& dtype, size_t rank, size_t rows, size_t columns, const std::vector<PartRow>& parts,
         uintptr_t matrix, int threads) {
        const auto kind = dtype == "int8" ? NumberKind::none : number_kind_of(dtype, "a low-rank term but int8");
        const auto found = parts_of(parts);
        const nb::gil_scoped_release released;
        add_rows(formats::low_rank_of(kind, rank, rows, columns, found), matrix, threads);
      },
      nb::arg("dtype"), nb::arg("rank"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("matrix"),
      nb::arg("threads"));
}

void bind_transforms(nb::module_& m) {
  m.def(
      "hadamard",
      [](uintptr_t matrix, size_t rows, size_t columns, std::optional<uint64_t> seed, bool inverse, int threads) {
        const nb::gil_scoped_release released;
        transform::hadamard(span_at<float>(matrix, size_t(checked_mul(rows, columns, "matrix"))), columns, seed,
                            inverse, threads);
      },
      nb::arg("matrix"), nb::arg("rows"), nb::arg("columns"), nb::arg("seed").none(), nb::arg("inverse"),
      nb::arg("threads"));
  m.def(
      "permute_columns",
      [](uintptr_t matrix, size_t rows, uintptr_t order, size_t columns, bool inverse, uintptr_t out, int threads) {
        const nb::gil_scoped_release released;
        const auto size = size_t(checked_mul(rows, columns, "matrix"));
        transform::permute_columns(span_at<const float>(matrix, size), span_at<const uint32_t>(order, columns), inverse,
                                   span_at<float>(out, size), threads);
      },
      nb::arg("matrix"), nb::arg("rows"), nb::arg("order"), nb::arg("columns"), nb::arg("inverse"), nb::arg("out"),
      nb::arg("threads"));
  m.def(
      "check_permutation",
      [](uintptr_t order, size_t columns) { transform::check_permutation(span_at<const uint32_t>(order, columns)); },
      nb::arg("order"), nb::arg("columns"));
}

}  // namespace

void bind_codebooks(nb::module_& m) {
  m.def("stored_parts", &stored_parts, nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("kept"));
  m.def("stored_dequantize", &stored_dequantize, nb::arg("format"), nb::arg("rows"), nb::arg("columns"),
        nb::arg("parts"), nb::arg("first"), nb::arg("count"), nb::arg("out"), nb::arg("threads"));
  m.def("codebook_fit", &codebook_fit, nb::arg("format"), nb::arg("dtype"), nb::arg("rows"), nb::arg("columns"),
        nb::arg("weights"), nb::arg("bytes"), nb::arg("least_squares"), nb::arg("importance"), nb::arg("given"),
        nb::arg("seed"), nb::arg("parts"), nb::arg("threads"));
  m.def(
      "wide_rows_pack",
      [](uintptr_t codes, int bits, size_t limit, size_t rows, size_t count, uintptr_t packed, size_t bytes,
         int threads) {
        const nb::gil_scoped_release released;
        formats::pack_wide_rows(span_at<const uint16_t>(codes, size_t(checked_mul(rows, count, "codes"))), bits, limit,
                                rows, count, span_at<uint8_t>(packed, bytes), threads);
      },
      nb::arg("codes"), nb::arg("bits"), nb::arg("limit"), nb::arg("rows"), nb::arg("count"), nb::arg("packed"),
      nb::arg("bytes"), nb::arg("threads"));
  m.def(
      "wide_rows_unpack",
      [](uintptr_t packed, size_t bytes, int bits, size_t rows, size_t count, uintptr_t out, int threads) {
        const nb::gil_scoped_release released;
        formats::unpack_wide_rows(span_at<const uint8_t>(packed, bytes), bits, rows, count,
                                  span_at<uint16_t>(out, size_t(checked_mul(rows, count, "codes"))), threads);
      },
      nb::arg("packed"), nb::arg("bytes"), nb::arg("bits"), nb::arg("rows"), nb::arg("count"), nb::arg("out"),
      nb::arg("threads"));
  m.def(
      "keep_largest",
      [](uintptr_t numbers, size_t rows, size_t columns, size_t span, size_t keep, uintptr_t mask, int threads) {
        const nb::gil_scoped_release released;
        const auto size = size_t(checked_mul(rows, columns, "matrix"));
        solve::keep_largest(span_at<const float>(numbers, size), columns, span, keep, span_at<uint8_t>(mask, size),
                            threads);
      },
      nb::arg("numbers"), nb::arg("rows"), nb::arg("columns"), nb::arg("span"), nb::arg("keep"), nb::arg("mask"),
      nb::arg("threads"));
  bind_side_terms(m);
  bind_transforms(m);
}

}  // namespace tersor::binding
