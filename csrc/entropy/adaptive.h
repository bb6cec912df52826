// A self-describing stream of nibbles or bytes under models that follow the data: no table travels. Page:
// docs/formats/adaptive.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy::adaptive {

inline constexpr int kLeastRate = 4, kMostRate = 9;

struct Model {
  int bits = 8;   // a symbol's: 4 or 8
  int order = 0;  // 1: in the context of the symbol before
  int rate = 7;   // a symbol moves probabilities by 2^-rate of what they are off, by more in the beginning
};

// Most bytes that encode writes.
size_t encode_bound(size_t symbols) noexcept;

// Raises bad_call for a symbol of more bits than the model's and for a model that is not there. On the calling thread:
// each symbol's model is what those before it have left.
std::vector<uint8_t> encode(std::span<const uint8_t> symbols, Model model);

// The number of symbols in a stream, without decoding it. Raises bad_data.
uint64_t decoded_size(std::span<const uint8_t> data);

// out: decoded_size(data) long, else bad_call. Raises bad_data.
void decode(std::span<const uint8_t> data, std::span<uint8_t> out);

}  // namespace tersor::entropy::adaptive
