// What torch.save writes since 1.6: a .zip with one root folder, a pickle "data.pkl", and a member "data/<key>" for
// every storage. Source: torch.serialization.
#include <algorithm>
#include <set>

#include "checkpoint/file_layout.h"
#include "checkpoint/pickle.h"
#include "checkpoint/zip.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

constexpr std::string_view kPickle = "/data.pkl";

using Names = std::set<std::string, std::less<>>;

// The storage as the tensor that fills it, if that has a name to itself, or as a row of its elements.
void describe(FilePart& part, const PickledStorage& storage, Names& taken) {
  const uint64_t bytes = part.end - part.begin;
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
  if (storage.name && product == elements && container::is_utf8(*storage.name) && taken.insert(*storage.name).second)
    part.name = *storage.name, part.shape = storage.shape;
  else
    part.shape = {elements};
}

}  // namespace

std::optional<FileLayout> torch_layout(std::span<const uint8_t> bytes) {
  const auto members = stored_members(bytes);
  if (!members) return std::nullopt;
  const auto content = [&](const ZipMember& member) {
    return bytes.subspan(size_t(member.begin), size_t(member.end - member.begin));
  };
  const ZipMember* pickle = nullptr;
  for (const ZipMember& member : *members)
    if (member.name.ends_with(kPickle) && member.name.find('/') == member.name.size() - kPickle.size()) {
      if (pickle) return std::nullopt;
      pickle = &member;
    }
  if (!pickle) return std::nullopt;
  const auto storages = pickled_storages(content(*pickle));
  const std::string root = pickle->name.substr(0, pickle->name.size() - kPickle.size() + 1);
  const std::string folder = root + "data/", order = root + "byteorder";
  FileLayout layout;
  layout.origin = container::Origin::torch;
  bool swapped = false;
  Names taken;
  for (const ZipMember& member : *members) {
    constexpr std::string_view kBig = "big";
    if (member.name == order) swapped = std::ranges::equal(content(member), kBig);
    if (!member.name.starts_with(folder)) continue;
    FilePart& part = layout.parts.emplace_back();
    part.name = member.name.substr(root.size());
    part.begin = member.begin, part.end = member.end;
    taken.insert(part.name);
  }
  for (FilePart& part : layout.parts) {
    const auto found = storages.find(std::string_view(part.name).substr(folder.size() - root.size()));
    describe(part, found == storages.end() ? PickledStorage() : found->second, taken);
    if (swapped)  // numbers in the other order are bytes to a reader
      part.kind = container::Kind::bytes, part.element = lossless::Element::bytes;
  }
  if (layout.parts.empty()) return std::nullopt;
  return layout;
}

}  // namespace tersor::checkpoint
