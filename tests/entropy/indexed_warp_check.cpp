// The GPU's body of the indexed stream on the host: wide chunks, sound and cut short, against the scalar kernel.
#include "entropy/indexed_warp.cuh"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/warp.h"
#include "entropy/distribution.h"

using namespace tersor;
using namespace tersor::entropy;

TEST_CASE("indexed warp: symbols, states and words are those of the scalar kernel") {
  const TableSet set = make_tables(Family::laplace, std::vector<uint32_t>{9000, 65536, 1 << 20, 9 << 20}, {}, 16, 1);
  std::mt19937 random(1);
  for (const size_t rows : {0u, 1u, 2u, 31u}) {
    const size_t n = 32 * rows;
    std::vector<uint16_t> table_of(n);
    std::vector<uint32_t> ids(n), want(n);
    for (size_t i = 0; i < n; ++i) {
      table_of[i] = uint16_t(random() % set.tables());
      const TableRow& row = set.rows()[table_of[i]];
      want[i] = random() % 20 ? row.count / 2 + random() % 2 : random() % (row.count + 1);
      ids[i] = row.entry + want[i];
    }
    std::vector<uint32_t> room(n / 2 + 64);
    uint64_t coded[32];
    std::fill_n(coded, 32, kStateFloor);
    const uint32_t* top =
        encode_indexed_rows_scalar(set.entries().data(), ids.data(), rows, 32, coded, room.data() + room.size());
    const auto many = size_t(room.data() + room.size() - top);
    for (const size_t left : {many, many - std::min<size_t>(many, 1), size_t(0)}) {
      const std::vector<uint32_t> words(top, top + left);  // a heap block of its own: a sanitizer sees what lies beyond
      std::vector<uint32_t> symbols(n);
      uint64_t states[32];
      std::copy_n(coded, 32, states);
      const uint32_t* word = words.data();
      const bool sound = decode_indexed_warp(cuda::HostWarp{}, set.places().data(), set.buckets().data(),
                                             set.rows().data(), set.entries().data(), table_of.data(), rows, states,
                                             &word, words.data() + left, symbols.data());
      CHECK(sound == (left == many));
      if (!sound) continue;
      CHECK(symbols == want && word == words.data() + left);
      CHECK(std::all_of(states, states + 32, [](uint64_t state) { return state == kStateFloor; }));
      // and the scalar kernel's, to which low is added
      auto tile = std::make_unique<IndexedTile>();
      LaneStates lanes;
      std::copy_n(coded, 32, lanes.state);
      lanes.words = reinterpret_cast<const uint8_t*>(top), lanes.end = lanes.words + 4 * many;
      std::vector<int32_t> out(n);
      for (size_t i = 0; i < n; ++i) tile->places[i] = set.places()[table_of[i]], tile->tables[i] = table_of[i];
      tile->escapes = 0;
      const IndexedTables tables{set.buckets().data(), set.entries().data(), set.rows().data()};
      CHECK(decode_indexed_some(tables, *tile, 0, n, 0, 32, lanes, out.data()));
      for (size_t i = 0; i < n; ++i) CHECK(uint32_t(out[i]) == symbols[i] + uint32_t(set.rows()[table_of[i]].low));
    }
  }
}
