// Bits into and out of bytes, low bits first, for headers and tables (not for payloads: those are word streams).
#pragma once
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bits.h"

namespace tersor::entropy {

class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>& out) : out_(out) {}
  void put(uint32_t value, int bits) {
    held_ |= uint64_t(value) << count_;
    for (count_ += bits; count_ >= 8; count_ -= 8, held_ >>= 8) out_.push_back(uint8_t(held_));
  }
  // Elias gamma: value >= 1 in 2 floor(log2 value) + 1 bits, the unary length first.
  void put_gamma(uint32_t value) {
    const int extra = std::bit_width(value) - 1;
    put(0, extra), put(1, 1), put(value & ((1u << extra) - 1), extra);
  }
  void finish() {
    if (count_ > 0) out_.push_back(uint8_t(held_));
    held_ = 0, count_ = 0;
  }

 private:
  std::vector<uint8_t>& out_;
  uint64_t held_ = 0;
  int count_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const uint8_t> data, const char* what = "table") : data_(data), what_(what) {}
  uint32_t take(int bits) {  // <= 32
    refill(bits);
    const uint32_t value = uint32_t(held_ & ((uint64_t(1) << bits) - 1));
    held_ >>= bits, count_ -= bits;
    return value;
  }
  uint32_t take_gamma(int most_extra) {
    int extra = 0;
    while (take(1) == 0)
      TERSOR_REQUIRE(++extra <= most_extra, Code::bad_data, what_, ": a number of over ", most_extra, " bits");
    return 1u << extra | take(extra);
  }
  size_t used() const noexcept { return at_ - size_t(count_) / 8; }  // whole bytes, the one begun included
  bool padding_is_zero() const noexcept { return (held_ & ((1u << (count_ % 8)) - 1)) == 0; }

 private:
  void refill(int bits) {
    while (count_ < bits) {
      TERSOR_REQUIRE(at_ < data_.size(), Code::bad_data, what_, ": ends after ", data_.size(),
                     " bytes, more is needed");
      held_ |= uint64_t(data_[at_++]) << count_;
      count_ += 8;
    }
  }
  std::span<const uint8_t> data_;
  const char* what_;
  size_t at_ = 0;
  uint64_t held_ = 0;
  int count_ = 0;
};

// A stream's first two bytes: its number (core/ids.def) and version. Raises bad_data for others than these.
void take_stream(ByteReader& reader, uint8_t number, uint8_t version, const char* what);

// LEB128, at most 64 bits; the shortest form only.
void put_varint(std::vector<uint8_t>& out, uint64_t value);
void put_varint(ByteWriter& out, uint64_t value);
uint64_t take_varint(std::span<const uint8_t>& data, const char* what);

}  // namespace tersor::entropy
