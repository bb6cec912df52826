// What bytes of which nothing is said may be: floats or integers of 2, 4 or 8 bytes, from whatever byte on. Files whose
// kind is not known hold tensors all the same.
#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "lossless/chunk.h"

namespace tersor::lossless {

struct WordChoice {
  Field word;    // of each element
  size_t begin;  // the byte at which the first one begins, less than word.bytes
};

// Codes a sample as a chunk of its own.
using EncodeSample = size_t(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded);

// The words that make a sample of the bytes smallest, or nothing where bytes are as good. Looks at some of them only.
std::optional<WordChoice> choose_words(std::span<const uint8_t> raw, EncodeSample* encode);

}  // namespace tersor::lossless
