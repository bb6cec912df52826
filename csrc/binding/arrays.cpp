#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <string_view>
#include <vector>

#include "binding/bind.h"
#include "core/array.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

struct Foreign {
  nb::ndarray<nb::ro> array;

  Foreign(nb::handle object, bool writable) {
    // Without `ro` nanobind refuses what its owner exports as read-only.
    nb::ndarray<> checked;
    const bool taken = writable ? nb::try_cast(object, checked) : nb::try_cast(object, array);
    TERSOR_REQUIRE(taken, Code::bad_type, "DLPack gives no ", writable ? "writable " : "", "array of ",
                   nb::str(object.type()).c_str());
    if (writable) array = nb::ndarray<nb::ro>(checked);
  }
};

// "" for what the core has no number for.
std::string_view dtype_of(const nb::dlpack::dtype& dtype) noexcept {
  struct Row {
    nb::dlpack::dtype_code code;
    uint8_t bits;
    DType dtype;
  };
  using Kind = nb::dlpack::dtype_code;
  static constexpr Row kRows[] = {
      {Kind::Bool, 8, DType::BOOL},
      {Kind::UInt, 8, DType::U8},
      {Kind::UInt, 16, DType::U16},
      {Kind::UInt, 32, DType::U32},
      {Kind::UInt, 64, DType::U64},
      {Kind::Int, 8, DType::I8},
      {Kind::Int, 16, DType::I16},
      {Kind::Int, 32, DType::I32},
      {Kind::Int, 64, DType::I64},
      {Kind::Float, 16, DType::F16},
      {Kind::Float, 32, DType::F32},
      {Kind::Float, 64, DType::F64},
      {Kind::Bfloat, 16, DType::BF16},
      {Kind::Complex, 64, DType::C64},
      {Kind::Float8_E4M3FN, 8, DType::F8_E4M3},
      {Kind::Float8_E5M2, 8, DType::F8_E5M2},
      {Kind::Float8_E8M0FNU, 8, DType::F8_E8M0},
  };
  for (const Row& row : kRows)
    if (uint8_t(row.code) == dtype.code && row.bits == dtype.bits && dtype.lanes == 1) return dtype_name(row.dtype);
  return "";
}

// Row-major without gaps. Strides of dims that hold one element, or of empty arrays, say nothing.
bool contiguous(const nb::ndarray<nb::ro>& array) noexcept {
  if (array.size() == 0) return true;
  int64_t step = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) != 1 && array.stride(i) != step) return false;
    step *= int64_t(array.shape(i));
  }
  return true;
}

}  // namespace

void bind_arrays(nb::module_& m) {
  nb::class_<Foreign>(m, "Foreign", "An array of another library, held through DLPack without a copy.")
      .def(nb::init<nb::handle, bool>(), nb::arg("array"), nb::arg("writable"))
      .def_prop_ro(
          "dtype", [](const Foreign& f) { return dtype_of(f.array.dtype()); }, "safetensors' name, or empty")
      .def_prop_ro("shape",
                   [](const Foreign& f) {
                     std::vector<int64_t> shape(f.array.ndim());
                     for (size_t i = 0; i < shape.size(); ++i) shape[i] = int64_t(f.array.shape(i));
                     return shape;
                   })
      .def_prop_ro("address", [](const Foreign& f) { return reinterpret_cast<uintptr_t>(f.array.data()); })
      .def_prop_ro("nbytes", [](const Foreign& f) { return f.array.nbytes(); })
      .def_prop_ro("contiguous", [](const Foreign& f) { return contiguous(f.array); });
  m.def(
      "dtype_bytes",
      [](std::string_view name) {
        const auto dtype = dtype_named(name);
        TERSOR_REQUIRE(dtype, Code::bad_type, "no dtype is named ", name);
        return dtype_bytes(*dtype);
      },
      nb::arg("name"));
}

}  // namespace tersor::binding
