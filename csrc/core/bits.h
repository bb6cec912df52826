// Little-endian loads and stores, and arithmetic that refuses to wrap.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "core/error.h"

namespace tersor {

static_assert(std::endian::native == std::endian::little, "disk fields are little-endian and read in place");

template <class T>
T load_le(const uint8_t* at) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
void store_le(uint8_t* at, T value) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(at, &value, sizeof value);
}

// a * b and a + b of sizes taken from a file or a caller; `what` names them in the error.
inline uint64_t checked_mul(uint64_t a, uint64_t b, const char* what) {
  uint64_t product;
  TERSOR_REQUIRE(!__builtin_mul_overflow(a, b, &product), Code::bad_data, what, ": ", a, " * ", b,
                 " overflows 64 bits");
  return product;
}

inline uint64_t checked_add(uint64_t a, uint64_t b, const char* what) {
  uint64_t sum;
  TERSOR_REQUIRE(!__builtin_add_overflow(a, b, &sum), Code::bad_data, what, ": ", a, " + ", b, " overflows 64 bits");
  return sum;
}

constexpr uint64_t ceil_div(uint64_t a, uint64_t b) noexcept { return a / b + (a % b != 0); }

// Reads fixed-width fields from the front of a span; every read is checked against what is left.
class ByteReader {
 public:
  ByteReader(std::span<const uint8_t> data, const char* what) : data_(data), what_(what) {}
  size_t left() const noexcept { return data_.size(); }
  template <class T>
  T take() {
    return load_le<T>(take(sizeof(T)).data());
  }
  std::span<const uint8_t> take(uint64_t bytes) {
    TERSOR_REQUIRE(bytes <= data_.size(), Code::bad_data, what_, ": ", bytes, " bytes needed, ", data_.size(), " left");
    const auto front = data_.first(size_t(bytes));
    data_ = data_.subspan(size_t(bytes));
    return front;
  }

 private:
  std::span<const uint8_t> data_;
  const char* what_;
};

// Writes from the front of a span on. What does not fit is dropped, and full() says so from then on: a coder need not
// know beforehand how much it will write. A copy remembers a place to come back to.
class ByteWriter {
 public:
  explicit ByteWriter(std::span<uint8_t> room) noexcept : room_(room) {}
  size_t size() const noexcept { return size_; }
  size_t left() const noexcept { return full_ ? 0 : room_.size() - size_; }
  bool full() const noexcept { return full_; }
  std::span<const uint8_t> written() const noexcept { return room_.first(size_); }

  void clear() noexcept { size_ = 0, full_ = false; }

  // `bytes` of room for the caller to fill; empty where there is not so much.
  std::span<uint8_t> take(size_t bytes) noexcept {
    if (bytes > left()) {
      full_ = true;
      return {};
    }
    size_ += bytes;
    return room_.subspan(size_ - bytes, bytes);
  }
  void append(const void* data, size_t bytes) noexcept {
    const auto to = take(bytes);
    if (!to.empty()) std::memcpy(to.data(), data, to.size());
  }
  void append(std::span<const uint8_t> bytes) noexcept { append(bytes.data(), bytes.size()); }
  template <class T>
  void put(T value) noexcept {
    append(&value, sizeof value);
  }

 private:
  std::span<uint8_t> room_;
  size_t size_ = 0;
  bool full_ = false;
};

}  // namespace tersor
