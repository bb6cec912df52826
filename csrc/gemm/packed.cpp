#include "gemm/packed.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/bits.h"
#include "core/pool.h"
#include "formats/small_float.h"
#include "gemm/layout.h"
#include "gemm/pack.h"

namespace tersor::gemm {
namespace {

using formats::Grid;
using formats::NumberKind;

constexpr const char* kWhat = kPackedWhat;
constexpr uint32_t kMagic = 0x4d525354, kVersion = 1;  // "TSRM"
constexpr uint64_t kAlign = kSectionAlign, kMostRows = uint64_t(1) << 32, kMostColumns = uint64_t(1) << 24;

bool known_group(uint64_t group) noexcept {
  return group == 0 || (std::has_single_bit(group) && group >= 16 && group <= kPanelColumns);
}

uint64_t tables_bytes(const PackedHead& head, const Layout& layout) {
  switch (head.family) {
    case Family::tables:
      return checked_mul(checked_mul(layout.tiles * kTileRows, layout.row_tables, kWhat),
                         (uint64_t(1) << head.bits) * sizeof(float), kWhat);
    case Family::vectors: return VectorTables(head).bytes;
    case Family::sparse:
      return sizeof(Tables) + (checked_mul(layout.tiles, layout.pieces, kWhat) + 1) * sizeof(uint64_t);
    default: return sizeof(Tables);
  }
}

// Of families whose codes do not lie by tiles.
uint64_t codes_bytes(const PackedHead& head, const Layout& layout) {
  if (head.family == Family::sparse) return checked_add(head.kept_bytes, kKeptSlack, kWhat);
  const uint64_t record = uint64_t(head.stages) * kPairRows * (head.bits > 8 ? 2 : 1);
  return checked_mul(ceil_div(layout.tiles, 2) * record, layout.vectors, kWhat);
}

}  // namespace

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

VectorTables::VectorTables(const PackedHead& head) noexcept {
  const uint64_t entries = uint64_t(head.stages) << head.bits;
  looked_up = head.dimension == 8 && head.bits == 8;
  words = 0;
  floats = rounded_up(words + entries * kWordBytes, kAlign);
  planes = floats + entries * 8 * sizeof(float);
  fours = planes + (looked_up ? entries * kWordBytes : 0);
  bytes = fours + (looked_up ? entries * kWordBytes : 0);
}

Layout::Layout(const PackedHead& head) {
  padded_columns = rounded_up(head.columns, kStepColumns);
  tiles = ceil_div(head.rows, kTileRows);
  groups = head.group ? ceil_div(padded_columns, head.group) : 1;
  pieces = ceil_div(padded_columns, kPieceColumns);
  vectors = ceil_div(head.columns, std::max<uint64_t>(1, head.dimension));
  row_tables = head.tables_a_group ? groups : 1;
  tables = rounded_up(sizeof(PackedHead), kAlign);
  const uint64_t tables_end = rounded_up(checked_add(tables, tables_bytes(head, *this), kWhat), kAlign);
  // At most 2^24 columns: what a tile has needs no check.
  const uint64_t numbers = kTileRows * groups, size = bytes_of(head.scale_kind);
  const uint64_t zeros_in = numbers * size, minimums_in = zeros_in + (head.has_zeros ? numbers : 0);
  number_bytes = rounded_up(minimums_in + (head.has_minimums ? numbers * size : 0), kAlign);
  if (head.family <= Family::tables) {
    scales = tables_end, codes = scales + number_bytes;
    number_stride = code_stride = number_bytes + padded_columns * kTileRows / 8 * head.bits;
  } else {
    codes = tables_end, scales = rounded_up(checked_add(codes, codes_bytes(head, *this), kWhat), kAlign);
    number_stride = number_bytes, code_stride = 0;
  }
  zeros = scales + zeros_in, minimums = scales + minimums_in;
  bytes = checked_add(scales, checked_mul(tiles, number_stride, kWhat), kWhat);
}

uint8_t* Layout::numbers(std::span<uint8_t> out, uint64_t section, size_t tile) const noexcept {
  uint8_t* const first = out.data() + scales + tile * number_stride;
  if (section == scales) std::memset(first + number_bytes - kAlign, 0, kAlign);
  return first + (section - scales);
}

void Layout::begin(PackedHead& head, std::span<uint8_t> out) const {
  TERSOR_REQUIRE(out.size() == bytes, Code::bad_call, kWhat, ": ", bytes, " bytes of room, not ", out.size());
  head.bytes = bytes;
  std::memset(out.data(), 0, size_t(codes));
  std::memcpy(out.data(), &head, sizeof head);
}

PackedHead head_of(Family family, size_t rows, size_t columns, size_t group) {
  PackedHead head{};
  head.magic = kMagic, head.version = kVersion, head.family = family;
  head.rows = rows, head.columns = columns, head.factor = 1;
  TERSOR_REQUIRE(rows >= 1 && rows <= kMostRows && columns >= 1 && columns <= kMostColumns, Code::bad_call, kWhat,
                 ": [", rows, ", ", columns, "], 1..2^32 rows of 1..2^24 columns");
  head.group = group >= columns ? 0 : group;
  TERSOR_REQUIRE(known_group(head.group), Code::bad_call, kWhat, ": groups of ", group,
                 " columns, a power of two from 16 to 512 or whole rows are needed");
  return head;
}

namespace {

PackedHead head_of(const Grid& grid) {
  const bool one_table = grid.level_row_stride == 0 && grid.level_group_stride == 0;
  PackedHead head = gemm::head_of(one_table ? Family::grid : Family::tables, grid.rows, grid.columns, grid.group);
  head.bits = uint8_t(grid.bits);
  head.tables_a_group = grid.level_group_stride != 0 && head.group != 0;
  head.scale_kind = packed_kind(grid.scales.kind);
  head.has_zeros = grid.zeros.kind != NumberKind::none;
  head.has_minimums = grid.minimums.kind != NumberKind::none;
  TERSOR_REQUIRE(!head.has_minimums || (packed_kind(grid.minimums.kind) == head.scale_kind && grid.step == 1),
                 Code::bad_call, kWhat, ": minimums of the scales' kind and a step of 1 are needed");
  head.has_integers = one_table && grid.step != 0;
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
  bool linear = true, odd = codes == 256;
  levels.from = -exact[0];
  for (size_t i = 0; i < codes; ++i) linear &= exact[i] == float(i) - levels.from;
  for (size_t i = 0; i < 128; ++i)
    odd &= levels.low[i] == levels.low[i + 128] && (levels.high[i] | 0x80) == levels.high[i + 128];
  levels.linear = linear, levels.odd = odd;
}

}  // namespace

void fill_tables(uint8_t* at, const uint8_t* integers, const float* levels, size_t codes, int bits) noexcept {
  Tables tables{};
  std::copy_n(integers, codes, tables.integers);
  fill(tables.levels, levels, codes, bits);
  std::memcpy(at, &tables, sizeof tables);
}

namespace {

// Tables of a tile's rows: [table][32][2^bits].
void fill_row_tables(const Grid& grid, size_t first, size_t rows, size_t tables, float* out) noexcept {
  const size_t codes = size_t(1) << grid.bits, present = grid.level_group_stride ? grid.groups() : 1;
  std::fill_n(out, tables * kTileRows * codes, 0.0f);
  for (size_t t = 0; t < std::min(tables, present); ++t)
    for (size_t r = 0; r < rows; ++r)
      std::copy_n(grid.levels + (first + r) * grid.level_row_stride + t * grid.level_group_stride,
                  grid.trits ? 3 : codes, out + (t * kTileRows + r) * codes);
}

Vectors vectors_of(const PackedHead& head, const Layout& layout, const uint8_t* tables, const uint8_t* codes) noexcept {
  const VectorTables at(head);
  Vectors found{};
  found.dimension = head.dimension, found.stages = head.stages, found.code_bytes = head.bits > 8 ? 2 : 1;
  found.entries = size_t(1) << head.bits;
  found.count = size_t(layout.vectors), found.pairs = size_t(ceil_div(layout.tiles, 2));
  found.words = reinterpret_cast<const uint64_t*>(tables + at.words);
  found.floats = reinterpret_cast<const float*>(tables + at.floats);
  found.planes = at.looked_up ? tables + at.planes : nullptr;
  found.fours = at.looked_up ? reinterpret_cast<const uint32_t*>(tables + at.fours) : nullptr;
  found.codes = codes;
  return found;
}

Kept kept_of(const PackedHead& head, const Layout& layout, const uint8_t* tables, const uint8_t* codes) {
  Kept kept{};
  kept.bits = head.bits, kept.center = head.center;
  kept.number_kind = head.number_kind, kept.number_bytes = bytes_of(head.number_kind);
  kept.starts = reinterpret_cast<const uint64_t*>(tables + sizeof(Tables));
  kept.pieces = size_t(layout.pieces);
  kept.codes = codes, kept.end = codes + head.kept_bytes;
  uint64_t before = 0;
  for (uint64_t tile = 0; tile <= layout.tiles; ++tile) {
    const uint64_t start = kept.starts[tile * layout.pieces];
    TERSOR_REQUIRE(start >= before && start <= head.kept_bytes, Code::bad_data, kWhat, ": tile ", tile, " begins at ",
                   start, " behind ", before, " of ", head.kept_bytes, " bytes");
    before = start;
  }
  return kept;
}

// What must hold beside sizes, so that nothing is read outside the blob.
void check_head(const PackedHead& head) {
  const int bits = head.bits;
  const bool grid = head.family <= Family::tables, vectors = head.family == Family::vectors;
  TERSOR_REQUIRE(head.family <= Family::sparse, Code::bad_data, kWhat, ": of family ", int(head.family));
  TERSOR_REQUIRE(grid      ? (bits >= 1 && bits <= 6) || bits == 8
                 : vectors ? bits >= 1 && bits <= kMostVectorBits
                           : bits == 0 || bits == 4 || bits == 8,
                 Code::bad_data, kWhat, ": codes of ", bits, " bits");
  TERSOR_REQUIRE(head.rows >= 1 && head.rows <= kMostRows && head.columns >= 1 && head.columns <= kMostColumns,
                 Code::bad_data, kWhat, ": [", head.rows, ", ", head.columns, "]");
  TERSOR_REQUIRE(known_group(head.group) && (head.group == 0 || !vectors), Code::bad_data, kWhat, ": groups of ",
                 head.group, " columns");
  TERSOR_REQUIRE(head.scale_kind <= PackedScale::e8m0 && head.number_kind <= PackedScale::bf16 && head.center < 256,
                 Code::bad_data, kWhat, ": scales of kind ", int(head.scale_kind), ", numbers of kind ",
                 int(head.number_kind), ", center ", head.center);
  TERSOR_REQUIRE(!vectors || (head.dimension >= formats::kLeastDimension && head.dimension <= formats::kMostDimension &&
                              head.stages >= 1 && head.stages <= formats::kMostStages),
                 Code::bad_data, kWhat, ": ", int(head.stages), " stages of vectors of ", int(head.dimension));
  TERSOR_REQUIRE(!head.tables_a_group || (head.family == Family::tables && head.group != 0), Code::bad_data, kWhat,
                 ": tables a group where there are no groups");
  TERSOR_REQUIRE(!head.has_integers || !(head.family == Family::tables || (!grid && bits == 0)), Code::bad_data, kWhat,
                 ": integers of levels that have none");
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
  check_head(head);
  const Layout layout(head);
  TERSOR_REQUIRE(layout.bytes == head.bytes && head.bytes <= data.size(), Code::bad_data, kWhat, ": ", data.size(),
                 " bytes, the head says ", head.bytes, " and asks for ", layout.bytes);
  const uint8_t* const at = data.data();
  const uint8_t* const tables = at + layout.tables;
  packed.tables = reinterpret_cast<const Tables*>(tables), packed.row_tables = reinterpret_cast<const float*>(tables);
  packed.codes = at + layout.codes, packed.scales = at + layout.scales;
  packed.zeros = head.has_zeros ? at + layout.zeros : nullptr;
  packed.minimums = head.has_minimums ? at + layout.minimums : nullptr;
  packed.code_stride = size_t(layout.code_stride), packed.number_stride = size_t(layout.number_stride);
  packed.padded_columns = size_t(layout.padded_columns), packed.tiles = size_t(layout.tiles);
  packed.groups = size_t(layout.groups);
  packed.extras = Extras::parse(data.subspan(size_t(head.bytes)), size_t(head.rows), size_t(head.columns));
  if (head.family == Family::vectors) packed.vectors = vectors_of(head, layout, tables, packed.codes);
  if (head.family == Family::sparse) packed.kept = kept_of(head, layout, tables, packed.codes);
  return packed;
}

uint64_t packed_bytes(const Grid& grid) { return Layout(head_of(grid)).bytes; }

void pack(const Grid& grid, std::span<uint8_t> out, int threads) {
  PackedHead head = head_of(grid);
  const Layout layout(head);
  layout.begin(head, out);
  if (head.family == Family::grid) {
    const size_t codes = grid.trits ? 3 : size_t(1) << grid.bits;
    fill_tables(out.data() + layout.tables, grid.integers.data(), grid.levels, codes, head.bits);
  }
  const size_t groups = size_t(layout.groups), present = std::min(groups, grid.groups());
  const size_t tables = size_t(layout.row_tables);
  parallel_for(size_t(layout.tiles), 1, threads, [&](size_t begin, size_t end) {
    for (size_t tile = begin; tile < end; ++tile) {
      const size_t first = tile * kTileRows, rows = std::min(kTileRows, grid.rows - first);
      if (head.family == Family::tables) {
        uint8_t* const at = out.data() + layout.tables + tile * tables * kTileRows * (size_t(4) << head.bits);
        fill_row_tables(grid, first, rows, tables, reinterpret_cast<float*>(at));
      }
      pack_codes(grid, first, out.data() + layout.codes + tile * size_t(layout.code_stride));
      const auto numbers = [&](uint64_t section) { return layout.numbers(out, section, tile); };
      pack_numbers(grid.scales, head.scale_kind, first, rows, groups, present, numbers(layout.scales));
      if (head.has_zeros) pack_zeros(grid.zeros, first, rows, groups, present, numbers(layout.zeros));
      if (head.has_minimums)
        pack_numbers(grid.minimums, head.scale_kind, first, rows, groups, present, numbers(layout.minimums));
    }
  });
}

}  // namespace tersor::gemm
