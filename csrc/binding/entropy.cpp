// Tables, the rans8 and the huffman stream. Arrays arrive as addresses, see bind.h; the GIL is released around all
// coding.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "binding/bind.h"
#include "binding/bytes_sink.h"
#include "core/error.h"
#include "entropy/huffman.h"
#include "entropy/rans8.h"
#include "entropy/table.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using entropy::Table;
using entropy::rans8::Mode;

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

Mode mode_named(const std::string& name) {
  TERSOR_REQUIRE(name == "alias" || name == "contiguous", Code::bad_call, "mode is \"alias\" or \"contiguous\", not \"",
                 name, "\"");
  return name == "alias" ? Mode::alias : Mode::contiguous;
}

Table table_of_bytes(const nb::bytes& data) {
  std::span<const uint8_t> rest(static_cast<const uint8_t*>(data.data()), data.size());
  Table table = Table::parse(rest);
  TERSOR_REQUIRE(rest.empty(), Code::bad_data, "table: ", rest.size(), " bytes too many");
  return table;
}

}  // namespace

void bind_entropy(nb::module_& m) {
  nb::class_<Table>(m, "Table")
      .def_static("from_counts",
                  [](uintptr_t counts, size_t symbols, int precision) {
                    return Table::from_counts(span_at<const uint64_t>(counts, symbols), precision);
                  })
      .def_static("from_frequencies",
                  [](std::vector<uint32_t> frequencies, int precision, bool escape) {
                    return Table::from_frequencies(std::move(frequencies), precision, escape);
                  })
      .def_static("from_bytes", &table_of_bytes)
      .def("to_bytes",
           [](const Table& table) {
             std::vector<uint8_t> bytes;
             table.serialize(bytes);
             return nb::bytes(bytes.data(), bytes.size());
           })
      .def("frequencies",
           [](const Table& table) {
             return std::vector<uint32_t>(table.frequencies().begin(), table.frequencies().end());
           })
      .def_prop_ro("precision", &Table::precision)
      .def_prop_ro("has_escape", &Table::has_escape);

  m.def(
      "rans8_encode",
      [](uintptr_t symbols, size_t count, const Table* table, const std::string& mode, int threads) {
        const Mode chosen = mode_named(mode);
        const size_t bound = entropy::rans8::encode_bound(count);
        BytesSink sink(bound);
        {
          const nb::gil_scoped_release released;
          const auto from = span_at<const uint8_t>(symbols, count);
          sink.keep(entropy::rans8::encode(from, table, chosen, threads, sink.room(bound)));
        }
        return sink.take();
      },
      nb::arg("symbols"), nb::arg("count"), nb::arg("table").none(), nb::arg("mode"), nb::arg("threads"));
  m.def("rans8_size",
        [](uintptr_t data, size_t bytes) { return entropy::rans8::decoded_size(span_at<const uint8_t>(data, bytes)); });
  m.def(
      "rans8_decode",
      [](uintptr_t data, size_t bytes, const Table* table, uintptr_t out, size_t count, int threads) {
        const nb::gil_scoped_release released;
        entropy::rans8::decode(span_at<const uint8_t>(data, bytes), table, span_at<uint8_t>(out, count), threads);
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("table").none(), nb::arg("out"), nb::arg("count"), nb::arg("threads"));

  m.def(
      "huffman_encode",
      [](uintptr_t symbols, size_t count, int threads) {
        const size_t bound = entropy::huffman::encode_bound(count);
        BytesSink sink(bound);
        {
          const nb::gil_scoped_release released;
          sink.keep(entropy::huffman::encode(span_at<const uint8_t>(symbols, count), threads, sink.room(bound)));
        }
        return sink.take();
      },
      nb::arg("symbols"), nb::arg("count"), nb::arg("threads"));
  m.def("huffman_size", [](uintptr_t data, size_t bytes) {
    return entropy::huffman::decoded_size(span_at<const uint8_t>(data, bytes));
  });
  m.def(
      "huffman_decode",
      [](uintptr_t data, size_t bytes, uintptr_t out, size_t count, int threads) {
        const nb::gil_scoped_release released;
        entropy::huffman::decode(span_at<const uint8_t>(data, bytes), span_at<uint8_t>(out, count), threads);
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("out"), nb::arg("count"), nb::arg("threads"));
}

}  // namespace tersor::binding
