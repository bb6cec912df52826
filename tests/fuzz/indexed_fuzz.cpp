// libFuzzer target: whatever bytes come, reading a set of tables and decoding an indexed stream end in an Error or in
// symbols, alike on every level. The last byte chooses: the bytes are a set, a stream under a set of ours, or symbols
// that are coded, wanted back, and damaged in a few places. Below it stands what indexes and means are made from.
#include <cstring>
#include <memory>
#include <vector>

#include "entropy/distribution.h"
#include "entropy/indexed.h"
#include "entropy/table_set.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr size_t kMostSymbols = 20000;  // a few honest bytes may stand for many symbols: that is no finding

struct Context {  // of a stream, other than its bytes
  const TableSet& tables;
  std::vector<int32_t> indexes, means;

  Context(const TableSet& set, size_t symbols, uint8_t salt) : tables(set), indexes(symbols), means(symbols) {
    for (size_t i = 0; i < symbols; ++i) {
      indexes[i] = int32_t((i * 7 + salt) % set.groups());
      means[i] = salt & 1 ? int32_t(uint32_t(i * 2654435761u)) : int32_t(i % 9);
    }
  }
  indexed::Indexes at() const { return {indexes.data(), indexes.size(), 4}; }
};

void decode_alike(std::span<const uint8_t> data, const TableSet& tables, uint8_t salt) {
  uint64_t symbols = 0;
  try {
    symbols = indexed::decoded_size(data);
  } catch (const Error&) {
    return;
  }
  if (symbols > kMostSymbols) return;
  const Context context(tables, size_t(symbols), salt);
  fuzz::decode_alike(size_t(4 * symbols), [&](std::span<uint8_t> out) {
    std::vector<int32_t> to(static_cast<size_t>(symbols));
    indexed::decode(data, context.at(), tables, context.means, to, 1);
    if (!to.empty()) std::memcpy(out.data(), to.data(), out.size());
  });
}

void code_and_want_back(std::span<const uint8_t> bytes, const TableSet& tables, uint8_t salt) {
  std::vector<int32_t> symbols(std::min(kMostSymbols, bytes.size()));
  const Context context(tables, symbols.size(), salt);
  for (size_t i = 0; i < symbols.size(); ++i)
    symbols[i] = bytes[i] < 250 ? int8_t(bytes[i]) + (context.means[i] >> tables.fraction_bits()) / 2
                                : int32_t(i * 2654435761u * bytes[i]);
  const auto coded = indexed::encode(symbols, context.at(), tables, context.means, 1);
  std::vector<int32_t> back(symbols.size());
  indexed::decode(coded, context.at(), tables, context.means, back, 1);
  if (back != symbols) std::abort();
  fuzz::damaged(coded, salt * 2654435761u, [&](auto data) { decode_alike(data, tables, salt); });
}

// What is read is written as it was, and tables that are read can code.
void read_set(std::span<const uint8_t> data, uint8_t salt) {
  try {
    const TableSet set = TableSet::parse(data);
    std::vector<uint8_t> again;
    set.serialize(again);
    const TableSet twice = TableSet::parse(again);
    if (twice.entries().size() != set.entries().size()) std::abort();
    code_and_want_back(data, set, salt);
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TableSet tables = make_tables(Family::gaussian, std::vector<uint32_t>{9000, 65536, 1 << 20}, {}, 16, 1);
  if (size < 2) return 0;
  const fuzz::Copy copy(data, size - 2);
  const auto bytes = copy.bytes();
  const uint8_t salt = data[size - 2];
  switch (data[size - 1] % 3) {
    case 0: read_set(bytes, salt); break;
    case 1: decode_alike(bytes, tables, salt); break;
    default: code_and_want_back(bytes, tables, salt);
  }
  return 0;
}
