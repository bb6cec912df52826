// What torch.save writes since 1.6: a .zip with one root folder, a pickle "data.pkl", and a member "data/<key>" for
// every storage. Source: torch.serialization.
#include "checkpoint/file_layout.h"
#include "checkpoint/pickle.h"
#include "checkpoint/zip.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

constexpr std::string_view kPickle = "/data.pkl";

// The storage as the tensor that fills it, or as a row of its elements.
void describe(FilePart& part, const PickledStorage& storage, uint64_t bytes) {
  if (!storage.dtype || bytes % dtype_bytes(*storage.dtype)) {
    part.kind = container::Kind::bytes;
    if (storage.complex128) part.element = lossless::Element::fp64;
    return;
  }
  set_dtype(part, *storage.dtype);
  const uint64_t elements = bytes / dtype_bytes(*storage.dtype);
  uint64_t product = 1;
  for (const uint64_t dim : storage.shape)
    if (__builtin_mul_overflow(product, dim, &product)) product = UINT64_MAX;
  if (!storage.name.empty() && product == elements)
    part.name = storage.name, part.shape = storage.shape;
  else
    part.shape = {elements};
}

}  // namespace

std::optional<FileLayout> torch_layout(std::span<const uint8_t> bytes) {
  const auto members = stored_members(bytes);
  if (!members) return std::nullopt;
  std::string root;
  std::map<std::string, PickledStorage> storages;
  bool swapped = false;
  for (const ZipMember& member : *members)
    if (member.name.ends_with(kPickle) && member.name.find('/') == member.name.size() - kPickle.size()) {
      root = member.name.substr(0, member.name.size() - kPickle.size() + 1);
      storages = pickled_storages(bytes.subspan(size_t(member.begin), size_t(member.end - member.begin)));
    }
  if (root.empty()) return std::nullopt;
  FileLayout layout;
  layout.origin = container::Origin::torch;
  const std::string folder = root + "data/";
  for (const ZipMember& member : *members) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + member.begin,
                                size_t(member.end - member.begin));
    if (member.name == root + "byteorder" && text == "big") swapped = true;
    if (!member.name.starts_with(folder)) continue;
    FilePart& part = layout.parts.emplace_back();
    part.name = member.name.substr(root.size());
    part.begin = member.begin, part.end = member.end;
    const auto found = storages.find(member.name.substr(folder.size()));
    describe(part, found == storages.end() ? PickledStorage() : found->second, member.end - member.begin);
  }
  if (swapped)  // numbers in the other order are bytes to a reader
    for (FilePart& part : layout.parts) part.kind = container::Kind::bytes, part.element = lossless::Element::bytes;
  return layout;
}

}  // namespace tersor::checkpoint
