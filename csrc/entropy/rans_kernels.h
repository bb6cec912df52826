// What the rANS kernels share: tables, states and signatures. Plain data only, so that ISA files may include it.
//
// A state is x = high:low, two 16-bit halves, 2^16 <= x < 2^32. Frequencies sum to 2^16 and words have 16 bits, so the
// slot of a state is its low half, x / 2^16 its high half, and a lane needs a word exactly when high becomes 0.
// A row gives every lane one symbol. 32 lanes are a group with a word stream of its own: an AVX-512 vector or a GPU
// warp can own it. The encoder walks the rows backwards and a row's lanes forwards, and appends; so the decoder reads
// each group's words from the end towards the front, and within a row lane 31 finds its word last in memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tersor::entropy {

inline constexpr int kGroupLanes = 32, kMostGroups = 8, kMostLanes = kGroupLanes * kMostGroups;
inline constexpr uint32_t kSlots = 65536;

enum class Layout : uint8_t {
  alias32,     // 32 buckets of 2048 slots: up to 32 neighboring symbols
  alias256,    // 256 buckets of 256 slots
  contiguous,  // 64 buckets of 1024 slots with at most one boundary in each: up to 32 frequencies of >= 1024
};

constexpr int log_width(Layout layout) noexcept {  // of a bucket, in slots
  return layout == Layout::alias32 ? 11 : layout == Layout::alias256 ? 8 : 10;
}

// Alias: bucket b holds slots of symbol b below own[b], above it those of ONE other symbol, alias[b]. A slot decodes
// with one comparison: rest < own[b] ? (b, rank rest) : (alias[b], rank rest + offset[b]), ranks modulo 2^16. A bucket
// that is all its own would need own = width, one bit too many: it stores width - 1, and its last slot decodes as the
// alias of itself with offset 0.
// Contiguous: symbol s holds the slots from start[s]; bucket[b] = threshold << 5 | the symbol of the bucket's first
// slot, and slots at or above the threshold belong to the next symbol.
struct DecodeTables {
  Layout layout;
  uint8_t base;  // of alias32: the symbol of name 0, where the others follow it in order
  bool named;    // they do not: symbol_of
  // All layouts, by bucket: the first slot that is not its first symbol's; then for slots before it (odd places) and
  // from it on (even places) (rank - slot) << 32 | frequency << 16 | symbol.
  alignas(64) uint32_t until[256];
  alignas(64) uint64_t side[512];
  // alias32 and contiguous, as the registers hold them; by name, where a bucket's symbols are names
  alignas(64) uint8_t symbol_of[32];
  alignas(64) uint16_t own[32], alias[32], offset[32], frequency[32], start[32], bucket[64];
  // alias256: own << 8 | alias and offset by bucket, frequency by symbol
  alignas(64) uint16_t own_alias256[256];
  alignas(64) uint16_t offset256[256];
  alignas(64) uint16_t frequency256[256];
  // all that a bucket says: own << 8 | alias, offset, frequency and the alias' frequency, 16 bits each, low first
  alignas(64) uint64_t entry256[256];
  // the same as bytes: own, alias, offset low and high (by bucket), frequency low and high (by symbol)
  alignas(64) uint8_t plane[6][256];
};

struct EncodeTables {
  Layout layout;
  uint8_t base;                               // taken from alias32's symbols
  alignas(64) uint32_t frequency_start[256];  // start << 16 | frequency
  alignas(64) float reciprocal[256];          // of the frequency, rounded down twice; 0 for absent symbols
  // Alias: the slot of start + rank. Tables of less than 16 bits place whole quanta of 2^quantum_bits slots, so only
  // their first slots are kept: the fewer, the better they fit the L1 cache.
  int quantum_bits;
  const uint16_t* slot_of;
  // The same for vectors of alias32, where `stepped`: symbols of less than 2048 slots lie whole in their own bucket,
  // and the ranks of the others, laid side by side, are cut into at most 64 pieces with at most three cuts in 1024
  // ranks. place = place_frequency >> 16 + rank; a small symbol's slot is its place, of another it is place +
  // shift[piece], and piece = piece[place / 1024] + how many of the three cuts are below place.
  bool stepped;
  alignas(64) uint32_t place_frequency[32];  // place << 16 | frequency
  alignas(64) uint16_t piece[64];
  alignas(64) uint16_t cut[3][64];  // one below the first place behind the cut; 65535: none
  alignas(64) uint16_t shift[64];
};

// Shuffles of eight words by the eight bits that say which of them are meant. expand: lanes whose bit is 1 get the next
// word each; fill: those whose bit is 0. compress: the words whose bit is 1 come to the front. Data of rans.cpp, so
// that no ISA file defines it.
struct alignas(64) LaneControls {
  uint8_t expand[256][16];
  uint8_t fill[256][16];
  uint8_t compress[256][16];
};
extern const LaneControls kLaneControls;

struct DecodeStates {
  alignas(64) uint16_t low[kMostLanes];
  alignas(64) uint16_t high[kMostLanes];
  const uint8_t* words[kMostGroups];  // just behind the next word to read; a word is two bytes, low first
};

struct EncodeStates {
  alignas(64) uint32_t x[kMostLanes];
  uint16_t* words[kMostGroups];  // where the next word goes; 32 bytes behind it may be overwritten
};

// Decodes `rows` rows of 32 * groups symbols. Returns false, having written nothing outside `out`, when a group's
// words run below `floor`. Readable: 64 * groups bytes below floor, 64 bytes above each group's words.
using DecodeRows = bool(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
                        uint8_t* out) noexcept;
DecodeRows decode_rows_scalar, decode_rows_avx2, decode_rows_avx512, decode_rows_avx512vbmi;

// Encodes rows [0, rows), the last first. Symbols have a frequency; the door has checked that.
using EncodeRows = void(const EncodeTables& tables, EncodeStates& states, int groups, size_t rows,
                        const uint8_t* symbols) noexcept;
EncodeRows encode_rows_scalar, encode_rows_avx2, encode_rows_avx512;

// The narrow coder: one or kMostNarrow states and one word stream, symbol i from the end on lane i % lanes. It codes
// short inputs and what does not fill a row. Same arithmetic and same tables; scalar by nature.
inline constexpr int kMostNarrow = 8;
struct NarrowStates {
  uint32_t x[kMostNarrow];
};
// Appends to `words` while walking `symbols` backwards; `coded` symbols behind them are already in the states.
// Returns the new end of the words.
uint16_t* encode_narrow(const EncodeTables& tables, NarrowStates& states, int lanes, size_t coded,
                        const uint8_t* symbols, size_t count, uint16_t* words) noexcept;
// The next `count` of `left` symbols. Reads downward from `words`, returns where it stopped; below `floor` it stops
// and returns null.
const uint8_t* decode_narrow(const DecodeTables& tables, NarrowStates& states, int lanes, size_t left, uint8_t* out,
                             size_t count, const uint8_t* words, const uint8_t* floor) noexcept;

}  // namespace tersor::entropy
