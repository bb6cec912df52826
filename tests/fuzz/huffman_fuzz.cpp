// libFuzzer target: whatever bytes come, decoding a huffman stream ends in an Error or in symbols, alike on every
// level. The last byte chooses whether the bytes are read as a stream, or coded, wanted back, and damaged in a few
// places: so it gets behind the first lengths.
#include <algorithm>
#include <memory>
#include <vector>

#include "entropy/huffman.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostSymbols = uint64_t(4)
                                  << 20;  // a few honest bytes may stand for many symbols: that is no finding

void decode_alike(std::span<const uint8_t> data) {
  uint64_t symbols = 0;
  try {
    symbols = huffman::decoded_size(data);
  } catch (const Error&) {
    return;
  }
  if (symbols <= kMostSymbols)
    fuzz::decode_alike(size_t(symbols), [&](std::span<uint8_t> out) { huffman::decode(data, out, 1); });
}

void code_and_want_back(std::span<const uint8_t> symbols) {
  const auto coded = huffman::encode(symbols, 1);
  std::vector<uint8_t> back(symbols.size());
  huffman::decode(coded, back, 1);
  fuzz::want_equal(back, symbols);
  fuzz::damaged(coded, symbols.empty() ? 0 : symbols[0] * 2654435761u, decode_alike);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const fuzz::Copy copy(data, size - 1);
  const auto bytes = copy.bytes();
  if (data[size - 1] % 2)
    code_and_want_back(bytes);
  else
    decode_alike(bytes);
  return 0;
}
