// Equal tensors are found without hashing all of them first: a sample of the bytes tells most apart, and only those
// that share dtype, size and sample are hashed in full.
#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "checkpoint/pack.h"
#include "core/pool.h"

namespace tersor::checkpoint {
namespace {

// Sixty-four bytes from the front, the middle and the end: three pages touched at most.
Hash128 sample_hash(std::span<const uint8_t> data) {
  constexpr size_t kPart = 64;
  if (data.size() <= 3 * kPart) return hash128(data);
  std::array<uint8_t, 3 * kPart> sample;
  std::memcpy(sample.data(), data.data(), kPart);
  std::memcpy(sample.data() + kPart, data.data() + data.size() / 2, kPart);
  std::memcpy(sample.data() + 2 * kPart, data.data() + data.size() - kPart, kPart);
  return hash128(sample);
}

Hash128 hash_asking(std::span<const uint8_t> data, Pace& pace) {
  HashStream stream;
  constexpr size_t kStep = size_t(16) << 20;
  for (size_t at = 0; at < data.size(); at += kStep) {
    stream.update(data.subspan(at, std::min(kStep, data.size() - at)));
    pace.add(0);
  }
  return stream.finish();
}

}  // namespace

void find_ties(std::span<const Source> sources, std::span<Entry> entries, std::vector<uint8_t>& hashed, int threads,
               Pace& pace) {
  struct Candidate {
    uint64_t size;
    DType dtype;
    Hash128 hash;  // of the sample, then of all
    size_t entry;
    auto key() const { return std::tuple(size, dtype, hash); }
    bool operator<(const Candidate& other) const {
      return std::tuple(key(), entry) < std::tuple(other.key(), other.entry);
    }
  };
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < sources.size(); ++i) {
    if (sources[i].kind == container::Kind::tensor && !sources[i].data.empty())
      candidates.push_back({sources[i].data.size(), sources[i].dtype, {}, i});
  }
  // Keeps those with an equal neighbor: all others are alone.
  const auto keep_equal = [&] {
    std::sort(candidates.begin(), candidates.end());
    std::vector<Candidate> kept;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const bool before = i > 0 && candidates[i - 1].key() == candidates[i].key();
      const bool behind = i + 1 < candidates.size() && candidates[i + 1].key() == candidates[i].key();
      if (before || behind) kept.push_back(candidates[i]);
    }
    candidates = std::move(kept);
  };
  keep_equal();
  for (Candidate& candidate : candidates) candidate.hash = sample_hash(sources[candidate.entry].data);
  keep_equal();
  parallel_for(candidates.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) candidates[i].hash = hash_asking(sources[candidates[i].entry].data, pace);
  });
  for (const Candidate& candidate : candidates) {
    entries[candidate.entry].hash = candidate.hash;
    hashed[candidate.entry] = true;
  }
  keep_equal();
  size_t first = 0;
  for (size_t i = 1; i < candidates.size(); ++i) {
    if (candidates[i].key() != candidates[first].key()) {
      first = i;
      continue;
    }
    const auto a = sources[candidates[first].entry].data, b = sources[candidates[i].entry].data;
    // The hash is no proof against somebody who wants two tensors to be confused.
    if (a.data() == b.data() || std::memcmp(a.data(), b.data(), a.size()) == 0)
      entries[candidates[i].entry].same_as = candidates[first].entry;
  }
}

}  // namespace tersor::checkpoint
