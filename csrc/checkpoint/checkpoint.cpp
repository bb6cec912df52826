#include "checkpoint/checkpoint.h"

#include "checkpoint/file_layout.h"
#include "checkpoint/files.h"
#include "checkpoint/pack.h"
#include "checkpoint/references.h"
#include "checkpoint/safetensors.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

using container::Kind;
using container::Origin;

// The file's parts, and behind them what lies between them: `between` owns these bytes.
Contents contents_of(FileLayout&& layout, std::span<const uint8_t> bytes, std::vector<uint8_t>& between) {
  Contents contents{layout.origin, {}, std::move(layout.metadata), {}};
  uint64_t at = 0;
  const auto keep = [&](uint64_t until) {
    between.insert(between.end(), bytes.begin() + long(at), bytes.begin() + long(until));
    return until - at;
  };
  for (FilePart& part : layout.parts) {
    if (has_gaps(layout.origin)) contents.gaps.push_back(keep(part.begin));
    at = part.end;
    contents.sources.push_back({std::move(part.name), part.kind, part.dtype, std::move(part.shape),
                                bytes.subspan(size_t(part.begin), size_t(part.end - part.begin)), part.element,
                                std::move(part.record)});
  }
  if (has_gaps(layout.origin)) {
    keep(bytes.size());
    contents.sources.push_back(
        {container::kGapsName, Kind::bytes, DType::U8, {}, between, lossless::Element::bytes, {}});
  }
  return contents;
}

Source checked_source(const TensorView& tensor) {
  const uint64_t needed = bytes_of(tensor.dtype, tensor.shape);
  TERSOR_REQUIRE(needed == tensor.data.size(), Code::bad_call, "tensor \"", tensor.name, "\" has ", tensor.data.size(),
                 " bytes, ", dtype_name(tensor.dtype), shape_text(tensor.shape), " needs ", needed);
  return {tensor.name, Kind::tensor, tensor.dtype, tensor.shape, tensor.data, lossless::element_of(tensor.dtype), {}};
}

Contents contents_of(std::span<const TensorView> tensors, const Metadata& metadata) {
  std::vector<TensorView> sorted(tensors.begin(), tensors.end());
  sort_as_safetensors(sorted);
  Contents contents{Origin::tensors, {}, metadata, {}};
  for (const TensorView& tensor : sorted) {
    TERSOR_REQUIRE(tensor.name != kMetadataKey, Code::bad_call, "no tensor may be called \"", kMetadataKey,
                   "\": .safetensors keeps its metadata there");
    contents.sources.push_back(checked_source(tensor));
  }
  return contents;
}

uint64_t raw_sum(const Contents& contents) {
  uint64_t sum = 0;
  for (const Source& source : contents.sources) sum += source.data.size();
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
  std::vector<uint8_t> between;
  const Contents contents = contents_of(file_layout(input.bytes()), input.bytes(), between);
  if (contents.origin == Origin::file) input.expect_sequential();
  const Summary summary = pack(output, output.blocks(), contents, bases, options, pace);
  pace.ask();
  output.commit();
  return summary;
}

Summary save_tensors(const std::string& out, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options) {
  const Contents contents = contents_of(tensors, metadata);
  Pace pace(options.progress, raw_sum(contents));
  const References bases = References::open(options.bases, options.threads, pace);
  bases.refuse_as_output(out);
  OutputFile output(out, nullptr, options, pace);
  const Summary summary = pack(output, output.blocks(), contents, bases, options, pace);
  pace.ask();
  output.commit();
  return summary;
}

Summary save_tensors(container::Sink& sink, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options) {
  const Contents contents = contents_of(tensors, metadata);
  Pace pace(options.progress, raw_sum(contents));
  return pack(sink, false, contents, References::open(options.bases, options.threads, pace), options, pace);
}

Summary compress_array(container::Sink& sink, const TensorView& array, const Options& options) {
  TERSOR_REQUIRE(array.name.empty(), Code::bad_call, "an array has no name, \"", array.name, "\" was given");
  const Contents contents{Origin::array, {checked_source(array)}, {}, {}};
  Pace pace(options.progress, raw_sum(contents));
  return pack(sink, false, contents, References(), options, pace);
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
