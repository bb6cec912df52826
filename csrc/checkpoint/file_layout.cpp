#include "checkpoint/file_layout.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "checkpoint/safetensors.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

using container::Kind;
using container::Origin;

constexpr uint64_t kLeastBytesPart = uint64_t(1) << 16;  // less is kept with all else that lies between tensors

FileLayout layout_of(Safetensors&& file) {
  FileLayout layout;
  layout.origin = Origin::safetensors;
  layout.metadata = std::move(file.metadata);
  FilePart header;
  header.name = "header", header.kind = Kind::bytes, header.end = file.header_bytes;
  layout.parts.push_back(std::move(header));
  for (auto& tensor : file.tensors) {
    FilePart& part = layout.parts.emplace_back();
    part.name = std::move(tensor.name);
    part.begin = file.header_bytes + tensor.begin, part.end = file.header_bytes + tensor.end;
    part.shape = std::move(tensor.shape);
    set_dtype(part, tensor.dtype);
  }
  return layout;
}

bool size_fits(const FilePart& part) {
  try {
    return part.kind == Kind::bytes || bytes_of(part.dtype, part.shape) == part.end - part.begin;
  } catch (const Error&) {  // too many dims, or their product overflows
    return false;
  }
}

// The rules of a .tsr's index that a file's own format may not have.
bool parts_fit(const std::vector<FilePart>& parts) {
  std::set<std::pair<Kind, std::string_view>> names = {{Kind::bytes, container::kGapsName}};
  for (const FilePart& part : parts)
    if (part.name.size() > container::kMostNameBytes || !container::is_utf8(part.name) || !size_fits(part) ||
        !names.emplace(part.kind, part.name).second)
      return false;
  return true;
}

// Sorts the parts of a file that has bytes between them, and gives the large ones among these a part of their own.
// False where parts overlap or names are not ones that a .tsr can hold.
bool arrange(FileLayout& layout, uint64_t file_bytes) {
  auto& parts = layout.parts;
  std::stable_sort(parts.begin(), parts.end(), [](const FilePart& a, const FilePart& b) {
    return std::tuple(a.begin, a.end) < std::tuple(b.begin, b.end);
  });
  std::vector<FilePart> all;
  uint64_t at = 0, between = 0;
  const auto fill = [&](uint64_t until) {
    const uint64_t gap = until - at;
    if (gap < kLeastBytesPart && between + gap <= container::kMostGapBytes) return void(between += gap);
    FilePart& bytes = all.emplace_back();
    bytes.name = "bytes from " + std::to_string(at), bytes.kind = Kind::bytes;
    bytes.begin = at, bytes.end = until;
  };
  for (FilePart& part : parts) {
    if (part.begin < at || part.end > file_bytes || part.end < part.begin) return false;
    if (part.kind == Kind::bytes) {
      part.dtype = DType::U8, part.shape.clear();
      if (part.name == container::kGapsName) part.name += ", the array";
    }
    fill(part.begin);
    at = part.end;
    all.push_back(std::move(part));
  }
  fill(file_bytes);
  parts = std::move(all);
  return parts.size() < container::kMostEntries && parts_fit(parts);
}

}  // namespace

void set_dtype(FilePart& part, DType dtype) noexcept {
  part.dtype = dtype;
  part.element = lossless::element_of(dtype);
}

FileLayout file_layout(std::span<const uint8_t> bytes) {
  if (auto file = parse_safetensors(bytes, bytes.size())) return layout_of(std::move(*file));
  for (const auto& find : {npy_layout, gguf_layout, torch_layout, npz_layout}) {
    auto layout = find(bytes);
    if (layout && arrange(*layout, bytes.size())) return std::move(*layout);
  }
  FileLayout layout;
  FilePart& whole = layout.parts.emplace_back();
  whole.kind = Kind::bytes, whole.end = bytes.size();
  return layout;
}

}  // namespace tersor::checkpoint
