#include "entropy/histogram.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace tersor::entropy {
namespace {

constexpr size_t kRun = 64;

struct Counters {  // four, so that equal neighbors do not wait for each other's store
  uint32_t part[4][256] = {};
  void add(const uint8_t* at, size_t count) noexcept {
    for (; count >= 8; at += 8, count -= 8) {
      uint64_t eight;
      std::memcpy(&eight, at, 8);
      for (int i = 0; i < 8; ++i) ++part[i % 4][eight >> (8 * i) & 255];
    }
    for (; count > 0; ++at, --count) ++part[0][*at];
  }
  void add_to(ByteCounts& counts) const noexcept {
    for (size_t s = 0; s < 256; ++s) counts[s] += uint64_t(part[0][s]) + part[1][s] + part[2][s] + part[3][s];
  }
};

// Data of which nearly all is one value, as the differences of a small step are: eight of it are told by one
// comparison, and only the others are counted. Says whether it was such.
bool count_mostly_one(std::span<const uint8_t> data, Counters& counters) noexcept {
  if (data.size() < 4096) return false;
  constexpr size_t kSeen = 256, kLeast = 240;
  const uint8_t one = data[data.size() / 2];
  size_t seen = 0;
  for (size_t i = 0; i < kSeen; ++i) seen += data[i * (data.size() / kSeen)] == one;
  if (seen < kLeast) return false;
  const uint64_t eight_of_it = one * 0x0101010101010101u;
  size_t others = 0;
  const uint8_t* at = data.data();
  for (size_t left = data.size(); left >= 8; at += 8, left -= 8) {
    uint64_t eight;
    std::memcpy(&eight, at, 8);
    for (uint64_t differ = eight ^ eight_of_it; differ;) {
      const int shift = std::countr_zero(differ) & ~7;
      ++counters.part[0][eight >> shift & 255], ++others;
      differ &= ~(uint64_t(255) << shift);
    }
  }
  counters.part[1][one] += uint32_t(data.size() / 8 * 8 - others);
  counters.add(at, data.size() % 8);
  return true;
}

}  // namespace

void count_bytes(std::span<const uint8_t> data, ByteCounts& counts) noexcept {
  while (!data.empty()) {  // pieces whose counters cannot overflow
    const size_t piece = std::min<size_t>(data.size(), size_t(1) << 31);
    Counters counters;
    if (!count_mostly_one(data.first(piece), counters)) counters.add(data.data(), piece);
    counters.add_to(counts);
    data = data.subspan(piece);
  }
}

void sample_bytes(std::span<const uint8_t> data, size_t stride, ByteCounts& counts) noexcept {
  // Stride 1 promises every byte: a value that is not counted gets no slot and cannot be coded.
  if (stride == 1 || data.size() < 64 * kRun * stride) return count_bytes(data, counts);
  Counters counters;
  // Their distances vary, lest they meet the same columns of every row.
  size_t at = 0;
  for (size_t run = 0; at + kRun * stride <= data.size(); at += kRun * stride, ++run)
    counters.add(data.data() + at + (run * 0x9E3779B1u >> 16) % stride * kRun, kRun);
  counters.add_to(counts);
}

}  // namespace tersor::entropy
