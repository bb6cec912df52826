// Integers through interleaved rANS, each with the table that its index names: the latents of learned codecs.
// Page: docs/formats/indexed.md.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "entropy/table_set.h"

namespace tersor::entropy::indexed {

struct Escape {  // a symbol that its table does not list
  size_t symbol;
  uint32_t distance;  // from the table's first symbol, modulo 2^32
  uint32_t count;     // the table's symbols
  bool direct;        // none of those has to escape
};

// Where the indexes of symbols lie: integers of one width. Signed ones of 32 bits; others are unsigned.
struct Indexes {
  const void* data;
  size_t count;
  int bytes;  // 1, 2 or 4 each
};

// means: none, or one for each symbol, with the set's fraction bits: a symbol is coded as its distance from the mean's
// whole part, by the table of the mean's fraction. Every 32-bit symbol can be coded; its distance wraps.
using Means = std::span<const int32_t>;

// The whole stream at once. Raises bad_call: counts that differ, an index that names no table.
std::vector<uint8_t> encode(std::span<const int32_t> symbols, Indexes indexes, const TableSet& tables, Means means,
                            int threads);

// Symbols in the stream. Raises bad_data.
uint64_t decoded_size(std::span<const uint8_t> data);

// Raises bad_data, and bad_call as encode does.
void decode(std::span<const uint8_t> data, Indexes indexes, const TableSet& tables, Means means, std::span<int32_t> out,
            int threads);

// Gathers symbols call by call. They are coded in finish, last first, as rANS will have it; until then each takes four
// bytes. Tables are shared, so that nobody can pull them away.
class Encoder {
 public:
  Encoder() = default;
  Encoder(Encoder&&) = default;
  Encoder& operator=(Encoder&&) = default;

  void write(std::span<const int32_t> symbols, Indexes indexes, std::shared_ptr<const TableSet> tables, Means means);
  // Symbols that have a table each, as Decoder::read_cdfs takes them; one that has all slots costs nothing. Raises
  // bad_call: a symbol that its table does not list, or that has no slot.
  void write_cdfs(std::span<const uint16_t> cdfs, size_t length, std::span<const int16_t> symbols);
  size_t symbols() const noexcept { return symbols_; }
  std::vector<uint8_t> finish(int threads);  // and is empty again

 private:
  struct Piece {  // ids from `begin` on that belong to one list of entries: a set's, or intervals of their own
    std::shared_ptr<const TableSet> tables;
    std::shared_ptr<const std::vector<SymbolEntry>> own;
    size_t begin;
  };
  static constexpr size_t kBlock = 16384;
  uint32_t* id_at(size_t symbol) const noexcept { return &blocks_[symbol / kBlock][symbol % kBlock]; }
  void append_blocks(size_t symbols);
  std::vector<std::unique_ptr<uint32_t[]>> blocks_;  // of kBlock ids: none is ever copied
  size_t symbols_ = 0;
  std::vector<Piece> pieces_;
  std::vector<Escape> escapes_;
};

// Reads what an Encoder wrote, call by call, in pieces of any size. The data must outlive it.
class Decoder {
 public:
  explicit Decoder(std::span<const uint8_t> data);  // raises bad_data
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  // Raises bad_call beyond the last symbol, bad_data; a decoder that has raised bad_data raises it again.
  void read(Indexes indexes, const TableSet& tables, Means means, std::span<int32_t> out);
  // Symbols that have a table each: cumulative frequencies [symbols, length], rising from 0, the last one 2^16 whatever
  // it holds. Raises bad_call, bad_data.
  void read_cdfs(std::span<const uint16_t> cdfs, size_t length, std::span<int16_t> out);

  uint64_t symbols() const noexcept;   // in all
  uint64_t position() const noexcept;  // that are read
  uint64_t chunk() const noexcept;     // symbols a chunk: seek goes to multiples
  void seek(uint64_t symbol);          // raises bad_call where no chunk begins

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tersor::entropy::indexed
