#include "checkpoint/checkpoint.h"

#include "checkpoint/files.h"
#include "checkpoint/pack.h"
#include "checkpoint/references.h"
#include "checkpoint/safetensors.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

using container::Kind;
using container::Origin;

constexpr const char* kHeaderName = "header";

std::vector<Source> sources_of(const Safetensors& file, std::span<const uint8_t> bytes) {
  std::vector<Source> sources;
  sources.push_back({kHeaderName, Kind::bytes, DType::U8, {}, bytes.first(size_t(file.header_bytes))});
  const auto body = bytes.subspan(size_t(file.header_bytes));
  for (const auto& tensor : file.tensors) {
    sources.push_back({tensor.name, Kind::tensor, tensor.dtype, tensor.shape,
                       body.subspan(size_t(tensor.begin), size_t(tensor.end - tensor.begin))});
  }
  return sources;
}

Source checked_source(const TensorView& tensor) {
  const uint64_t needed = bytes_of(tensor.dtype, tensor.shape);
  TERSOR_REQUIRE(needed == tensor.data.size(), Code::bad_call, "tensor \"", tensor.name, "\" has ", tensor.data.size(),
                 " bytes, ", dtype_name(tensor.dtype), shape_text(tensor.shape), " needs ", needed);
  return {tensor.name, Kind::tensor, tensor.dtype, tensor.shape, tensor.data};
}

std::vector<Source> sources_of(std::span<const TensorView> tensors) {
  std::vector<TensorView> sorted(tensors.begin(), tensors.end());
  sort_as_safetensors(sorted);
  std::vector<Source> sources;
  for (const TensorView& tensor : sorted) {
    TERSOR_REQUIRE(tensor.name != kMetadataKey, Code::bad_call, "no tensor may be called \"", kMetadataKey,
                   "\": .safetensors keeps its metadata there");
    sources.push_back(checked_source(tensor));
  }
  return sources;
}

uint64_t raw_sum(std::span<const Source> sources) {
  uint64_t sum = 0;
  for (const Source& source : sources) sum += source.data.size();
  return sum;
}

}  // namespace

Summary compress_file(const std::string& in, const std::string& out, const Options& options) {
  Pace reading(options.progress, 0);
  const InputFile input = InputFile::open(in, reading);
  Pace pace(options.progress, input.bytes().size());
  const References bases = References::open(options.bases, options.threads, pace);
  bases.refuse_as_output(out);
  OutputFile output(out, &input, options, pace);
  const auto file = parse_safetensors(input.bytes(), input.bytes().size());
  const std::vector<Source> sources =
      file ? sources_of(*file, input.bytes()) : std::vector<Source>{{"", Kind::bytes, DType::U8, {}, input.bytes()}};
  if (!file) input.expect_sequential();
  const Summary summary = pack(output, output.blocks(), file ? Origin::safetensors : Origin::file, sources,
                               file ? file->metadata : Metadata{}, bases, options, pace);
  pace.ask();
  output.commit();
  return summary;
}

Summary save_tensors(const std::string& out, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options) {
  const auto sources = sources_of(tensors);
  Pace pace(options.progress, raw_sum(sources));
  const References bases = References::open(options.bases, options.threads, pace);
  bases.refuse_as_output(out);
  OutputFile output(out, nullptr, options, pace);
  const Summary summary = pack(output, output.blocks(), Origin::tensors, sources, metadata, bases, options, pace);
  pace.ask();
  output.commit();
  return summary;
}

Summary save_tensors(container::Sink& sink, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options) {
  const auto sources = sources_of(tensors);
  Pace pace(options.progress, raw_sum(sources));
  return pack(sink, false, Origin::tensors, sources, metadata, References::open(options.bases, options.threads, pace),
              options, pace);
}

Summary compress_array(container::Sink& sink, const TensorView& array, const Options& options) {
  TERSOR_REQUIRE(array.name.empty(), Code::bad_call, "an array has no name, \"", array.name, "\" was given");
  const Source source = checked_source(array);
  Pace pace(options.progress, source.data.size());
  return pack(sink, false, Origin::array, {&source, 1}, {}, References(), options, pace);
}

std::vector<uint8_t> save_tensors(std::span<const TensorView> tensors, const Metadata& metadata,
                                  const Options& options) {
  container::MemorySink sink;
  save_tensors(sink, tensors, metadata, options);
  return sink.take();
}

std::vector<uint8_t> compress_array(const TensorView& array, const Options& options) {
  container::MemorySink sink;
  compress_array(sink, array, options);
  return sink.take();
}

}  // namespace tersor::checkpoint
