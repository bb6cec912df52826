// libFuzzer target: whatever bytes come, decoding a difference ends in an Error or in all its raw bytes, alike on every
// level. The first half are the base; the last byte chooses whether the second half is coded or to be coded.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "core/isa.h"
#include "lossless/difference.h"

using namespace tersor;
using namespace tersor::lossless;

namespace {

bool tried(std::span<const uint8_t> coded, std::span<const uint8_t> base, std::vector<uint8_t>& raw) {
  try {
    decode_difference(coded, base, raw);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void decode_alike(std::span<const uint8_t> coded, std::span<const uint8_t> base) {
  std::vector<uint8_t> want(base.size()), got(base.size());
  hold_isa(Isa::scalar);
  const bool decoded = tried(coded, base, want);
  hold_isa(machine_isa());
  if (tried(coded, base, got) != decoded || (decoded && got != want)) std::abort();
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
  if (back != rest) std::abort();
  coded[choice % coded.size()] ^= uint8_t(1 << choice % 8);
  decode_alike(coded, base);
  return 0;
}
