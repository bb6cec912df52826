// What the targets of decoders share: two levels that must agree, and streams of our own that are damaged.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/isa.h"

namespace tersor::fuzz {

template <class F>
bool tried(const F& decode, std::vector<uint8_t>& out) {
  try {
    decode(out);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// decode fills the bytes that it is given or raises Error: the scalar level and the machine's own do the same.
template <class F>
void decode_alike(size_t size, const F& decode) {
  std::vector<uint8_t> want(size), got(size);
  hold_isa(Isa::scalar);
  const bool decoded = tried(decode, want);
  hold_isa(machine_isa());
  if (tried(decode, got) != decoded || (decoded && got != want)) std::abort();
}

// f(coded) with one bit more changed each time, now anywhere, now in the first 100 bytes.
template <class F>
void damaged(std::vector<uint8_t> coded, uint32_t places, const F& f) {
  for (int flips = 0; flips < 4; ++flips, places = places * 1664525 + 1013904223) {
    coded[places / 8 % (flips % 2 ? coded.size() : std::min<size_t>(coded.size(), 100))] ^= uint8_t(1 << places % 8);
    f(std::span<const uint8_t>(coded));
  }
}

// Bytes in a block of their own size: what is read behind the last is behind the allocation.
class Copy {
 public:
  Copy(const uint8_t* data, size_t size) : bytes_(std::make_unique<uint8_t[]>(size)), size_(size) {
    std::copy(data, data + size, bytes_.get());
  }
  std::span<const uint8_t> bytes() const noexcept { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_;
};

inline void want_equal(std::span<const uint8_t> got, std::span<const uint8_t> want) {
  if (!std::equal(got.begin(), got.end(), want.begin(), want.end())) std::abort();
}

}  // namespace tersor::fuzz
