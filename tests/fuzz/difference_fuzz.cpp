// libFuzzer target: whatever bytes come, decoding a difference ends in an Error or in all its raw bytes, alike on every
// level. The first half are the base; the last byte chooses whether the second half is coded or to be coded.
#include <algorithm>
#include <vector>

#include "fuzz/alike.h"
#include "lossless/difference.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

void decode_alike(std::span<const uint8_t> coded, std::span<const uint8_t> base) {
  fuzz::decode_alike(base.size(), [&](std::span<uint8_t> raw) { decode_difference(coded, base, raw); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const uint8_t choice = data[--size];
  const size_t half = std::min(size / 2, kChunkBytes);
  const std::vector<uint8_t> base(data, data + half), rest(data + half, data + 2 * half);
  if (choice % 2 == 0) {
    decode_alike(rest, base);
    return 0;
  }
  std::vector<uint8_t> coded(difference_bound(half)), back(half);
  coded.resize(
      encode_difference(Element(choice / 2 % 4), size_t(1) << choice / 8 % 4, rest, base, 1 + choice / 32, coded));
  decode_difference(coded, base, back);
  fuzz::want_equal(back, rest);
  fuzz::damaged(coded, choice * 2654435761u, [&](std::span<const uint8_t> bad) { decode_alike(bad, base); });
  return 0;
}
