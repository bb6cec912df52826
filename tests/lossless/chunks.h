// What the checks of lossless chunks do to every kind of content.
#pragma once
#include <algorithm>
#include <random>
#include <span>
#include <vector>

#include "check.h"
#include "levels.h"
#include "lossless/chunk.h"

namespace tersor::lossless {

using Bytes = std::vector<uint8_t>;

inline Bytes encoded(Element element, std::span<const uint8_t> raw, int level) {
  Bytes coded(chunk_bound(raw.size()));
  coded.resize(encode_chunk(element, raw, level, coded));
  return coded;
}

inline Bytes decoded(const Bytes& coded, size_t size) {
  Bytes raw(size);
  decode_chunk(coded, raw);
  return raw;
}

inline void check_at_odd_addresses(Element element, const Bytes& raw) {
  Bytes moved(raw.size() + 1), back(raw.size() + 1), coded(chunk_bound(raw.size()) + 1);
  std::copy(raw.begin(), raw.end(), moved.begin() + 1);
  const size_t size = encode_chunk(element, std::span(moved).subspan(1), 5, std::span(coded).subspan(1));
  CHECK(Bytes(coded.begin() + 1, coded.begin() + 1 + long(size)) == encoded(element, raw, 5));
  decode_chunk(std::span(coded).subspan(1, size), std::span(back).subspan(1));
  CHECK(Bytes(back.begin() + 1, back.end()) == raw);
}

// Truncations, one by one up to `dense` and every `step` bytes from there on, are errors; `flips` changed bits, some of
// them in the first `head` bytes, where lengths, tables and states lie, are errors or whole results on every level.
inline void check_damage(const Bytes& coded, size_t raw_bytes, size_t dense, size_t step, int flips, size_t head,
                         std::mt19937& random) {
  for (size_t cut = 0; cut < coded.size(); cut += cut < dense ? 1 : step) {
    const Bytes part(coded.begin(), coded.begin() + long(cut));  // of its own, so that a sanitizer sees its end
    CHECK(!check::error_of([&] { decoded(part, raw_bytes); }).empty());
  }
  for (int i = 0; i < flips; ++i) {
    Bytes bad = coded;
    const size_t bits = 8 * (i % 2 ? bad.size() : std::min(bad.size(), head)), bit = random() % bits;
    bad[bit / 8] ^= uint8_t(1 << bit % 8);
    check::alike_on_each_isa(raw_bytes, [&](std::span<uint8_t> raw) { decode_chunk(bad, raw); });
  }
}

}  // namespace tersor::lossless
