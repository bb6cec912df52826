#include "lossless/chunk.h"

#include <cstring>

#include "core/bits.h"

namespace tersor::lossless {

Element element_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::BF16: return Element::bf16;
    case DType::F16: return Element::fp16;
    case DType::F32: return Element::fp32;
    default: return Element::bytes;
  }
}

size_t chunk_bound(size_t raw_bytes) noexcept { return raw_bytes + 64; }

size_t encode_chunk(Element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded) {
  TERSOR_REQUIRE(level >= kLeastLevel && level <= kMostLevel, Code::bad_call, "level is in 1..9, not ", level);
  coded[0] = 0;
  std::memcpy(coded.data() + 1, raw.data(), raw.size());
  return raw.size() + 1;
}

void decode_chunk(std::span<const uint8_t> coded, std::span<uint8_t> raw) {
  TERSOR_REQUIRE(coded.size() == raw.size() + 1 && coded[0] == 0, Code::bad_data, "chunk of ", coded.size(), " bytes");
  std::memcpy(raw.data(), coded.data() + 1, raw.size());
}

}  // namespace tersor::lossless
