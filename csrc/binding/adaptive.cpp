// The adaptive stream. Arrays arrive as addresses, see bind.h; the GIL is released around all coding.
#include "entropy/adaptive.h"

#include <nanobind/nanobind.h>

#include "binding/bind.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

std::span<const uint8_t> bytes_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<const uint8_t*>(address), count};
}

}  // namespace

void bind_adaptive(nb::module_& m) {
  m.def(
      "adaptive_encode",
      [](uintptr_t symbols, size_t count, int bits, int order, int rate) {
        std::vector<uint8_t> data;
        {
          const nb::gil_scoped_release released;
          data = entropy::adaptive::encode(bytes_at(symbols, count), {bits, order, rate});
        }
        return nb::bytes(data.data(), data.size());
      },
      nb::arg("symbols"), nb::arg("count"), nb::arg("bits"), nb::arg("order"), nb::arg("rate"));
  m.def("adaptive_size",
        [](uintptr_t data, size_t bytes) { return entropy::adaptive::decoded_size(bytes_at(data, bytes)); });
  m.def(
      "adaptive_decode",
      [](uintptr_t data, size_t bytes, uintptr_t out, size_t count) {
        const nb::gil_scoped_release released;
        entropy::adaptive::decode(bytes_at(data, bytes), {reinterpret_cast<uint8_t*>(out), count});
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("out"), nb::arg("count"));
}

}  // namespace tersor::binding
