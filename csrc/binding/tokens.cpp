// Tokens of learned codecs: models, streams and single chunks. Arrays arrive as addresses, see bind.h; the GIL is
// released around fits and coding.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "binding/bind.h"
#include "entropy/tokens.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using entropy::tokens::Model;
using entropy::tokens::Stream;

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

nb::bytes bytes_of(std::span<const uint8_t> bytes) { return nb::bytes(bytes.data(), bytes.size()); }

template <class F>
nb::bytes bytes_made(const F& make) {
  std::vector<uint8_t> bytes;
  {
    const nb::gil_scoped_release released;
    bytes = make();
  }
  return bytes_of(bytes);
}

Model fitted(uintptr_t tokens, size_t count, const std::vector<uint64_t>& clip_frames,
             const std::vector<uint32_t>& sizes, size_t chunk_frames, bool prior) {
  const nb::gil_scoped_release released;
  return entropy::tokens::fit(span_at<const uint16_t>(tokens, count), clip_frames, sizes, chunk_frames, prior);
}

std::vector<uint32_t> sizes_of(const Model& model) {
  std::vector<uint32_t> sizes;
  for (const auto& book : model.books()) sizes.push_back(book.size);
  return sizes;
}

// Of each damaged chunk: its number, its first frame, its frames, what is wrong with it.
using Told = std::tuple<uint64_t, uint64_t, uint64_t, std::string>;

std::vector<Told> decoded(const Stream& stream, uintptr_t out, size_t count) {
  std::vector<Told> told;
  const nb::gil_scoped_release released;
  for (auto& damage : stream.decode(span_at<uint16_t>(out, count)))
    told.emplace_back(damage.chunk, damage.first_frame, damage.frames, std::move(damage.reason));
  return told;
}

}  // namespace

void bind_tokens(nb::module_& m) {
  nb::class_<Model>(m, "TokenModel")
      .def_static("fit", &fitted, nb::arg("tokens"), nb::arg("count"), nb::arg("clip_frames"), nb::arg("sizes"),
                  nb::arg("chunk_frames"), nb::arg("prior"))
      .def_static("unpack", [](uintptr_t data,
                               size_t bytes) { return entropy::tokens::unpack(span_at<const uint8_t>(data, bytes)); })
      .def("pack", [](const Model& model) { return bytes_of(entropy::tokens::pack(model)); })
      .def_prop_ro("id", &Model::id)
      .def_prop_ro("chunk_frames", &Model::chunk_frames)
      .def_prop_ro("sizes", &sizes_of)
      .def("encode",
           [](const Model& model, uintptr_t tokens, size_t count, bool inside) {
             return bytes_made(
                 [&] { return entropy::tokens::encode(span_at<const uint16_t>(tokens, count), model, inside); });
           })
      .def("encode_chunk",
           [](const Model& model, uintptr_t tokens, size_t count, uint64_t number) {
             return bytes_made([&] { return model.encode_chunk(span_at<const uint16_t>(tokens, count), number); });
           })
      .def("frames_in", [](const Model& model, uintptr_t data,
                           size_t bytes) { return model.frames_in(span_at<const uint8_t>(data, bytes)); })
      .def("decode_chunk",
           [](const Model& model, uintptr_t data, size_t bytes, uint64_t number, uintptr_t out, size_t count) {
             const nb::gil_scoped_release released;
             model.decode_chunk(span_at<const uint8_t>(data, bytes), number, span_at<uint16_t>(out, count));
           });

  // It reads `data` until it is gone: the caller keeps it alive.
  nb::class_<Stream>(m, "TokenStream")
      .def(
          "__init__",
          [](Stream* self, uintptr_t data, size_t bytes, const Model* model, bool whole) {
            new (self) Stream(span_at<const uint8_t>(data, bytes), model, whole);
          },
          nb::arg("data"), nb::arg("bytes"), nb::arg("model").none(), nb::arg("whole"), nb::keep_alive<1, 4>())
      .def_prop_ro("frames", &Stream::frames)
      .def_prop_ro("sizes", [](const Stream& stream) { return sizes_of(stream.model()); })
      .def("decode", &decoded, nb::arg("out"), nb::arg("count"));
}

}  // namespace tersor::binding
