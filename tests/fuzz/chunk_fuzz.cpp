// libFuzzer target: whatever bytes come, decoding a chunk ends in an Error or in all its raw bytes, alike on every
// level. The last four bytes choose its size, or that the bytes are coded and wanted back, then damaged in a few
// places: so it gets behind the first lengths.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "fuzz/alike.h"
#include "lossless/chunk.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

void decode_alike(std::span<const uint8_t> coded, size_t size) {
  fuzz::decode_alike(size, [&](std::span<uint8_t> raw) { decode_chunk(coded, raw); });
}

void code_and_want_back(std::span<const uint8_t> raw, Element element, int level, uint32_t places) {
  std::vector<uint8_t> coded(chunk_bound(raw.size())), back(raw.size());
  coded.resize(encode_chunk(element, raw, level, coded));
  decode_chunk(coded, back);
  fuzz::want_equal(back, raw);
  fuzz::damaged(coded, places, [&](std::span<const uint8_t> bad) { decode_alike(bad, raw.size()); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 5) return 0;
  const uint32_t choice = load_le<uint32_t>(data + size - 4);
  const fuzz::Copy copy(data, std::min(size - 4, kChunkBytes));
  if (choice >> 31)
    code_and_want_back(copy.bytes(), Element(choice % kElements), 1 + int(choice / 16 % 9), choice);
  else
    decode_alike(copy.bytes(), choice % (choice >> 30 ? kChunkBytes + 1 : 20000));
  return 0;
}
