// A file cut into the tensors that it holds and the bytes between them. Page: docs/formats/tsr.md.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "container/index.h"
#include "lossless/chunk.h"

namespace tersor::checkpoint {

// A range of a file's bytes. Kind tensor where a reader can hand it on; else bytes that are numbers all the same
// (Fortran order, dtypes that safetensors has not), whose layout helps to code them.
struct FilePart {
  std::string name;
  uint64_t begin = 0, end = 0;
  container::Kind kind = container::Kind::tensor;
  DType dtype = DType::U8;
  Shape shape;
  lossless::Element element = lossless::Element::bytes;
  std::vector<lossless::Field> record;  // where the bytes are records; else elements
};

struct FileLayout {
  container::Origin origin = container::Origin::file;
  std::vector<FilePart> parts;  // in the order of their bytes, which do not overlap
  container::Metadata metadata;
};

// By content, never by name. What is not in every respect a valid file of a known kind is one part of plain bytes.
// Raises nothing but what a lack of memory does; allocates at most some 50 times what describes the tensors.
FileLayout file_layout(std::span<const uint8_t> bytes);

// Each of these finds the tensors of its kind of file, or nothing where the bytes are none.
std::optional<FileLayout> npy_layout(std::span<const uint8_t> bytes);
std::optional<FileLayout> gguf_layout(std::span<const uint8_t> bytes);
std::optional<FileLayout> npz_layout(std::span<const uint8_t> bytes);
std::optional<FileLayout> torch_layout(std::span<const uint8_t> bytes);

// The dtype, and the element that it is coded as.
void set_dtype(FilePart& part, DType dtype) noexcept;

}  // namespace tersor::checkpoint
