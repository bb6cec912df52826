// libFuzzer target: whatever bytes come, decoding a huffman stream ends in an Error or in symbols, alike on every
// level. The last byte chooses whether the bytes are read as a stream, or coded, wanted back, and damaged in a few
// places: so it gets behind the first lengths.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/isa.h"
#include "entropy/huffman.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostSymbols = uint64_t(4)
                                  << 20;  // a few honest bytes may stand for many symbols: that is no finding

bool tried(std::span<const uint8_t> data, std::vector<uint8_t>& out) {
  try {
    huffman::decode(data, out, 1);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void decode_alike(std::span<const uint8_t> data) {
  uint64_t symbols = 0;
  try {
    symbols = huffman::decoded_size(data);
  } catch (const Error&) {
    return;
  }
  if (symbols > kMostSymbols) return;
  std::vector<uint8_t> want(static_cast<size_t>(symbols)), got(want.size());
  hold_isa(Isa::scalar);
  const bool decoded = tried(data, want);
  hold_isa(machine_isa());
  if (tried(data, got) != decoded || (decoded && got != want)) std::abort();
}

void code_and_want_back(std::span<const uint8_t> symbols) {
  const auto coded = huffman::encode(symbols, 1);
  std::vector<uint8_t> back(symbols.size());
  huffman::decode(coded, back, 1);
  if (!std::equal(back.begin(), back.end(), symbols.begin())) std::abort();
  auto bad = coded;
  uint32_t places = symbols.empty() ? 0 : symbols[0] * 2654435761u;
  for (int flips = 0; flips < 4; ++flips, places = places * 1664525 + 1013904223) {
    bad[places / 8 % (flips % 2 ? bad.size() : std::min<size_t>(bad.size(), 100))] ^= uint8_t(1 << places % 8);
    decode_alike(bad);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // A copy of its own size: what is read behind the last byte is behind the allocation.
  const auto copy = std::make_unique<uint8_t[]>(size - 1);
  std::copy(data, data + size - 1, copy.get());
  const std::span<const uint8_t> bytes(copy.get(), size - 1);
  if (data[size - 1] % 2)
    code_and_want_back(bytes);
  else
    decode_alike(bytes);
  return 0;
}
