// The Huffman kernels, compiled twice: huffman_scalar.cpp and huffman_avx2.cpp include it after naming the namespace
// TERSOR_HUFFMAN. Both are scalar code; the second has shifts by any register and bit fields (BMI2), which is a third
// of the time.
#include <cstring>

#include "entropy/huffman_kernels.h"

namespace tersor::entropy::huffman::TERSOR_HUFFMAN {

// The next bits, low first, below a one that says how many are left: so nobody counts what is taken.
struct Stream {
  uint64_t held;
  const uint8_t* at;  // the byte of the first bit loaded
  uint8_t* out;
  const Span* span;
};

constexpr int kStreams = 6;  // measured: 3, 4 and 6
constexpr uint64_t kMark = uint64_t(1) << 63;

static __attribute__((always_inline)) inline void refill(Stream& s) {
  const unsigned taken = unsigned(__builtin_clzll(s.held));
  s.at += taken >> 3;
  uint64_t next;
  std::memcpy(&next, s.at, 8);
  s.held = (next | kMark) >> (taken & 7);
}

// kLookUps times index_bits fit into the 56 bits that a refill gives.
template <int kActive, int kLookUps, bool kOneByOne>
static void decode_together(const DecodeTable& t, Stream* streams, size_t rounds) {
  const uint64_t mask = (uint64_t(1) << t.index_bits) - 1;
  const uint16_t* const single = t.single;
  const uint64_t* const several = t.several;
  Stream local[kActive];
  for (int i = 0; i < kActive; ++i) local[i] = streams[i];
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 8
    for (int i = 0; i < kActive; ++i) refill(local[i]);
#pragma GCC unroll 8
    for (int k = 0; k < kLookUps; ++k)
#pragma GCC unroll 8
      for (int i = 0; i < kActive; ++i) {
        Stream& s = local[i];
        if constexpr (kOneByOne) {
          const uint32_t entry = single[s.held & mask];
          s.held >>= entry & 63;
          s.out[k] = uint8_t(entry >> 8);
          if (k == kLookUps - 1) s.out += kLookUps;
          continue;
        }
        const uint64_t entry = several[s.held & mask];
        s.held >>= entry & 63;
        const uint32_t symbols = uint32_t(entry >> 32);
        std::memcpy(s.out, &symbols, 4);  // of which fewer may be meant: the next overwrite the others
        s.out += uint8_t(entry >> 8);
      }
  }
  for (int i = 0; i < kActive; ++i) streams[i] = local[i];
}

template <int kActive>
static void decode_together(const DecodeTable& t, Stream* streams, size_t rounds) {
  const bool short_codes = t.index_bits <= 11;
  if (t.one_by_one)
    short_codes ? decode_together<kActive, 5, true>(t, streams, rounds)
                : decode_together<kActive, 4, true>(t, streams, rounds);
  else
    short_codes ? decode_together<kActive, 5, false>(t, streams, rounds)
                : decode_together<kActive, 4, false>(t, streams, rounds);
}

static uint32_t peek(const uint8_t* bits, size_t bytes, uint64_t at) {
  uint32_t next = 0;
  const size_t byte = size_t(at >> 3);
  for (size_t i = 0; i < 3 && byte + i < bytes; ++i) next |= uint32_t(bits[byte + i]) << (8 * i);
  return next >> (at & 7);
}

// What is left of a span, symbol by symbol.
static bool finish(const DecodeTable& t, const uint8_t* bits, size_t bytes, const Stream& s) {
  const uint32_t mask = (1u << t.index_bits) - 1;
  uint64_t at = uint64_t(s.at - bits) * 8 + uint64_t(__builtin_clzll(s.held));
  for (uint8_t* out = s.out; out != s.span->out + s.span->symbols; ++out) {
    if (at > s.span->end) return false;
    const uint16_t entry = t.single[peek(bits, bytes, at) & mask];
    *out = uint8_t(entry >> 8), at += entry & 255;
  }
  return at == s.span->end;
}

// Rounds in which no stream writes behind its span or reads behind the bit string.
static size_t safe_rounds(const Stream& s, const uint8_t* end, bool one_by_one) {
  const size_t left = s.span->symbols - size_t(s.out - s.span->out), ahead = size_t(end - s.at);
  const size_t by_symbols = left / (one_by_one ? 5 : 5 * kMostSeveral), by_bytes = ahead < 24 ? 0 : (ahead - 16) / 8;
  return by_symbols < by_bytes ? by_symbols : by_bytes;
}

static bool decode_all(const DecodeTable& t, const uint8_t* bits, size_t bytes, const Span* spans, size_t count) {
  Stream streams[kStreams];
  int active = 0;
  size_t next = 0;
  for (;;) {
    while (active < kStreams && next < count) {
      const Span& span = spans[next++];
      // As if the bits of the first byte that lie before the span had been taken; nothing is loaded yet.
      streams[active++] = {kMark >> (span.begin & 7), bits + (span.begin >> 3), span.out, &span};
    }
    if (active == 0) return true;
    size_t rounds = ~size_t(0);
    int shortest = 0;
    for (int i = 0; i < active; ++i) {
      const size_t safe = safe_rounds(streams[i], bits + bytes, t.one_by_one);
      if (safe < rounds) rounds = safe, shortest = i;
    }
    if (rounds == 0) {
      if (!finish(t, bits, bytes, streams[shortest])) return false;
      streams[shortest] = streams[--active];
      continue;
    }
    switch (active) {
      case 1: decode_together<1>(t, streams, rounds); break;
      case 2: decode_together<2>(t, streams, rounds); break;
      case 3: decode_together<3>(t, streams, rounds); break;
      case 4: decode_together<4>(t, streams, rounds); break;
      case 5: decode_together<5>(t, streams, rounds); break;
      default: decode_together<kStreams>(t, streams, rounds);
    }
  }
}

// Tells the pieces of a bit string while it is written.
struct Pieces {
  const EncodeTable& t;
  const uint8_t* symbols;
  int log_piece;
  uint8_t* starts;
  uint8_t* gaps;
  size_t boundary;  // the byte where the next piece begins
  size_t piece = 1, span_begin = 0;

  // After symbols [i, end) the string is `kept` bits longer than `written` bytes, which have come to the boundary.
  // Apart from the loops, and by value, so that those keep in registers what they have.
  __attribute__((noinline)) void cross(size_t written, uint64_t kept, size_t i, size_t end) {
    int64_t place = int64_t(written - boundary) * 8 + int64_t(kept);  // from the boundary
    if (place == 0) return;                                           // not yet: it ends there
    for (size_t j = i; j < end; ++j) place -= int64_t(t.code[symbols[j]] & 63);
    for (; place < 0; ++i) place += int64_t(t.code[symbols[i]] & 63);
    // i codes begin before the boundary, the next one, if there is one, at `place`
    gaps[piece / 2] = uint8_t(gaps[piece / 2] | place << (piece % 2 * 4));
    if (piece % kSpanPieces == 0) end_span(i);
    ++piece, boundary += (size_t(1) << log_piece) / 8;
  }
  void end_span(size_t i) {
    const uint16_t begun = uint16_t(i - span_begin);
    std::memcpy(starts, &begun, 2);
    starts += 2, span_begin = i;
  }
};

static void encode_all(const EncodeTable& t, const uint8_t* symbols, size_t count, int log_piece, uint8_t* starts,
                       uint8_t* gaps, uint8_t* bits, size_t bytes) {
  constexpr size_t kTogether = 4;  // codes of 12 bits beside the 7 that are left of a byte
  Pieces pieces{t, symbols, log_piece, starts, gaps, (size_t(1) << log_piece) / 8};
  // The newest bits stand at the top of `held`, `kept` of which are still to be written. A table entry's length falls
  // into the lowest byte, which is never written.
  uint64_t held = 0, kept = 0;
  uint8_t* to = bits;
  const uint8_t* const end = bits + bytes;
  size_t boundary = pieces.boundary;
  size_t i = 0;
  for (; i + kTogether <= count && end - to >= 8; i += kTogether) {
    // Put together as a tree, since what goes through `held` waits for what went before.
    const uint64_t c0 = t.code[symbols[i]], c1 = t.code[symbols[i + 1]];
    const uint64_t c2 = t.code[symbols[i + 2]], c3 = t.code[symbols[i + 3]];
    const uint64_t first = c0 >> (c1 & 63) | c1, second = c2 >> (c3 & 63) | c3, length = c2 + c3;
    held = held >> ((c0 + c1 + length) & 63) | first >> (length & 63) | second;
    kept = (kept + c0 + c1 + length) & 63;
    const uint64_t whole = held >> (64 - kept);
    std::memcpy(to, &whole, 8);
    to += kept >> 3, kept &= 7;
    if (size_t(to - bits) >= boundary) {
      pieces.cross(size_t(to - bits), kept, i, i + kTogether);
      boundary = pieces.boundary;
    }
  }
  for (; i < count; ++i) {
    const uint64_t code = t.code[symbols[i]];
    held = held >> (code & 63) | code;
    for (kept += code & 63; kept >= 8; kept -= 8) *to++ = uint8_t(held >> (64 - kept));
    if (size_t(to - bits) >= pieces.boundary) pieces.cross(size_t(to - bits), kept, i, i + 1);
  }
  if (kept > 0) *to = uint8_t(held >> (64 - kept));
  pieces.end_span(count);
}

}  // namespace tersor::entropy::huffman::TERSOR_HUFFMAN
