// libFuzzer target: whatever bytes come, decoding a rans8 stream ends in an Error or in symbols, alike on every level.
// The last byte chooses the table that is given along, or that the bytes are coded and wanted back, then damaged in a
// few places: so it gets behind the first lengths.
#include <algorithm>
#include <memory>
#include <vector>

#include "entropy/histogram.h"
#include "entropy/rans8.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostSymbols = uint64_t(4)
                                  << 20;  // a few honest bytes may stand for many symbols: that is no finding

void decode_alike(std::span<const uint8_t> data, const Table* table) {
  uint64_t symbols = 0;
  try {
    symbols = rans8::decoded_size(data);
  } catch (const Error&) {
    return;
  }
  if (symbols <= kMostSymbols)
    fuzz::decode_alike(size_t(symbols), [&](std::span<uint8_t> out) { rans8::decode(data, table, out, 1); });
}

void code_and_want_back(std::span<const uint8_t> symbols, rans8::Mode mode, bool given) {
  ByteCounts counts{};
  count_bytes(symbols, counts);
  ++counts[0];
  const Table table = Table::from_counts(counts);
  const Table* const along = given ? &table : nullptr;
  const auto coded = rans8::encode(symbols, along, mode, 1);
  std::vector<uint8_t> back(symbols.size());
  rans8::decode(coded, along, back, 1);
  fuzz::want_equal(back, symbols);
  fuzz::damaged(coded, symbols.empty() ? 0 : symbols[0] * 2654435761u,
                [&](std::span<const uint8_t> bad) { decode_alike(bad, along); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const fuzz::Copy copy(data, size - 1);
  const auto bytes = copy.bytes();
  const int choice = data[size - 1] % 8;
  if (choice >= 6) {
    code_and_want_back(bytes, choice == 6 ? rans8::Mode::alias : rans8::Mode::contiguous, size % 2);
  } else if (choice >= 4) {
    std::vector<uint32_t> frequencies(choice == 4 ? 256 : 20, choice == 4 ? 16 : 0);
    if (choice == 5) frequencies[3] = 3000, frequencies[19] = 1096;
    const Table table = Table::from_frequencies(frequencies, 12);
    decode_alike(bytes, &table);
  } else {
    decode_alike(bytes, nullptr);
  }
  return 0;
}
