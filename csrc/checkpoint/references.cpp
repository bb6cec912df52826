#include "checkpoint/references.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>

#include "checkpoint/decode.h"
#include "checkpoint/file_layout.h"
#include "checkpoint/files.h"
#include "core/error.h"
#include "core/pool.h"

namespace tersor::checkpoint {
namespace {

using container::Entry;
using container::Kind;
using container::Origin;

// One file. Mapped, so that nothing of it is in memory before it is needed.
struct Part {
  Part(std::string name, InputFile&& input) : path(std::move(name)), file(std::move(input)) {}
  std::string path;
  InputFile file;
  std::vector<Entry> entries;               // as the index says; of another file made here
  std::vector<uint64_t> offsets;            // no .tsr: where each entry's bytes begin
  std::optional<container::Reader> reader;  // .tsr
  References bases;                         // .tsr: what it is coded against
  std::optional<PieceDecoder> decoder;      // .tsr: once its own bases are there
};

void read_tensors(Part& part, int threads, Pace& pace) {
  const auto bytes = part.file.bytes();
  for (auto& tensor : file_layout(bytes).parts) {
    if (tensor.kind != Kind::tensor) continue;
    Entry entry;
    entry.name = std::move(tensor.name), entry.dtype = tensor.dtype, entry.shape = std::move(tensor.shape);
    entry.raw_bytes = tensor.end - tensor.begin;
    part.entries.push_back(std::move(entry));
    part.offsets.push_back(tensor.begin);
  }
  TERSOR_REQUIRE(!part.entries.empty(), Code::bad_data, path_text(part.path),
                 " can be no base: a file of tensors, a .tsr or a folder of them is needed");
  parallel_for(part.entries.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      part.entries[i].hash = hash128(bytes.subspan(size_t(part.offsets[i]), size_t(part.entries[i].raw_bytes)));
      pace.add(0);
    }
  });
}

bool ends_with_tensors(const std::string& name) { return name.ends_with(".safetensors") || name.ends_with(".tsr"); }

// The file, or the files of a folder that hold tensors, in the order of their names.
std::vector<std::string> files_of(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<std::string> files;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error))
    if (ends_with_tensors(at->path().string())) files.push_back(at->path().string());
  TERSOR_REQUIRE(!error, Code::environment, "cannot list ", path_text(path), ": ", error.message());
  TERSOR_REQUIRE(!files.empty(), Code::bad_data, path_text(path),
                 " can be no base: the folder holds no .safetensors and no .tsr");
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

struct References::Content {
  std::string path;
  std::deque<Part> parts;  // their places stay: readers and decoders point to each other
  std::map<std::string, Tensor, std::less<>> tensors;
  Hash128 hash;

  Content(const std::string& from, int threads, Pace& pace) : path(from) {
    std::vector<Entry> all;
    for (const std::string& name : files_of(from)) {
      Part& part = parts.emplace_back(name, InputFile::open(name, pace));
      if (container::looks_like_tsr(part.file.bytes())) {
        naming(name, [&] { part.reader.emplace(part.file.bytes()); });
        part.entries = part.reader->index().entries;
      } else {
        read_tensors(part, threads, pace);
      }
      for (size_t i = 0; i < part.entries.size(); ++i) {
        if (part.entries[i].kind != Kind::tensor) continue;
        const bool fresh = tensors.emplace(part.entries[i].name, Tensor{0, parts.size() - 1, i}).second;
        TERSOR_REQUIRE(fresh, Code::bad_data, path_text(from), " has two tensors \"", part.entries[i].name, "\"");
        all.push_back(part.entries[i]);
      }
    }
    TERSOR_REQUIRE(!all.empty(), Code::bad_data, path_text(from), " can be no base: it holds no tensors");
    hash = container::content_hash(Origin::tensors, all);
  }

  // Whether all that the parts are coded against is among `ready`; then they can be decoded.
  bool resolve(const References& ready) {
    for (Part& part : parts) {
      if (!part.reader || part.decoder) continue;
      for (const Hash128& wanted : part.reader->index().bases)
        if (std::none_of(ready.bases_.begin(), ready.bases_.end(), [&](const auto& b) { return b->hash == wanted; }))
          return false;
      part.bases = ready;
      naming(part.path, [&] { part.decoder.emplace(*part.reader, part.bases); });
    }
    return true;
  }
};

References References::open(std::span<const std::string> paths, int threads, Pace& pace) {
  std::vector<std::shared_ptr<Content>> waiting;
  std::vector<std::shared_ptr<const Content>> in_order;
  for (const std::string& path : paths) {
    waiting.push_back(std::make_shared<Content>(path, threads, pace));
    in_order.push_back(waiting.back());
  }
  // Those that need nothing first, then what needs only them, and so on; a circle is never ready.
  References ready;
  while (!waiting.empty()) {
    const auto still =
        std::stable_partition(waiting.begin(), waiting.end(), [&](const auto& base) { return !base->resolve(ready); });
    if (still == waiting.end()) {
      References all;
      all.bases_ = in_order;
      for (const auto& base : waiting)
        for (const Part& part : base->parts)
          if (part.reader)
            for (const Hash128& wanted : part.reader->index().bases) naming(part.path, [&] { all.with_hash(wanted); });
      fail(Code::bad_data, path_text(waiting[0]->path), " needs a base that needs it");
    }
    ready.bases_.insert(ready.bases_.end(), still, waiting.end());
    waiting.erase(still, waiting.end());
  }
  ready.bases_ = std::move(in_order);
  return ready;
}

void References::refuse_as_output(const std::string& path) const {
  namespace fs = std::filesystem;
  std::error_code ignored;
  for (const auto& base : bases_) {
    for (const Part& part : base->parts)
      TERSOR_REQUIRE(!fs::equivalent(path, part.path, ignored), Code::environment, path_text(path),
                     " is a base: what is coded against it would be lost with it");
    const auto parent = fs::absolute(path, ignored).parent_path();
    TERSOR_REQUIRE(!ends_with_tensors(path) || !fs::equivalent(parent, base->path, ignored), Code::environment,
                   path_text(path), " would change its base, the folder ", path_text(base->path));
  }
}

const Hash128& References::hash(size_t base) const noexcept { return bases_[base]->hash; }

size_t References::with_hash(const Hash128& hash) const {
  std::string given;
  for (size_t i = 0; i < bases_.size(); ++i) {
    if (bases_[i]->hash == hash) return i;
    given += (given.empty() ? "" : ", ") + path_text(bases_[i]->path) + " with " + bases_[i]->hash.hex();
  }
  fail(Code::bad_data, "coded against a base whose content hash is ", hash.hex(),
       "; given: ", given.empty() ? "none" : given);
}

std::optional<References::Tensor> References::find(size_t base, const Entry& entry) const {
  if (entry.kind != Kind::tensor) return std::nullopt;
  const auto found = bases_[base]->tensors.find(entry.name);
  if (found == bases_[base]->tensors.end()) return std::nullopt;
  const Entry& there = bases_[base]->parts[found->second.part].entries[found->second.entry];
  if (there.dtype != entry.dtype || there.raw_bytes != entry.raw_bytes) return std::nullopt;
  return Tensor{base, found->second.part, found->second.entry};
}

std::span<const uint8_t> References::chunk(const Tensor& tensor, size_t chunk, ScratchFrame& frame) const {
  const Part& part = bases_[tensor.base]->parts[tensor.part];
  const Entry& entry = part.entries[tensor.entry];
  const size_t bytes = container::chunk_raw_bytes(entry.raw_bytes, chunk);
  if (!part.reader)
    return part.file.bytes().subspan(size_t(part.offsets[tensor.entry] + chunk * container::kChunkRawBytes), bytes);
  const auto raw = frame.bytes(bytes);
  naming(part.path, [&] { part.decoder->piece(tensor.entry, chunk, raw); });
  return raw;
}

}  // namespace tersor::checkpoint
