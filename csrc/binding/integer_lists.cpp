// Lists of Python's integers, as codecs of others hand them over, and their cdfs in one piece, so that a set of tables
// is known again by comparing memory. A list is read where it lies: NumPy would take ten times as long.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>

#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "binding/bind.h"
#include "core/error.h"
#include "entropy/table_set.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using entropy::TableSet;

// A list's element, which the list owns.
inline PyObject* item_of(PyObject* list, size_t i) {
#if defined(Py_LIMITED_API)
  PyObject* item = PyList_GetItem(list, Py_ssize_t(i));
  if (!item) throw nb::python_error();
  return item;
#else
  TERSOR_REQUIRE(i < size_t(PyList_GET_SIZE(list)), Code::bad_call, "a list has been shortened while it is read");
  return PyList_GET_ITEM(list, Py_ssize_t(i));
#endif
}

// Reads integers, the same object faster than a new one: small integers are one object each wherever they occur.
class IntegerReader {
 public:
  explicit IntegerReader(const char* what) : what_(what) {}

  // The first out.size() integers of a list. Whatever an element may do when it is asked for its number, no element is
  // touched afterwards and the list is asked for the next.
  void read(nb::handle list, std::span<int32_t> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      PyObject* item = item_of(list.ptr(), i);
      Known& known = known_[uintptr_t(item) / 32 % std::size(known_)];
      if (known.item != item) known = {item, value_of(item, i)};
      out[i] = known.value;
    }
  }

 private:
  struct Known {
    const PyObject* item;
    int32_t value;
  };

  int32_t value_of(PyObject* item, size_t number) const {
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(item, &overflow);
    if (value == -1 && !overflow && PyErr_Occurred()) {
      PyErr_Clear();
      fail(Code::bad_type, what_, " are integers, number ", number, " is none");
    }
    TERSOR_REQUIRE(!overflow && value >= INT32_MIN && value <= INT32_MAX, Code::bad_call, what_,
                   " have 32 bits, number ", number, " has more");
    return int32_t(value);
  }

  const char* what_;
  Known known_[512] = {};
};

// A list of integers; those near 0 are made once each.
nb::list list_of(std::span<const int32_t> values) {
  constexpr int32_t kNear = 512;
  nb::object near[2 * kNear];
  nb::list list = nb::steal<nb::list>(PyList_New(Py_ssize_t(values.size())));
  if (!list.is_valid()) throw nb::python_error();
  const auto made = [](int32_t value) {
    nb::object number = nb::steal(PyLong_FromLong(value));
    if (!number.is_valid()) throw nb::python_error();
    return number;
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const int32_t value = values[i];
    nb::object number;
    if (value >= -kNear && value < kNear) {
      nb::object& one = near[value + kNear];
      if (!one.is_valid()) one = made(value);
      number = one;
    } else {
      number = made(value);
    }
#if defined(Py_LIMITED_API)
    PyList_SetItem(list.ptr(), Py_ssize_t(i), number.release().ptr());
#else
    PyList_SET_ITEM(list.ptr(), Py_ssize_t(i), number.release().ptr());
#endif
  }
  return list;
}

size_t length_of(nb::handle list) { return size_t(PyList_Size(list.ptr())); }

// Integers of 32 bits: how many tables there are, then their sizes, their offsets, their values end to end.
class PackedCdfs {
 public:
  explicit PackedCdfs(const nb::bytes& data)
      : values_(static_cast<const int32_t*>(data.data()), data.size() / sizeof(int32_t)) {
    const auto tables = size_t(values_.empty() ? 0 : uint32_t(values_[0]));
    TERSOR_REQUIRE(values_.size() > tables && (values_.size() - 1) / 2 >= tables, Code::bad_call,
                   "these are no packed cdfs");
    sizes_ = values_.subspan(1, tables), offsets_ = values_.subspan(1 + tables, tables);
    values_ = values_.subspan(1 + 2 * tables);
  }

  std::vector<TableSet::Cdf> tables(size_t first, size_t count) const {
    TERSOR_REQUIRE(first <= sizes_.size() && count <= sizes_.size() - first, Code::bad_call, "tables ", first, " to ",
                   first + count, " of ", sizes_.size());
    std::vector<TableSet::Cdf> found;
    size_t at = 0;
    for (size_t t = 0; t < first + count; at += size_t(sizes_[t++])) {
      TERSOR_REQUIRE(sizes_[t] >= 0 && size_t(sizes_[t]) <= values_.size() - at, Code::bad_call,
                     "these are no packed cdfs");
      if (t >= first) found.push_back({offsets_[t], values_.subspan(at, size_t(sizes_[t]))});
    }
    return found;
  }

 private:
  std::span<const int32_t> values_, sizes_, offsets_;
};

// sizes, offsets: `tables` integers each. row(t, out) writes the first values of a row; row_length(t) bounds them.
template <class RowLength, class Row>
nb::bytes pack(size_t tables, std::span<const int32_t> sizes, std::span<const int32_t> offsets,
               const RowLength& row_length, const Row& row) {
  TERSOR_REQUIRE(sizes.size() == tables && offsets.size() == tables, Code::bad_call, sizes.size(), " sizes and ",
                 offsets.size(), " offsets for ", tables, " cdfs");
  size_t total = 1 + 2 * tables;
  for (size_t t = 0; t < tables; ++t) {
    const size_t length = row_length(t);
    TERSOR_REQUIRE(sizes[t] >= 0 && size_t(sizes[t]) <= length, Code::bad_call, "cdf ", t, " has ", length,
                   " values, its size says ", sizes[t]);
    total += size_t(sizes[t]);
  }
  const auto packed = std::make_unique_for_overwrite<int32_t[]>(total);
  packed[0] = int32_t(tables);
  std::memcpy(&packed[1], sizes.data(), sizes.size_bytes());
  std::memcpy(&packed[1 + tables], offsets.data(), offsets.size_bytes());
  size_t at = 1 + 2 * tables;
  for (size_t t = 0; t < tables; at += size_t(sizes[t++])) row(t, std::span(&packed[at], size_t(sizes[t])));
  return nb::bytes(packed.get(), total * sizeof(int32_t));
}

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

}  // namespace

void bind_integer_lists(nb::module_& m) {
  m.def(
      "read_integer_list",
      [](nb::list list, const char* what, uintptr_t out, size_t count) {
        TERSOR_REQUIRE(length_of(list) == count, Code::bad_call, "the list has ", length_of(list), " of ", count,
                       " elements");
        IntegerReader(what).read(list, span_at<int32_t>(out, count));
      },
      nb::sig("def read_integer_list(list: list[int], what: str, out: int, count: int, /) -> None"));
  m.def(
      "integer_list", [](uintptr_t values, size_t count) { return list_of(span_at<const int32_t>(values, count)); },
      nb::sig("def integer_list(values: int, count: int, /) -> list[int]"));
  m.def(
      "pack_cdf_lists",
      [](nb::list cdfs, uintptr_t sizes, size_t size_count, uintptr_t offsets, size_t offset_count) {
        const size_t tables = length_of(cdfs);
        const auto row_at = [&](size_t t) {
          const nb::handle row = item_of(cdfs.ptr(), t);
          TERSOR_REQUIRE(PyList_Check(row.ptr()), Code::bad_type, "cdfs are a list of lists, number ", t, " is none");
          return nb::borrow<nb::list>(row);
        };
        IntegerReader reader("cdfs");
        return pack(
            tables, span_at<const int32_t>(sizes, size_count), span_at<const int32_t>(offsets, offset_count),
            [&](size_t t) { return length_of(row_at(t)); },
            [&](size_t t, std::span<int32_t> out) { reader.read(row_at(t), out); });
      },
      nb::sig("def pack_cdf_lists(cdfs: list[list[int]], sizes: int, size_count: int, offsets: int, offset_count: int, "
              "/) -> bytes"));
  m.def("pack_cdf_array", [](uintptr_t cdfs, size_t tables, size_t length, uintptr_t sizes, size_t size_count,
                             uintptr_t offsets, size_t offset_count) {
    return pack(
        tables, span_at<const int32_t>(sizes, size_count), span_at<const int32_t>(offsets, offset_count),
        [&](size_t) { return length; },
        [&](size_t t, std::span<int32_t> out) {
          std::memcpy(out.data(), reinterpret_cast<const int32_t*>(cdfs) + t * length, out.size_bytes());
        });
  });
  m.def("table_set_of_cdfs", [](const nb::bytes& packed, size_t first, size_t count) {
    const auto tables = PackedCdfs(packed).tables(first, count);
    const nb::gil_scoped_release released;
    return std::make_shared<TableSet>(TableSet::from_cdfs(tables, entropy::kSlotBits));
  });
}

}  // namespace tersor::binding
