// Blocks: symbols of one or several tables, coded by interleaved rANS states. Page: docs/formats/rans8.md, "block".
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bits.h"
#include "entropy/rans_kernels.h"

namespace tersor::entropy {

// A run of symbols that share a table. All but the last run of a block are multiples of kMostLanes symbols.
struct Run {
  const EncodeTables* tables;
  size_t symbols;
};

// How a block's lanes are counted: as few as its length keeps busy, more for some tens of bytes, or, where symbols take
// so few bits that some hundred bytes of lanes show, at most half of all.
enum class Lanes { few, many, half };

// Writes a block. symbols: those of all runs, each with a frequency in its run's table.
void encode_block(std::span<const Run> runs, const uint8_t* symbols, ByteWriter& out, Lanes lanes_wanted = Lanes::few);

// Reads a block from front to back. Every byte is checked before it is trusted: read and finish raise bad_data.
class BlockDecoder {
 public:
  // block: exactly one block, of `symbols` symbols. The bytes must outlive the decoder.
  BlockDecoder(std::span<const uint8_t> block, uint64_t symbols);

  // The next out.size() symbols; a multiple of kMostLanes unless they end the block.
  void read(const DecodeTables& tables, std::span<uint8_t> out);

  // After the last symbol: every state must have come back to where the encoder began, every word must be used.
  void finish() const;

 private:
  void end_rows();
  DecodeStates states_;
  NarrowStates narrow_{};
  int groups_ = 0, narrow_lanes_ = 0;
  size_t rows_ = 0, tail_ = 0, narrow_words_ = 0;  // rows and narrow symbols left; words of the narrow coder
  const uint8_t* begin_[kMostGroups]{};            // of each group's words
  const uint8_t* floor_ = nullptr;
  std::vector<uint8_t> narrow_bytes_;  // start states' words, then those that did not fit there
  std::span<const uint8_t> extra_;
  const uint8_t* narrow_at_ = nullptr;
  const uint8_t* narrow_floor_ = nullptr;
};

}  // namespace tersor::entropy
