// The GPU's body on the host: pieces of every size, sound and damaged strings, against the scalar kernel.
#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/warp.h"
#include "entropy/huffman.h"
#include "entropy/huffman_warp.cuh"

using namespace tersor;
using namespace tersor::entropy;
using namespace tersor::entropy::huffman;

namespace {

struct Coded {
  std::unique_ptr<DecodeTable> table = std::make_unique<DecodeTable>();
  std::vector<uint8_t> symbols, starts, gaps, bits;
  WarpString string{};
};

Coded encode(int log_piece, int alphabet, size_t count, std::mt19937& random) {
  Coded coded;
  coded.symbols.resize(count);
  for (uint8_t& s : coded.symbols)
    s = uint8_t(random() % 3 ? random() & random() & random() : random()) % uint8_t(alphabet);
  coded.symbols[0] = 0, coded.symbols[1] = 1;
  ByteCounts counts{};
  count_bytes(coded.symbols, counts);
  const Lengths lengths = limited_lengths(counts, kMostLength);
  const auto table = std::make_unique<EncodeTable>();
  prepare_encode(lengths, *table);
  prepare_decode(lengths, *coded.table);
  uint64_t total = 0;
  for (size_t s = 0; s < 256; ++s) total += counts[s] * lengths[s];
  const size_t pieces = size_t((total + (1u << log_piece) - 1) >> log_piece);
  coded.bits.resize(size_t(total + 7) / 8), coded.gaps.resize((pieces + 1) / 2);
  coded.starts.resize((pieces + 31) / 32 * 2);
  encode_spans_scalar(*table, coded.symbols.data(), count, log_piece, coded.starts.data(), coded.gaps.data(),
                      coded.bits.data(), coded.bits.size());
  coded.string = {coded.table->single,
                  uint32_t(coded.table->index_bits),
                  uint32_t(log_piece),
                  nullptr,
                  nullptr,
                  coded.bits.size(),
                  total,
                  pieces};
  return coded;
}

bool by_warps(const Coded& coded, std::vector<uint8_t>& out) {
  WarpString string = coded.string;
  string.gaps = coded.gaps.data(), string.bits = coded.bits.data();
  size_t at = 0;
  bool sound = true;
  for (size_t span = 0; 2 * span < coded.starts.size(); ++span) {
    const size_t symbols = coded.starts[2 * span] | size_t(coded.starts[2 * span + 1]) << 8;
    sound &= decode_span_warp(cuda::HostWarp{}, string, span * kSpanPieces, symbols, out.data() + at);
    at += symbols;
  }
  return sound;
}

bool by_spans(const Coded& coded, std::vector<uint8_t>& out) {
  std::vector<Span> spans;
  WarpString string = coded.string;
  string.gaps = coded.gaps.data();
  size_t at = 0;
  for (size_t span = 0; 2 * span < coded.starts.size(); ++span) {
    const size_t symbols = coded.starts[2 * span] | size_t(coded.starts[2 * span + 1]) << 8;
    spans.push_back(
        {string.begin_of(span * kSpanPieces), string.begin_of((span + 1) * kSpanPieces), out.data() + at, symbols});
    at += symbols;
  }
  return decode_spans_scalar(*coded.table, coded.bits.data(), coded.bits.size(), spans.data(), spans.size());
}

}  // namespace

TEST_CASE("huffman warp: equals the scalar kernel for pieces of every size") {
  std::mt19937 random(1);
  for (int log_piece = kLeastLogPiece; log_piece <= kMostLogPiece; ++log_piece)
    for (const int alphabet : {2, 3, 30, 255})
      for (const size_t count : {size_t(2), size_t(77), size_t(5000), size_t(60000)}) {
        const Coded coded = encode(log_piece, alphabet, count, random);
        std::vector<uint8_t> warp(count), scalar(count);
        CHECK(by_warps(coded, warp) && by_spans(coded, scalar));
        CHECK(warp == coded.symbols && scalar == coded.symbols);
      }
}

TEST_CASE(
    "huffman warp: what it lets pass is what the scalar kernel reads, and gaps that would change it are refused") {
  std::mt19937 random(2);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    Coded coded = encode(8 + round % 3, 30, 20000, random);
    auto& target = round % 2 ? coded.gaps : coded.bits;
    target[random() % target.size()] ^= uint8_t(1u << random() % 8);
    std::vector<uint8_t> warp(coded.symbols.size()), scalar(coded.symbols.size());
    const bool sound = by_warps(coded, warp);
    if (sound) CHECK(by_spans(coded, scalar) && warp == scalar);
    // A gap may name a later code of its piece as the first: the symbols are the same.
    if (sound && round % 2) CHECK(warp == coded.symbols);
    refused += !sound;
  }

  CHECK(refused > 120 && refused < 240);
}
