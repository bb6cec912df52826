// Whole files and whole states, in and out of .tsr. Native work runs without the GIL; a progress object comes back into
// Python to let signals in, so that Ctrl-C ends any call here within a fraction of a second.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <tuple>
#include <utility>
#include <vector>

#include "binding/bind.h"
#include "binding/bytes_sink.h"
#include "checkpoint/checkpoint.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using checkpoint::Options;
using checkpoint::Summary;
using container::Metadata;

class PythonProgress final : public checkpoint::Progress {
 public:
  explicit PythonProgress(nb::object callback) : callback_(std::move(callback)) {}
  bool step(uint64_t done, uint64_t total) override {
    const nb::gil_scoped_acquire held;
    try {
      if (PyErr_CheckSignals() != 0) nb::raise_python_error();
      if (!callback_.is_none()) callback_(done, total);
      return true;
    } catch (...) {
      raised_ = std::current_exception();
      return false;
    }
  }
  const std::exception_ptr& raised() const noexcept { return raised_; }

 private:
  nb::object callback_;
  std::exception_ptr raised_;
};

// f(Options) without the GIL. What a signal handler or the callback raised takes the place of `interrupted`.
template <class F>
auto with_progress(nb::object callback, Options options, const F& f) {
  PythonProgress progress(std::move(callback));
  options.progress = &progress;
  try {
    const nb::gil_scoped_release released;
    return f(options);
  } catch (const Error& error) {
    if (error.code() == Code::interrupted && progress.raised()) std::rethrow_exception(progress.raised());
    throw;
  }
}

std::string text_of_path(const nb::bytes& path) { return {path.c_str(), path.size()}; }

// name, dtype, shape, address, bytes: what lossless.Elements holds, with the tensor's name.
using Row = std::tuple<std::string, std::string, std::vector<uint64_t>, uintptr_t, uint64_t>;

TensorView view_of(const Row& row) {
  const auto& [name, dtype_text, shape, address, bytes] = row;
  const auto dtype = dtype_named(dtype_text);
  TERSOR_REQUIRE(dtype, Code::bad_type, "tensor ", name, ": no dtype is named ", dtype_text);
  TERSOR_REQUIRE(bytes == bytes_of(*dtype, shape), Code::bad_call, "tensor ", name, ": ", bytes, " bytes for ",
                 dtype_text, " ", shape_text(shape));
  return {name, *dtype, shape, {reinterpret_cast<const uint8_t*>(address), size_t(bytes)}};
}

std::vector<TensorView> views_of(const std::vector<Row>& rows) {
  std::vector<TensorView> views;
  views.reserve(rows.size());
  for (const Row& row : rows) views.push_back(view_of(row));
  return views;
}

Summary compress_file(const nb::bytes& source, const nb::bytes& target, const std::vector<nb::bytes>& bases, int level,
                      int threads, bool force, nb::object progress) {
  const std::string in = text_of_path(source), out = text_of_path(target);
  return with_progress(std::move(progress),
                       {.level = level, .threads = threads, .force = force, .bases = paths_of(bases)},
                       [&](const Options& options) { return checkpoint::compress_file(in, out, options); });
}

Summary decompress_file(const nb::bytes& source, const nb::bytes& target, const std::vector<nb::bytes>& bases,
                        int threads, bool force, bool keep_going, nb::object progress) {
  const std::string in = text_of_path(source), out = text_of_path(target);
  return with_progress(std::move(progress),
                       {.threads = threads, .force = force, .bases = paths_of(bases), .keep_going = keep_going},
                       [&](const Options& options) { return checkpoint::decompress_file(in, out, options); });
}

Summary verify_file(const nb::bytes& source, const std::vector<nb::bytes>& bases, int threads, nb::object progress) {
  const std::string in = text_of_path(source);
  return with_progress(std::move(progress), {.threads = threads, .bases = paths_of(bases), .keep_going = true},
                       [&](const Options& options) { return checkpoint::verify_file(in, options); });
}

nb::bytes restored_name(const nb::bytes& source) {
  const std::string name = checkpoint::restored_name(text_of_path(source));
  return nb::bytes(name.data(), name.size());
}

void save_file(const nb::bytes& target, const std::vector<Row>& rows, const Metadata& metadata,
               const std::vector<nb::bytes>& bases, int level, int threads) {
  const std::string out = text_of_path(target);
  const auto views = views_of(rows);
  with_progress(nb::none(), {.level = level, .threads = threads, .force = true, .bases = paths_of(bases)},
                [&](const Options& options) { return checkpoint::save_tensors(out, views, metadata, options); });
}

// What a container of these tensors is likely to need at most.
size_t room_for(std::span<const TensorView> views) {
  size_t bytes = 4096;
  for (const TensorView& view : views) {
    bytes += view.name.size() + 256 + view.data.size();
    bytes += (view.data.size() / lossless::kChunkBytes + 1) *
             (lossless::chunk_bound(lossless::kChunkBytes) - lossless::kChunkBytes);
  }
  return bytes;
}

nb::bytes save(const std::vector<Row>& rows, const Metadata& metadata, const std::vector<nb::bytes>& bases, int level,
               int threads) {
  const auto views = views_of(rows);
  BytesSink sink(room_for(views));
  with_progress(nb::none(), {.level = level, .threads = threads, .bases = paths_of(bases)},
                [&](const Options& options) { return checkpoint::save_tensors(sink, views, metadata, options); });
  return sink.take();
}

nb::bytes compress_array(const std::string& dtype, const std::vector<uint64_t>& shape, uintptr_t address,
                         uint64_t nbytes, int level, int threads) {
  const TensorView view = view_of({"", dtype, shape, address, nbytes});
  BytesSink sink(room_for({&view, 1}));
  with_progress(nb::none(), {.level = level, .threads = threads},
                [&](const Options& options) { return checkpoint::compress_array(sink, view, options); });
  return sink.take();
}

}  // namespace

std::vector<std::string> paths_of(const std::vector<nb::bytes>& names) {
  std::vector<std::string> paths;
  for (const nb::bytes& name : names) paths.push_back(text_of_path(name));
  return paths;
}

void bind_files(nb::module_& m) {
  m.attr("CHUNK_BYTES") = lossless::kChunkBytes;
  m.attr("DEFAULT_LEVEL") = lossless::kDefaultLevel;
  nb::class_<Summary>(m, "Summary", "What a whole file came to; sizes in bytes.")
      .def_ro("raw_bytes", &Summary::raw_bytes)
      .def_ro("stored_bytes", &Summary::stored_bytes)
      .def_prop_ro("hash", [](const Summary& s) { return s.hash.hex(); })
      .def_ro("origin", &Summary::origin)
      .def_ro("damaged", &Summary::damaged);
  const nb::arg source("source"), target("target"), tensors("tensors"), metadata("metadata"), bases("bases"),
      level("level"), threads("threads"), force("force");
  m.def("compress_file", &compress_file, source, target, bases, level, threads, force, nb::arg("progress").none());
  m.def("decompress_file", &decompress_file, source, target, bases, threads, force, nb::arg("keep_going"),
        nb::arg("progress").none());
  m.def("verify_file", &verify_file, source, bases, threads, nb::arg("progress").none());
  m.def("restored_name", &restored_name, source);
  m.def("save_file", &save_file, target, tensors, metadata, bases, level, threads);
  m.def("save", &save, tensors, metadata, bases, level, threads);
  m.def("compress_array", &compress_array, nb::arg("dtype"), nb::arg("shape"), nb::arg("address"), nb::arg("nbytes"),
        level, threads);
}

}  // namespace tersor::binding
