// Codes of a few bits in rows: each row starts on a byte, low bits first, unused bits 0. Trits go five a byte: the
// first counts once, the next 3, 9, 27 and 81; unused ones are 0. Page: docs/formats/int_group.md.
#pragma once
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "formats/small_float.h"

namespace tersor::formats {

inline constexpr size_t kTritsAByte = 5;

struct CodeWidth {
  int bits = 8;        // 1..8
  bool trits = false;  // bits is 2

  size_t codes() const noexcept { return trits ? 3 : size_t(1) << bits; }
  size_t row_bytes(size_t columns) const {
    return size_t(trits ? ceil_div(columns, kTritsAByte) : ceil_div(checked_mul(columns, uint64_t(bits), "codes"), 8));
  }
};

// Codes [first, first + count) of a row.
void unpack_codes(const uint8_t* row, CodeWidth width, size_t first, size_t count, uint8_t* out) noexcept;
// A whole row. Codes are in their range.
void pack_codes(const uint8_t* codes, CodeWidth width, size_t count, uint8_t* row) noexcept;

// The same for all rows, a code a byte on one side, on threads. Sizes fit. pack raises bad_data for a code out of
// range.
void unpack_rows(std::span<const uint8_t> packed, CodeWidth width, size_t rows, size_t columns, std::span<uint8_t> out,
                 int threads);
void pack_rows(std::span<const uint8_t> codes, CodeWidth width, size_t rows, size_t columns, std::span<uint8_t> packed,
               int threads);

// Raises bad_data for unused bits that are not 0, for a byte that is no five trits, and, where `element` is given, for
// a code that stands for no finite number. packed: rows of row_bytes(columns).
void check_codes(std::span<const uint8_t> packed, CodeWidth width, size_t rows, size_t columns,
                 const SmallFloat* element, int threads);

}  // namespace tersor::formats
