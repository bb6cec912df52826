#include <cstring>

#include "binding/bind.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

PyObject* format_error = nullptr;  // lives as long as the process, like the module

PyObject* kind_of(Code code) noexcept {
  switch (code) {
    case Code::bad_data: return format_error;
    case Code::bad_call: return PyExc_ValueError;
    case Code::bad_type: return PyExc_TypeError;
    case Code::missing: return PyExc_KeyError;
    case Code::interrupted: return PyExc_KeyboardInterrupt;
    case Code::environment: break;
  }
  return PyExc_OSError;
}

void raise(const Error& error) {
  // Names of files and hostile tensors may be any bytes.
  const auto text =
      nb::steal(PyUnicode_DecodeUTF8(error.what(), Py_ssize_t(std::strlen(error.what())), "backslashreplace"));
  if (!text.is_valid()) return;  // Python has set MemoryError
  // With an errno Python picks the subclass: FileNotFoundError, FileExistsError, BrokenPipeError.
  const bool numbered = error.code() == Code::environment && error.error_number() != 0;
  PyErr_SetObject(kind_of(error.code()), numbered ? nb::make_tuple(error.error_number(), text).ptr() : text.ptr());
}

}  // namespace

void bind_errors(nb::module_& m) {
  format_error = PyErr_NewExceptionWithDoc(
      "tersor.FormatError", "Bytes that are not what their format says: damaged, truncated or not tersor's.",
      PyExc_ValueError, nullptr);
  if (!format_error) nb::raise_python_error();
  m.attr("FormatError") = nb::handle(format_error);
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      raise(error);
    }
  });
}

}  // namespace tersor::binding
