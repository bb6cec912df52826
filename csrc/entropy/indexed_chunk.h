// One chunk of the indexed stream: its states, words and escapes. Page: docs/formats/indexed.md.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "entropy/bit_io.h"
#include "entropy/indexed.h"
#include "entropy/indexed_kernels.h"
#include "entropy/table_set.h"

namespace tersor::entropy::indexed {

inline constexpr const char* kWhat = "indexed stream";

// The tables of symbols [at, at + count), the means' fractions counted in. Raises bad_call for an index that names
// none.
void tables_of(const Indexes& indexes, const TableSet& set, Means means, size_t at, size_t count, uint16_t* out);

void put_escape(BitWriter& bits, const Escape& escape);

// Entries of symbols [at, at + count), whose tables are given; appends those that escape, numbered from `first` on.
void resolve(std::span<const int32_t> symbols, const uint16_t* tables, const TableSet& set, Means means, size_t first,
             uint32_t* ids, std::vector<Escape>& escapes);

struct Run {  // symbols whose ids belong to one list of entries
  const SymbolEntry* entries;
  const uint32_t* ids;
  size_t count;
};
// A chunk without its escapes: states and words, appended to out.
void encode_chunk(std::span<const Run> runs, size_t symbols, size_t lanes, std::vector<uint8_t>& out);

class ChunkReader {
 public:
  // has_escapes: their bits stand at the end, their length at the front. Raises bad_data.
  ChunkReader(std::span<const uint8_t> data, size_t lanes, bool has_escapes);

  // Symbols [at, at + out.size()) of the call, from `position` of the chunk on. Raises bad_call for an index before it
  // has decoded what lies in the same tile; bad_data.
  void read(const Indexes& indexes, const TableSet& set, Means means, size_t at, size_t position,
            std::span<int32_t> out);
  void read_cdfs(std::span<const uint16_t> cdfs, size_t length, size_t position, std::span<int16_t> out);

  // After the last symbol: raises bad_data unless what the encoder began with is what is left.
  void finish() const;

 private:
  size_t lanes_;
  LaneStates states_;
  std::optional<BitReader> escapes_;
  size_t escape_bytes_ = 0;
};

}  // namespace tersor::entropy::indexed
