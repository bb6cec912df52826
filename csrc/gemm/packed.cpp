#include "gemm/packed.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/bits.h"
#include "core/pool.h"
#include "formats/small_float.h"
#include "gemm/pack.h"

namespace tersor::gemm {
namespace {

using formats::Grid;
using formats::NumberKind;

constexpr const char* kWhat = "packed matrix";
constexpr uint32_t kMagic = 0x4d525354, kVersion = 1;  // "TSRM"
constexpr uint64_t kAlign = 64, kMostRows = uint64_t(1) << 32, kMostColumns = uint64_t(1) << 24;

constexpr uint64_t rounded_up(uint64_t value, uint64_t to) noexcept { return (value + to - 1) / to * to; }

bool known_group(uint64_t group) noexcept {
  return group == 0 || (std::has_single_bit(group) && group >= 16 && group <= kPanelColumns);
}

size_t bytes_of(PackedScale kind) noexcept { return kind == PackedScale::f32 ? 4 : kind == PackedScale::e8m0 ? 1 : 2; }

// Scales as they are stored where kernels read them so; fp8 becomes bf16, which holds it, two levels become one float.
PackedScale packed_kind(NumberKind kind) {
  switch (kind) {
    case NumberKind::f16: return PackedScale::f16;
    case NumberKind::bf16:
    case NumberKind::e4m3: return PackedScale::bf16;
    case NumberKind::e8m0: return PackedScale::e8m0;
    case NumberKind::f32:
    case NumberKind::super: return PackedScale::f32;
    default: fail(Code::bad_call, kWhat, ": scales are needed, the grid has none");
  }
}

// Offsets of the sections and what follows from the head. The head's numbers are in their ranges.
struct Layout {
  uint64_t tables, codes, scales, zeros, minimums, bytes;
  uint64_t padded_columns, tiles, groups;

  explicit Layout(const PackedHead& head) {
    padded_columns = rounded_up(head.columns, kStepColumns);
    tiles = ceil_div(head.rows, kTileRows);
    groups = head.group ? ceil_div(padded_columns, head.group) : 1;
    const uint64_t numbers = checked_mul(tiles * kTileRows, groups, kWhat), size = bytes_of(head.scale_kind);
    tables = rounded_up(sizeof(PackedHead), kAlign);
    codes = rounded_up(tables + sizeof(Tables), kAlign);
    scales = checked_add(codes, checked_mul(tiles * kTileRows / 8 * head.bits, padded_columns, kWhat), kWhat);
    zeros = rounded_up(checked_add(scales, checked_mul(numbers, size, kWhat), kWhat), kAlign);
    minimums = rounded_up(zeros + (head.has_zeros ? numbers : 0), kAlign);
    bytes = rounded_up(checked_add(minimums, head.has_minimums ? numbers * size : 0, kWhat), kAlign);
  }
};

PackedHead head_of(const Grid& grid) {
  PackedHead head{};
  head.magic = kMagic, head.version = kVersion;
  head.bits = uint8_t(grid.bits);
  head.rows = grid.rows, head.columns = grid.columns;
  TERSOR_REQUIRE(grid.rows >= 1 && grid.rows <= kMostRows && grid.columns >= 1 && grid.columns <= kMostColumns,
                 Code::bad_call, kWhat, ": [", grid.rows, ", ", grid.columns, "], 1..2^32 rows of 1..2^24 columns");
  TERSOR_REQUIRE(grid.level_row_stride == 0 && grid.level_group_stride == 0, Code::bad_call, kWhat,
                 ": one table of levels is needed, found one a ", grid.level_group_stride ? "group" : "row");
  head.group = grid.group >= grid.columns ? 0 : grid.group;
  TERSOR_REQUIRE(known_group(head.group), Code::bad_call, kWhat, ": groups of ", grid.group,
                 " columns, a power of two from 16 to 512 or whole rows are needed");
  head.scale_kind = packed_kind(grid.scales.kind);
  head.has_zeros = grid.zeros.kind != NumberKind::none;
  head.has_minimums = grid.minimums.kind != NumberKind::none;
  TERSOR_REQUIRE(!head.has_minimums || (packed_kind(grid.minimums.kind) == head.scale_kind && grid.step == 1),
                 Code::bad_call, kWhat, ": minimums of the scales' kind and a step of 1 are needed");
  head.has_integers = grid.step != 0;
  head.center = uint16_t(head.has_integers ? grid.center : 0);
  head.step = head.has_integers ? grid.step : 0;
  head.factor = grid.scales.kind == NumberKind::e4m3 ? grid.scales.factor : 1;
  const int codes = grid.trits ? 3 : 1 << grid.bits;
  for (int code = 0; head.has_integers && code < codes; ++code)
    head.looked_up |= uint8_t(grid.integers[size_t(code)] != code);
  return head;
}

void fill(Levels& levels, const float* exact, size_t codes, int bits) noexcept {
  std::copy_n(exact, codes, levels.exact);
  const size_t repeats = size_t(1) << bits;
  for (size_t i = 0; i < std::size(levels.rounded); ++i)
    levels.rounded[i] = formats::bf16_of_f32(levels.exact[i % repeats]);
  for (size_t i = 0; i < std::size(levels.low); ++i) {
    const uint16_t rounded = formats::bf16_of_f32(levels.exact[i]);
    levels.low[i] = uint8_t(rounded), levels.high[i] = uint8_t(rounded >> 8);
  }
}

}  // namespace

float number_at(PackedScale kind, const uint8_t* at, size_t row) noexcept {
  uint16_t half;
  float whole;
  switch (kind) {
    case PackedScale::f16: std::memcpy(&half, at + 2 * row, 2); return formats::f32_of_f16(half);
    case PackedScale::bf16: std::memcpy(&half, at + 2 * row, 2); return formats::f32_of_bf16(half);
    case PackedScale::e8m0: return formats::f32_of_e8m0(at[row]);
    default: std::memcpy(&whole, at + 4 * row, 4); return whole;
  }
}

size_t Packed::number_bytes() const noexcept { return bytes_of(head.scale_kind); }

Packed Packed::parse(std::span<const uint8_t> data) {
  TERSOR_REQUIRE(reinterpret_cast<uintptr_t>(data.data()) % kAlign == 0, Code::bad_call, kWhat, ": begins ",
                 reinterpret_cast<uintptr_t>(data.data()) % kAlign, " bytes behind a multiple of 64");
  TERSOR_REQUIRE(data.size() >= sizeof(PackedHead), Code::bad_data, kWhat, ": ", data.size(), " bytes, a head has ",
                 sizeof(PackedHead));
  Packed packed{};
  PackedHead& head = packed.head;
  std::memcpy(&head, data.data(), sizeof head);
  TERSOR_REQUIRE(head.magic == kMagic && head.version == kVersion, Code::bad_data, kWhat, ": begins with ", head.magic,
                 " and ", head.version, ", ", kMagic, " and ", kVersion, " are needed");
  const int bits = head.bits;
  TERSOR_REQUIRE((bits >= 1 && bits <= 6) || bits == 8, Code::bad_data, kWhat, ": codes of ", bits, " bits");
  TERSOR_REQUIRE(head.rows >= 1 && head.rows <= kMostRows && head.columns >= 1 && head.columns <= kMostColumns,
                 Code::bad_data, kWhat, ": [", head.rows, ", ", head.columns, "]");
  TERSOR_REQUIRE(known_group(head.group), Code::bad_data, kWhat, ": groups of ", head.group, " columns");
  TERSOR_REQUIRE(head.scale_kind <= PackedScale::e8m0 && head.center < 256, Code::bad_data, kWhat, ": scales of kind ",
                 int(head.scale_kind), ", center ", head.center);
  const Layout layout(head);
  TERSOR_REQUIRE(layout.bytes == head.bytes && head.bytes <= data.size(), Code::bad_data, kWhat, ": ", data.size(),
                 " bytes, the head says ", head.bytes, " and asks for ", layout.bytes);
  const uint8_t* const at = data.data();
  packed.tables = reinterpret_cast<const Tables*>(at + layout.tables);
  packed.codes = at + layout.codes, packed.scales = at + layout.scales;
  packed.zeros = head.has_zeros ? at + layout.zeros : nullptr;
  packed.minimums = head.has_minimums ? at + layout.minimums : nullptr;
  packed.padded_columns = size_t(layout.padded_columns), packed.tiles = size_t(layout.tiles);
  packed.groups = size_t(layout.groups);
  packed.extras = Extras::parse(data.subspan(size_t(head.bytes)), size_t(head.rows), size_t(head.columns));
  return packed;
}

uint64_t packed_bytes(const Grid& grid) { return Layout(head_of(grid)).bytes; }

void pack(const Grid& grid, std::span<uint8_t> out, int threads) {
  PackedHead head = head_of(grid);
  const Layout layout(head);
  TERSOR_REQUIRE(out.size() == layout.bytes, Code::bad_call, kWhat, ": ", layout.bytes, " bytes of room, not ",
                 out.size());
  head.bytes = layout.bytes;
  std::memset(out.data(), 0, size_t(layout.codes));
  std::memcpy(out.data(), &head, sizeof head);
  Tables tables{};
  const size_t codes = grid.trits ? 3 : size_t(1) << grid.bits;
  std::copy_n(grid.integers.begin(), codes, tables.integers);
  fill(tables.levels, grid.levels, codes, head.bits);
  std::memcpy(out.data() + layout.tables, &tables, sizeof tables);
  const size_t tile_bytes = size_t(layout.padded_columns) * kTileRows / 8 * head.bits;
  const size_t groups = size_t(layout.groups), present = std::min(groups, grid.groups());
  const size_t numbers = groups * kTileRows, size = bytes_of(head.scale_kind);
  parallel_for(size_t(layout.tiles), 1, threads, [&](size_t begin, size_t end) {
    for (size_t tile = begin; tile < end; ++tile) {
      const size_t first = tile * kTileRows, rows = std::min(kTileRows, grid.rows - first);
      const auto at = [&](uint64_t section, size_t bytes) { return out.data() + section + tile * bytes; };
      pack_codes(grid, first, at(layout.codes, tile_bytes));
      pack_numbers(grid.scales, head.scale_kind, first, rows, groups, present, at(layout.scales, numbers * size));
      if (head.has_zeros) pack_zeros(grid.zeros, first, rows, groups, present, at(layout.zeros, numbers));
      if (head.has_minimums)
        pack_numbers(grid.minimums, head.scale_kind, first, rows, groups, present, at(layout.minimums, numbers * size));
    }
  });
}

}  // namespace tersor::gemm
