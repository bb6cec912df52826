// Codes are never taken one by one. Rows go in pairs, whose 32-bit lanes are neighbors in a unit: a word of 64 bits is
// four bytes of each, and shifts and masks bring a unit's columns to their bits in both at once.
#include "gemm/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "formats/code_rows.h"
#include "formats/small_float.h"

namespace tersor::gemm {
namespace {

using formats::CodeWidth;
using formats::Grid;
using formats::GroupNumbers;
using formats::NumberKind;

// Steps that a pair of rows is read for before the next: what they fill stays in the nearest cache, and five trits a
// byte end where a step does.
constexpr size_t kPieceSteps = 20, kPieceColumns = kPieceSteps * kStepColumns;
constexpr size_t kUnit = 4 * kTileRows;
static_assert(kPieceColumns % formats::kTritsAByte == 0);

uint64_t word_at(const uint8_t* at) noexcept {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

template <class T>
void store(uint8_t* at, T value) noexcept {
  std::memcpy(at, &value, sizeof value);
}

constexpr uint64_t twice(uint32_t mask) noexcept { return uint64_t(mask) << 32 | mask; }

// The bits of the mask change places with those kUp above them, in both halves.
template <int kUp, uint32_t kMask>
uint64_t exchanged(uint64_t word) noexcept {
  const uint64_t differing = (word ^ (word >> kUp)) & twice(kMask);
  return word ^ differing ^ (differing << kUp);
}

// Each half: codes of kBits in the order of their columns, to byte j holding columns 4 i + j, i rising. Seen as a
// number of bits whose digits are a code's place, the two lowest digits go to the top; an exchange swaps two digits.
template <int kBits>
uint64_t in_unit(uint64_t word) noexcept {
  if constexpr (kBits == 4) return exchanged<4, 0x00f000f0>(exchanged<8, 0x0000ff00>(word));
  if constexpr (kBits == 2) return exchanged<12, 0x0000f0f0>(exchanged<6, 0x00cc00cc>(word));
  if constexpr (kBits == 1)
    return exchanged<1, 0x22222222>(
        exchanged<2, 0x0c0c0c0c>(exchanged<7, 0x00aa00aa>(exchanged<14, 0x0000cccc>(word))));
  return word;
}

// Fields of 2 kField bits, each from a multiple of 2 kApart on, become two of kField from multiples of kApart on.
template <int kField, int kApart>
uint64_t parted(uint64_t word) noexcept {
  uint64_t low = 0;
  for (int bit = 0; bit < 64; bit += 2 * kApart) low |= ((uint64_t(1) << kField) - 1) << bit;
  return (word & low) | (word & low << kField) << (kApart - kField);
}

// Codes 8 kEight .. 8 kEight + 7 of a step's 32, a byte each. Reads nothing beyond the step.
template <int kBits, int kEight>
uint64_t eight_bytes(const uint8_t* step) noexcept {
  constexpr int kFirst = kEight * kBits, kFrom = std::min(kFirst, 4 * kBits - 8);
  uint64_t x = word_at(step + kFrom) >> (8 * (kFirst - kFrom));
  x = parted<4 * kBits, 32>(x);
  x = parted<2 * kBits, 16>(x);
  return parted<kBits, 8>(x);
}

// A plane of kWidth bits, from bit kLow of the bytes on. fours: four columns of both rows each.
template <int kWidth, int kLow>
void store_plane(const uint64_t* fours, uint8_t* to) noexcept {
  constexpr int kPlaces = 8 / kWidth;
#pragma GCC unroll 8
  for (int unit = 0; unit < kWidth; ++unit) {
    uint64_t word = 0;
#pragma GCC unroll 8
    for (int i = 0; i < kPlaces; ++i) {
      const uint64_t mask = uint64_t((1 << kWidth) - 1) * 0x0101010101010101;
      word |= (fours[unit * kPlaces + i] >> kLow & mask) << (i * kWidth);
    }
    store(to + size_t(unit) * kUnit, word);
  }
}

template <int kBits, int kEight = 0>
void load_fours(const uint8_t* a, const uint8_t* b, uint64_t* fours) noexcept {
  if constexpr (kEight < 4) {
    const uint64_t first = eight_bytes<kBits, kEight>(a), second = eight_bytes<kBits, kEight>(b);
    fours[2 * kEight] = (first & 0xffffffff) | second << 32;
    fours[2 * kEight + 1] = first >> 32 | (second >> 32 << 32);
    load_fours<kBits, kEight + 1>(a, b, fours);
  }
}

// A step of two rows.
template <int kBits>
void pack_step(const uint8_t* a, const uint8_t* b, uint8_t* to) noexcept {
  if constexpr (kBits == 1) {
    uint32_t first, second;
    std::memcpy(&first, a, 4), std::memcpy(&second, b, 4);
    store(to, in_unit<1>(first | uint64_t(second) << 32));
  } else if constexpr (std::has_single_bit(unsigned(kBits))) {
#pragma GCC unroll 4
    for (int i = 0; i < kBits / 2; ++i) {
      const uint64_t first = word_at(a + 8 * i), second = word_at(b + 8 * i);
      store(to + size_t(2 * i) * kUnit, in_unit<kBits>((first & 0xffffffff) | second << 32));
      store(to + size_t(2 * i + 1) * kUnit, in_unit<kBits>(first >> 32 | (second >> 32 << 32)));
    }
  } else {
    constexpr int kLow = kBits == 3 ? 2 : 4, kHigh = kBits - kLow;
    uint64_t fours[8];
    load_fours<kBits>(a, b, fours);
    store_plane<kLow, 0>(fours, to);
    store_plane<kHigh, kLow>(fours, to + kLow * kUnit);
  }
}

template <int kBits>
void pack_steps(const uint8_t* a, const uint8_t* b, size_t steps, uint8_t* to) noexcept {
  for (; steps; --steps, a += 4 * kBits, b += 4 * kBits, to += kBits * kUnit) pack_step<kBits>(a, b, to);
}

using PackSteps = void (*)(const uint8_t*, const uint8_t*, size_t, uint8_t*) noexcept;
constexpr PackSteps kPackSteps[] = {pack_steps<1>, pack_steps<2>, pack_steps<3>, pack_steps<4>,
                                    pack_steps<5>, pack_steps<6>, nullptr,       pack_steps<8>};

// A byte's five trits as codes of two bits.
constexpr std::array<uint16_t, 256> kFiveCodes = [] {
  std::array<uint16_t, 256> codes{};
  for (size_t byte = 0; byte < 256; ++byte)
    for (size_t i = 0, rest = byte; i < formats::kTritsAByte; ++i, rest /= 3)
      codes[byte] = uint16_t(codes[byte] | rest % 3 << (2 * i));
  return codes;
}();

// out: 8 bytes more than the codes have.
void two_bits_of_trits(const uint8_t* from, size_t bytes, uint8_t* out) noexcept {
  for (; bytes >= 4; bytes -= 4, from += 4, out += 5)
    store(out, uint64_t(kFiveCodes[from[0]]) | uint64_t(kFiveCodes[from[1]]) << 10 |
                   uint64_t(kFiveCodes[from[2]]) << 20 | uint64_t(kFiveCodes[from[3]]) << 30);
  uint64_t word = 0;
  for (size_t i = 0; i < bytes; ++i) word |= uint64_t(kFiveCodes[from[i]]) << (10 * i);
  store(out, word);
}

// Whole steps of a piece from a row's column `first` on, where they lie or in `room`.
const uint8_t* piece_at(const Grid& grid, size_t row, size_t first, size_t steps, uint8_t* room) noexcept {
  const uint8_t* const codes = grid.codes + row * grid.row_bytes;
  if (!grid.trits) return codes + first / 8 * size_t(grid.bits);
  two_bits_of_trits(codes + first / formats::kTritsAByte,
                    (steps * kStepColumns + formats::kTritsAByte - 1) / formats::kTritsAByte, room);
  return room;
}

// The last columns, which are no whole step.
void last_step(const Grid& grid, size_t row, size_t first, uint8_t* out) noexcept {
  uint8_t codes[kStepColumns] = {};
  grid.unpack(row, first, grid.columns - first, codes);
  formats::pack_codes(codes, {grid.bits, false}, kStepColumns, out);
}

// number(row, group) of the rows that are there.
template <class T, class Number>
void transpose(size_t rows, size_t groups, size_t present, uint8_t* out, const Number& number) noexcept {
  if (rows < kTileRows || present < groups) std::memset(out, 0, groups * kTileRows * sizeof(T));
  for (size_t g = 0; g < present; ++g, out += kTileRows * sizeof(T))
    for (size_t r = 0; r < rows; ++r) store<T>(out + r * sizeof(T), number(r, g));
}

template <class T>
void transpose_stored(const GroupNumbers& numbers, size_t first_row, size_t rows, size_t groups, size_t present,
                      uint8_t* out) noexcept {
  const uint8_t* const from = numbers.data + first_row * numbers.row_stride * sizeof(T);
  transpose<T>(rows, groups, present, out, [&](size_t r, size_t g) {
    T value;
    std::memcpy(&value, from + (r * numbers.row_stride + g) * sizeof(T), sizeof(T));
    return value;
  });
}

}  // namespace

void pack_codes(const Grid& grid, size_t first_row, uint8_t* out) noexcept {
  const PackSteps pack_steps_of = kPackSteps[grid.bits - 1];
  const size_t rows = std::min(kTileRows, grid.rows - first_row), whole = grid.columns / kStepColumns * kStepColumns;
  const size_t step_bytes = size_t(grid.bits) * kUnit;
  static constexpr uint8_t kNoRow[kPieceColumns] = {};
  uint8_t room[2][kPieceColumns / 4 + 8];
  for (size_t column = 0; column < whole; column += kPieceColumns) {
    const size_t steps = std::min(kPieceColumns, whole - column) / kStepColumns;
    for (size_t r = 0; r < kTileRows; r += 2) {
      const uint8_t* two[2] = {kNoRow, kNoRow};
      for (size_t i = 0; i < 2 && r + i < rows; ++i) two[i] = piece_at(grid, first_row + r + i, column, steps, room[i]);
      pack_steps_of(two[0], two[1], steps, out + 8 * (r / 2));
    }
    out += steps * step_bytes;
  }
  if (whole == grid.columns) return;
  for (size_t r = 0; r < kTileRows; r += 2) {
    uint8_t two[2][kStepColumns] = {};
    for (size_t i = 0; i < 2 && r + i < rows; ++i) last_step(grid, first_row + r + i, whole, two[i]);
    pack_steps_of(two[0], two[1], 1, out + 8 * (r / 2));
  }
}

void pack_numbers(const GroupNumbers& numbers, PackedScale kind, size_t first_row, size_t rows, size_t groups,
                  size_t present, uint8_t* out) noexcept {
  if (numbers.kind == NumberKind::super) {
    // As GroupNumbers::at, but the number that groups share is read once for them.
    if (rows < kTileRows || present < groups) std::memset(out, 0, groups * kTileRows * sizeof(float));
    for (size_t r = 0; r < rows; ++r) {
      const size_t row = first_row + r;
      for (size_t g = 0; g < present;) {
        const size_t super = row * numbers.supers_row_stride + g / numbers.supers_span;
        const float shared = formats::f32_of_f16(load_le<uint16_t>(numbers.supers + 2 * super));
        for (const size_t end = std::min(present, (g / numbers.supers_span + 1) * numbers.supers_span); g < end; ++g) {
          const float own = float(numbers.data[row * numbers.row_stride + g]);
          store(out + (g * kTileRows + r) * sizeof(float), shared * own * numbers.factor);
        }
      }
    }
  } else if (numbers.kind == NumberKind::e4m3) {
    static const auto kBf16 = [] {
      std::array<uint16_t, 256> values{};
      for (size_t code = 0; code < 256; ++code)
        values[code] = formats::bf16_of_f32(formats::kE4M3.value(uint8_t(code)));
      return values;
    }();
    const uint8_t* const from = numbers.data + first_row * numbers.row_stride;
    transpose<uint16_t>(rows, groups, present, out,
                        [&](size_t r, size_t g) { return kBf16[from[r * numbers.row_stride + g]]; });
  } else if (kind == PackedScale::f32) {
    transpose_stored<uint32_t>(numbers, first_row, rows, groups, present, out);
  } else if (kind == PackedScale::e8m0) {
    transpose_stored<uint8_t>(numbers, first_row, rows, groups, present, out);
  } else {
    transpose_stored<uint16_t>(numbers, first_row, rows, groups, present, out);
  }
}

void pack_zeros(const GroupNumbers& numbers, size_t first_row, size_t rows, size_t groups, size_t present,
                uint8_t* out) noexcept {
  transpose_stored<uint8_t>(numbers, first_row, rows, groups, present, out);
}

}  // namespace tersor::gemm
