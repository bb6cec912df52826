// rANS over interleaved lanes, the reference: what all other kernels compute is defined here.
// Page: docs/formats/rans8.md.
#include <cstring>

#include "entropy/rans_kernels.h"

namespace tersor::entropy {
namespace {

// Buckets, sides and refills are chosen without branches: each is close to a coin toss.
uint32_t refill(uint32_t x, const uint8_t*& words) noexcept {
  uint16_t word;
  std::memcpy(&word, words - 2, 2);
  uint32_t refilled = x << 16 | word;
  int64_t taken = -int64_t(x < kSlots);
#if defined(__x86_64__)  // gcc 12 makes a branch of every way to say this in C++
  asm("cmpl $65536, %0\n\tcmovb %2, %0\n\tsbb %1, %1" : "+r"(x), "=&r"(taken) : "r"(refilled) : "cc");
#else
  x = taken ? refilled : x;
#endif
  words += 2 * taken;
  return x;
}

uint32_t side_at(uint32_t bucket, uint32_t slot, uint32_t until) noexcept {
#if defined(__x86_64__)  // three instructions less than what gcc makes of it
  asm("cmpl %2, %1\n\tadcl %0, %0" : "+r"(bucket) : "r"(slot), "rm"(until) : "cc");
  return bucket;
#else
  return 2 * bucket + (slot < until);
#endif
}

// One decoded step of a state; `words` moves down when the state takes a word.
template <int kLogWidth>
uint32_t advance(const DecodeTables& t, uint32_t x, const uint8_t*& words, uint8_t& symbol) noexcept {
  const uint32_t slot = x & 0xffff, bucket = slot >> kLogWidth;
  const uint64_t side = t.side[side_at(bucket, slot, t.until[bucket])];
  symbol = uint8_t(side);
  return refill((uint32_t(side) >> 16) * (x >> 16) + slot + uint32_t(side >> 32), words);
}

template <int kLogWidth>
bool decode(const DecodeTables& t, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
            uint8_t* out) noexcept {
  const size_t lanes = size_t(groups) * kGroupLanes;
  uint32_t x[kMostLanes];
  for (size_t i = 0; i < lanes; ++i) x[i] = uint32_t(states.high[i]) << 16 | states.low[i];
  bool inside = true;
  for (size_t row = 0; row < rows; ++row, out += lanes) {
    for (size_t g = 0; g < size_t(groups); ++g) {
      const uint8_t* words = states.words[g];
      if (words < floor) return false;
      uint32_t* const state = x + g * kGroupLanes;
      uint8_t* const to = out + g * kGroupLanes;
#pragma GCC unroll 8
      for (int lane = kGroupLanes - 1; lane >= 0; --lane) {
        uint8_t symbol;
        state[lane] = advance<kLogWidth>(t, state[lane], words, symbol);
        to[lane] = symbol;
      }
      states.words[g] = words;
    }
  }
  for (size_t g = 0; g < size_t(groups); ++g) inside = inside && states.words[g] >= floor;
  for (size_t i = 0; i < lanes; ++i) states.low[i] = uint16_t(x[i]), states.high[i] = uint16_t(x[i] >> 16);
  return inside;
}

template <int kLogWidth>
const uint8_t* decode_tail(const DecodeTables& t, NarrowStates& states, size_t lanes, size_t left, uint8_t* out,
                           size_t count, const uint8_t* words, const uint8_t* floor) noexcept {
  for (size_t i = 0; i < count; ++i) {
    uint32_t& x = states.x[--left & (lanes - 1)];
    uint8_t symbol;
    x = advance<kLogWidth>(t, x, words, symbol);
    out[i] = symbol;
    if (words < floor) return nullptr;
  }
  return words;
}

// One encoded step of a state; `words` grows when the state gives one away.
uint32_t push(const EncodeTables& t, uint32_t x, uint8_t symbol, uint16_t*& words) noexcept {
  symbol = uint8_t(symbol - t.base);
  const uint32_t frequency = t.frequency_start[symbol] & 0xffff, start = t.frequency_start[symbol] >> 16;
  const bool full = (x >> 16) >= frequency;
  *words = uint16_t(x);
  words += full;
  x = full ? x >> 16 : x;
  // x < 2^16 * frequency, so the rounded product misses the quotient by at most one, on either side.
  uint32_t quotient = uint32_t(float(x) * t.reciprocal[symbol]);
  uint32_t rank = x - quotient * frequency;
  const uint32_t correction = int32_t(rank) < 0 ? ~0u : uint32_t(rank >= frequency);
  quotient += correction, rank -= correction * frequency;
  uint32_t slot = start + rank;
  if (t.layout != Layout::contiguous) slot = t.slot_of[slot >> t.quantum_bits] + (slot & ((1u << t.quantum_bits) - 1));
  return quotient << 16 | slot;
}

}  // namespace

bool decode_rows_scalar(const DecodeTables& tables, DecodeStates& states, int groups, const uint8_t* floor, size_t rows,
                        uint8_t* out) noexcept {
  switch (tables.layout) {
    case Layout::alias32: return decode<log_width(Layout::alias32)>(tables, states, groups, floor, rows, out);
    case Layout::alias256: return decode<log_width(Layout::alias256)>(tables, states, groups, floor, rows, out);
    case Layout::contiguous: return decode<log_width(Layout::contiguous)>(tables, states, groups, floor, rows, out);
  }
  return false;
}

void encode_rows_scalar(const EncodeTables& tables, EncodeStates& states, int groups, size_t rows,
                        const uint8_t* symbols) noexcept {
  const size_t lanes = size_t(groups) * kGroupLanes;
  for (size_t row = rows; row-- > 0;)
    for (size_t g = 0; g < size_t(groups); ++g) {
      uint16_t* words = states.words[g];
      for (size_t i = g * kGroupLanes; i < (g + 1) * kGroupLanes; ++i)
        states.x[i] = push(tables, states.x[i], symbols[row * lanes + i], words);
      states.words[g] = words;
    }
}

uint16_t* encode_narrow(const EncodeTables& tables, NarrowStates& states, int lanes, size_t coded,
                        const uint8_t* symbols, size_t count, uint16_t* words) noexcept {
  for (size_t i = count; i-- > 0; ++coded) {
    uint32_t& x = states.x[coded & (size_t(lanes) - 1)];
    x = push(tables, x, symbols[i], words);
  }
  return words;
}

const uint8_t* decode_narrow(const DecodeTables& tables, NarrowStates& states, int lanes, size_t left, uint8_t* out,
                             size_t count, const uint8_t* words, const uint8_t* floor) noexcept {
  const size_t n = size_t(lanes);
  switch (tables.layout) {
    case Layout::alias32:
      return decode_tail<log_width(Layout::alias32)>(tables, states, n, left, out, count, words, floor);
    case Layout::alias256:
      return decode_tail<log_width(Layout::alias256)>(tables, states, n, left, out, count, words, floor);
    case Layout::contiguous:
      return decode_tail<log_width(Layout::contiguous)>(tables, states, n, left, out, count, words, floor);
  }
  return nullptr;
}

}  // namespace tersor::entropy
