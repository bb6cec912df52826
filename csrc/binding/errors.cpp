#include "binding/bind.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

PyObject* format_error = nullptr;  // lives as long as the process, like the module

void raise(const Error& error) {
  switch (error.code()) {
    case Code::bad_data: return PyErr_SetString(format_error, error.what());
    case Code::bad_call: return PyErr_SetString(PyExc_ValueError, error.what());
    case Code::bad_type: return PyErr_SetString(PyExc_TypeError, error.what());
    case Code::missing: return PyErr_SetString(PyExc_KeyError, error.what());
    case Code::interrupted: return PyErr_SetString(PyExc_KeyboardInterrupt, error.what());
    case Code::environment: break;
  }
  // With an errno Python picks the subclass: FileNotFoundError, FileExistsError, BrokenPipeError.
  if (error.error_number() == 0) return PyErr_SetString(PyExc_OSError, error.what());
  PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.error_number(), error.what()).ptr());
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
