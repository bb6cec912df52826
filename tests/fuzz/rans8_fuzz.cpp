// libFuzzer target: whatever bytes come, decoding a rans8 stream ends in an Error or in symbols, alike on every level.
// The last byte chooses the table that is given along, or that the bytes are coded and wanted back, then damaged in a
// few places: so it gets behind the first lengths.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/isa.h"
#include "entropy/histogram.h"
#include "entropy/rans8.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostSymbols = uint64_t(4)
                                  << 20;  // a few honest bytes may stand for many symbols: that is no finding

bool tried(std::span<const uint8_t> data, const Table* table, std::vector<uint8_t>& out) {
  try {
    rans8::decode(data, table, out, 1);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void decode_alike(std::span<const uint8_t> data, const Table* table) {
  uint64_t symbols = 0;
  try {
    symbols = rans8::decoded_size(data);
  } catch (const Error&) {
    return;
  }
  if (symbols > kMostSymbols) return;
  std::vector<uint8_t> want(static_cast<size_t>(symbols)), got(want.size());
  hold_isa(Isa::scalar);
  const bool decoded = tried(data, table, want);
  hold_isa(machine_isa());
  if (tried(data, table, got) != decoded || (decoded && got != want)) std::abort();
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
  if (!std::equal(back.begin(), back.end(), symbols.begin())) std::abort();
  auto bad = coded;
  uint32_t places = symbols.empty() ? 0 : symbols[0] * 2654435761u;
  for (int flips = 0; flips < 4; ++flips, places = places * 1664525 + 1013904223) {
    bad[places / 8 % (flips % 2 ? bad.size() : std::min<size_t>(bad.size(), 100))] ^= uint8_t(1 << places % 8);
    decode_alike(bad, along);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // A copy of its own size: what is read behind the last byte is behind the allocation.
  const auto copy = std::make_unique<uint8_t[]>(size - 1);
  std::copy(data, data + size - 1, copy.get());
  const std::span<const uint8_t> bytes(copy.get(), size - 1);
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
