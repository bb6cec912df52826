#include "binding/formats.h"

#include <algorithm>
#include <variant>

#include "binding/bind.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/float_group.h"
#include "formats/int_group.h"
#include "solve/column_loop.h"
#include "solve/grid_fit.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using formats::FloatGroup;
using formats::Grid;
using formats::IntGroup;
using formats::NumberKind;

template <class Value>
struct Named {
  const char* name;
  Value value;
};
constexpr Named<IntGroup::Mode> kModes[] = {
    {"symmetric", IntGroup::Mode::symmetric}, {"zero", IntGroup::Mode::zero}, {"minimum", IntGroup::Mode::minimum}};
constexpr Named<FloatGroup::Element> kElements[] = {{"e2m1", FloatGroup::Element::e2m1},
                                                    {"e2m3", FloatGroup::Element::e2m3},
                                                    {"e3m2", FloatGroup::Element::e3m2},
                                                    {"e4m3", FloatGroup::Element::e4m3},
                                                    {"e5m2", FloatGroup::Element::e5m2}};
constexpr Named<NumberKind> kScales[] = {{"fp32", NumberKind::f32},     {"fp16", NumberKind::f16},
                                         {"bf16", NumberKind::bf16},    {"e8m0", NumberKind::e8m0},
                                         {"e4m3", NumberKind::e4m3},    {"super6", NumberKind::super},
                                         {"super7", NumberKind::super}, {"super8", NumberKind::super}};

template <class Value, size_t kCount>
Value named(const FormatDict& format, const char* member, const Named<Value> (&values)[kCount]) {
  const auto name = number_of<std::string>(format, member);
  std::string known;
  for (const auto& one : values) {
    if (name == one.name) return one.value;
    known += known.empty() ? "" : ", ";
    known += one.name;
  }
  fail(Code::bad_call, member, " is one of ", known, ", not \"", name, "\"");
}

IntGroup int_group_of(const FormatDict& format) {
  IntGroup found;
  found.ternary = nb::isinstance<nb::str>(format["bits"]);
  if (found.ternary)
    TERSOR_REQUIRE(number_of<std::string>(format, "bits") == "ternary", Code::bad_call,
                   "bits are 1, 2, 3, 4, 5, 6, 8 or \"ternary\"");
  found.bits = found.ternary ? 2 : number_of<int>(format, "bits");
  found.group = group_of(format);
  found.mode = named(format, "mode", kModes);
  found.scale = named(format, "scale", kScales);
  if (found.super()) found.super_bits = number_of<std::string>(format, "scale").back() - '0';
  return found;
}

FloatGroup float_group_of(const FormatDict& format) {
  FloatGroup found;
  found.element = named(format, "element", kElements);
  found.group = group_of(format);
  found.scale = named(format, "scale", kScales);
  return found;
}

// The families that are grids. A new one is a type here and a line in grid_format_of.
using GridFormat = std::variant<IntGroup, FloatGroup, formats::ScalarCodebook>;

GridFormat grid_format_of(const FormatDict& format) {
  const auto family = number_of<std::string>(format, "family");
  if (family == "int_group") return int_group_of(format);
  if (family == "float_group") return float_group_of(format);
  if (family == "codebook") return scalar_codebook_of(format);
  fail(Code::bad_call, "a format of family int_group, float_group or codebook is needed, not ", family);
}

formats::CodeWidth width_of(const FormatDict& format) {
  return std::visit([](const auto& one) { return one.width(); }, grid_format_of(format));
}

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

template <class Room>
std::vector<Room> arrays_of(const std::vector<PartRow>& rows) {
  std::vector<Room> found;
  for (const auto& [name, dtype_text, shape, address, bytes] : rows) {
    const auto dtype = dtype_named(dtype_text);
    TERSOR_REQUIRE(dtype, Code::bad_type, "part ", name, ": no dtype is named ", dtype_text);
    found.push_back({name, *dtype, shape, {reinterpret_cast<uint8_t*>(address), bytes}});
  }
  return found;
}

std::vector<NeedRow> needs_of(const FormatDict& format, size_t rows, size_t columns) {
  return rows_of(
      std::visit([&](const auto& one) { return formats::parts_of(one, rows, columns); }, grid_format_of(format)));
}

void fit(const FormatDict& format, const std::string& dtype_text, size_t rows, size_t columns, uintptr_t weights,
         size_t bytes, bool least_squares, uintptr_t importance, const std::vector<PartRow>& parts, int threads) {
  const auto chosen = grid_format_of(format);
  const auto dtype = dtype_named(dtype_text);
  TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", dtype_text);
  const auto rooms = rooms_of(parts);
  const nb::gil_scoped_release released;
  const solve::Weights matrix{*dtype, rows, columns, span_at<const uint8_t>(weights, bytes)};
  const solve::GridFit options{least_squares, span_at<const float>(importance, importance ? columns : 0)};
  std::visit(
      [&](const auto& one) {
        if constexpr (requires { solve::grid_fit(matrix, one, options, rooms, threads); })
          solve::grid_fit(matrix, one, options, rooms, threads);
        else
          fail(Code::bad_call, "codebooks have a fit of their own");
      },
      chosen);
}

// Codes of the grid whose numbers stand in `parts`, column by column, a byte each in and out. passes: 0 chooses them
// anew, else improves those that are there; gives how many the last pass changed.
size_t solve_columns(const FormatDict& format, const std::string& dtype_text, size_t rows, size_t columns,
                     uintptr_t weights, size_t bytes, const std::vector<PartRow>& parts, uintptr_t factor,
                     uintptr_t order, int passes, uintptr_t codes, int threads) {
  const Grid grid = grid_of(format, rows, columns, parts, threads);
  const auto dtype = dtype_named(dtype_text);
  TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", dtype_text);
  const nb::gil_scoped_release released;
  const solve::Weights matrix{*dtype, rows, columns, span_at<const uint8_t>(weights, bytes)};
  const solve::ColumnOrder loop{span_at<const float>(factor, checked_mul(columns, columns, "the factor")),
                                span_at<const uint32_t>(order, order ? columns : 0)};
  const auto out = span_at<uint8_t>(codes, checked_mul(rows, columns, "codes"));
  if (passes > 0) return solve::improve_codes(matrix, grid, loop, passes, out, threads);
  solve::choose_codes(matrix, grid, loop, out, threads);
  return out.size();
}

// Rows [first, first + count) in float32.
void dequantize(const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, size_t first,
                size_t count, uintptr_t out, int threads) {
  const Grid grid = grid_of(format, rows, columns, parts, threads);
  TERSOR_REQUIRE(first <= rows && count <= rows - first, Code::bad_call, "rows ", first, " to ", first + count, " of ",
                 rows);
  const nb::gil_scoped_release released;
  float* const to = reinterpret_cast<float*>(out);
  parallel_for(count, std::max<size_t>(1, (size_t(1) << 15) / columns), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) grid.dequantize(first + row, 0, columns, to + row * columns);
  });
}

}  // namespace

std::vector<formats::Part> parts_of(const std::vector<PartRow>& rows) { return arrays_of<formats::Part>(rows); }
std::vector<formats::PartRoom> rooms_of(const std::vector<PartRow>& rows) { return arrays_of<formats::PartRoom>(rows); }

std::vector<NeedRow> rows_of(const std::vector<formats::PartNeed>& needs) {
  std::vector<NeedRow> found;
  for (const auto& need : needs) found.emplace_back(need.name, std::string(dtype_name(need.dtype)), need.shape);
  return found;
}

template <class T>
T number_of(const FormatDict& format, const char* name) {
  TERSOR_REQUIRE(format.contains(name), Code::bad_call, "the format has no ", name);
  T value;
  const bool taken = !nb::isinstance<nb::bool_>(format[name]) && nb::try_cast(format[name], value);
  TERSOR_REQUIRE(taken, Code::bad_call, "the format's ", name, " is ", nb::repr(format[name]).c_str());
  return value;
}
template int number_of<int>(const FormatDict&, const char*);
template std::string number_of<std::string>(const FormatDict&, const char*);

size_t group_of(const FormatDict& format) {
  if (!format.contains("group") || !nb::isinstance<nb::str>(format["group"])) {
    const int group = number_of<int>(format, "group");
    TERSOR_REQUIRE(group > 0, Code::bad_call, "a group of ", group, " columns");
    return size_t(group);
  }
  const auto scope = number_of<std::string>(format, "group");
  TERSOR_REQUIRE(scope == "channel" || scope == "tensor", Code::bad_call,
                 "a group is a number of columns, \"channel\" or \"tensor\", not \"", scope, "\"");
  return scope == "channel" ? formats::kChannel : formats::kTensor;
}

formats::Grid grid_of(const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts,
                      int threads) {
  const auto chosen = grid_format_of(format);
  const auto found = parts_of(parts);
  const nb::gil_scoped_release released;
  return std::visit([&](const auto& one) { return formats::grid_of(one, rows, columns, found, threads); }, chosen);
}

void bind_formats(nb::module_& m) {
  m.def("grid_parts", &needs_of, nb::arg("format"), nb::arg("rows"), nb::arg("columns"));
  m.def("grid_fit", &fit, nb::arg("format"), nb::arg("dtype"), nb::arg("rows"), nb::arg("columns"), nb::arg("weights"),
        nb::arg("bytes"), nb::arg("least_squares"), nb::arg("importance"), nb::arg("parts"), nb::arg("threads"));
  m.def("grid_columns", &solve_columns, nb::arg("format"), nb::arg("dtype"), nb::arg("rows"), nb::arg("columns"),
        nb::arg("weights"), nb::arg("bytes"), nb::arg("parts"), nb::arg("factor"), nb::arg("order"), nb::arg("passes"),
        nb::arg("codes"), nb::arg("threads"));
  m.def(
      "grid_check",
      [](const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts, int threads) {
        grid_of(format, rows, columns, parts, threads);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"), nb::arg("threads"));
  m.def("grid_dequantize", &dequantize, nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("parts"),
        nb::arg("first"), nb::arg("count"), nb::arg("out"), nb::arg("threads"));
  m.def(
      "grid_unpack",
      [](const FormatDict& format, size_t rows, size_t columns, uintptr_t packed, size_t bytes, uintptr_t out,
         int threads) {
        const auto width = width_of(format);
        TERSOR_REQUIRE(bytes == checked_mul(rows, width.row_bytes(columns), "codes"), Code::bad_data, "codes of ",
                       bytes, " bytes, ", rows, " rows of ", width.row_bytes(columns), " are needed");
        const nb::gil_scoped_release released;
        formats::unpack_rows(span_at<const uint8_t>(packed, bytes), width, rows, columns,
                             span_at<uint8_t>(out, rows * columns), threads);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("packed"), nb::arg("bytes"), nb::arg("out"),
      nb::arg("threads"));
  m.def(
      "grid_pack",
      [](const FormatDict& format, size_t rows, size_t columns, uintptr_t codes, size_t bytes, uintptr_t packed,
         int threads) {
        const auto width = width_of(format);
        TERSOR_REQUIRE(bytes == checked_mul(rows, columns, "codes"), Code::bad_data, "codes of ", bytes, " bytes, ",
                       rows, " rows of ", columns, " are needed");
        const nb::gil_scoped_release released;
        formats::pack_rows(span_at<const uint8_t>(codes, bytes), width, rows, columns,
                           span_at<uint8_t>(packed, rows * width.row_bytes(columns)), threads);
      },
      nb::arg("format"), nb::arg("rows"), nb::arg("columns"), nb::arg("codes"), nb::arg("bytes"), nb::arg("packed"),
      nb::arg("threads"));
}

}  // namespace tersor::binding
