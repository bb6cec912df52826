// .tsr containers open for reading: from a file, mapped, or from any buffer.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "binding/bind.h"
#include "checkpoint/checkpoint.h"
#include "core/pool.h"
#include "torch_ops/register.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using checkpoint::Entry;
using checkpoint::TensorFile;

// Keeps the exporter from resizing or freeing the bytes that a TensorFile looks at.
class Buffer {
 public:
  explicit Buffer(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) nb::raise_python_error();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { PyBuffer_Release(&view_); }
  std::span<const uint8_t> bytes() const noexcept {
    return {static_cast<const uint8_t*>(view_.buf), size_t(view_.len)};
  }

 private:
  Py_buffer view_;
};

struct PythonFile {
  std::unique_ptr<Buffer> buffer;  // what the file views; empty for a mapped file
  TensorFile file;
};

struct PythonEntry {
  TensorFile file;
  size_t index;
  const Entry& entry() const noexcept { return file.entries()[index]; }
};

// entry, first byte of it, address, bytes
using Job = std::tuple<size_t, uint64_t, uintptr_t, uint64_t>;

void read(const PythonFile& self, const std::vector<Job>& jobs, int threads, bool torch_threads) {
  // In batches that end where chunks end, so that signals come in between.
  constexpr uint64_t kBatchBytes = 64 * lossless::kChunkBytes;
  std::vector<TensorFile::Request> batch;
  uint64_t batch_bytes = 0;
  const auto flush = [&] {
    {
      const nb::gil_scoped_release released;
      const ExecutorScope scope(torch_threads ? torch_ops::torch_threads() : nullptr);
      self.file.read_all(batch, threads);
    }
    batch.clear(), batch_bytes = 0;
    if (PyErr_CheckSignals() != 0) nb::raise_python_error();
  };
  for (auto [entry, begin, address, left] : jobs) {
    while (left > 0) {
      const uint64_t bytes = std::min(left, kBatchBytes - begin % lossless::kChunkBytes);
      batch.push_back({entry, begin, {reinterpret_cast<uint8_t*>(address), size_t(bytes)}});
      begin += bytes, address += bytes, left -= bytes, batch_bytes += bytes;
      if (batch_bytes >= kBatchBytes) flush();
    }
  }
  flush();
}

nb::list entries_of(const PythonFile& self) {
  nb::list entries;
  for (size_t i = 0; i < self.file.entries().size(); ++i) entries.append(PythonEntry{self.file, i});
  return entries;
}

}  // namespace

void bind_tensor_file(nb::module_& m) {
  using E = PythonEntry;
  nb::class_<E>(m, "Entry", "One tensor, or run of bytes, of a TensorFile; sizes in bytes.")
      .def_ro("index", &E::index)
      .def_prop_ro("name", [](const E& e) { return e.entry().name; })
      .def_prop_ro("kind", [](const E& e) { return e.entry().kind == container::Kind::tensor ? "tensor" : "bytes"; })
      .def_prop_ro("dtype", [](const E& e) { return dtype_name(e.entry().dtype); })
      .def_prop_ro(
          "shape", [](const E& e) { return nb::tuple(nb::cast(e.entry().shape)); },
          nb::sig("def shape(self) -> tuple[int, ...]"))
      .def_prop_ro("nbytes", [](const E& e) { return e.entry().raw_bytes; })
      .def_prop_ro("stored", [](const E& e) { return e.file.stored_bytes(e.index); })
      .def_prop_ro("codec", [](const E& e) { return container::codec_name(e.entry().codec); })
      .def_prop_ro("base",
                   [](const E& e) -> std::optional<std::string> {
                     const Entry& own = e.entry();
                     const Entry& entry = own.same_as ? e.file.entries()[*own.same_as] : own;
                     if (entry.codec != uint8_t(container::Codec::difference)) return std::nullopt;
                     return e.file.bases()[entry.base].hex();
                   })
      .def_prop_ro("hash", [](const E& e) { return e.entry().hash.hex(); });

  using F = PythonFile;
  nb::class_<F>(m, "TensorFile", "A .tsr container, mapped or in memory; immutable.")
      .def_static(
          "open",
          [](const nb::bytes& path, const std::vector<nb::bytes>& bases) {
            const std::string text(path.c_str(), path.size());
            const auto names = paths_of(bases);
            const nb::gil_scoped_release released;
            return F{nullptr, TensorFile::open(text, names)};
          },
          nb::arg("path"), nb::arg("bases"))
      .def_static(
          "open_index",
          [](const nb::bytes& path) {
            const std::string text(path.c_str(), path.size());
            const nb::gil_scoped_release released;
            return F{nullptr, TensorFile::open_index(text)};
          },
          nb::arg("path"))
      .def_static(
          "view",
          [](nb::object data, const std::vector<nb::bytes>& bases) {
            auto buffer = std::make_unique<Buffer>(data);
            const auto names = paths_of(bases);
            const nb::gil_scoped_release released;
            auto file = TensorFile::view(buffer->bytes(), names);
            return F{std::move(buffer), std::move(file)};
          },
          nb::arg("data"), nb::arg("bases"),
          nb::sig("def view(data: typing_extensions.Buffer, bases: collections.abc.Sequence[bytes]) -> TensorFile"))
      .def_prop_ro("entries", &entries_of, nb::sig("def entries(self) -> list[Entry]"))
      .def_prop_ro("metadata", [](const F& f) { return f.file.metadata(); })
      .def_prop_ro("hash", [](const F& f) { return f.file.hash().hex(); })
      .def_prop_ro("bases",
                   [](const F& f) {
                     std::vector<std::string> hashes;
                     for (const Hash128& hash : f.file.bases()) hashes.push_back(hash.hex());
                     return hashes;
                   })
      .def_prop_ro("version", [](const F& f) { return f.file.version(); })
      .def_prop_ro("origin", [](const F& f) { return f.file.origin(); })
      .def("read", &read, nb::arg("jobs"), nb::arg("threads"), nb::arg("torch_threads") = false,
           "Fill memory: jobs are (entry, first byte of it, address, bytes). torch_threads: on torch's, between "
           "operators.");
}

}  // namespace tersor::binding
