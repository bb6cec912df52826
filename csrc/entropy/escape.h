// Between 256 symbols and at most 32 names: likely symbols have a name of their own, the others share the escape's name
// and travel aside, in order.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy {

struct alignas(64) NameMap {
  uint8_t name_of[256];  // every symbol's name
  uint8_t symbol_of[32];
  uint8_t escape;  // the escape's name; 255 where there is none
};

// The 32 neighboring symbols that hold most named ones: what vectors look up at once.
struct NameWindow {
  uint8_t name_of[32];
  uint8_t first;   // the window's first symbol
  bool all, most;  // whether it holds all named symbols, or enough of them to be worth it
};
NameWindow window_of(const NameMap& map) noexcept;

// names: as long as symbols. escaped: room for all symbols and 64 more. Returns how many were escaped.
size_t split_escapes(const NameMap& map, std::span<const uint8_t> symbols, uint8_t* names, uint8_t* escaped) noexcept;

// In place: names become symbols. Takes escaped symbols from the front of `escaped` and moves it on; returns false
// when there are too few.
bool merge_escapes(const NameMap& map, std::span<uint8_t> names, std::span<const uint8_t>& escaped) noexcept;

using SplitEscapes = size_t(const NameMap& map, const NameWindow& window, const uint8_t* symbols, size_t count,
                            uint8_t* names, uint8_t* escaped) noexcept;
using MergeEscapes = bool(const NameMap& map, uint8_t* names, size_t count, const uint8_t*& escaped,
                          const uint8_t* escaped_end) noexcept;
SplitEscapes split_escapes_scalar, split_escapes_avx2, split_escapes_avx512;
MergeEscapes merge_escapes_scalar, merge_escapes_avx2, merge_escapes_avx512;

}  // namespace tersor::entropy
