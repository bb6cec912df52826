#include "formats/codebook.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/pool.h"
#include "formats/code_rows.h"
#include "formats/small_float.h"

namespace tersor::formats {
namespace {

// A code lies in at most three bytes.
uint16_t wide_code_at(const uint8_t* row, int bits, size_t i) noexcept {
  const size_t bit = i * size_t(bits), first = bit / 8, last = (bit + size_t(bits) - 1) / 8;
  uint32_t window = row[first];
  if (last > first) window |= uint32_t(row[first + 1]) << 8;
  if (last > first + 1) window |= uint32_t(row[first + 2]) << 16;
  return uint16_t(window >> bit % 8 & ((1u << bits) - 1));
}

void unpack_wide(const uint8_t* row, int bits, size_t first, size_t count, uint16_t* out) noexcept {
  if (bits == 8) {
    std::copy_n(row + first, count, out);
    return;
  }
  for (size_t i = 0; i < count; ++i) out[i] = wide_code_at(row, bits, first + i);
}

void pack_wide(const uint16_t* codes, int bits, size_t count, uint8_t* row) noexcept {
  uint32_t held = 0;
  int held_bits = 0;
  for (size_t i = 0; i < count; ++i) {
    held |= uint32_t(codes[i]) << held_bits;
    for (held_bits += bits; held_bits >= 8; held_bits -= 8, held >>= 8) *row++ = uint8_t(held);
  }
  if (held_bits) *row = uint8_t(held);
}

size_t wide_row_bytes(size_t count, int bits) {
  return size_t(ceil_div(checked_mul(count, uint64_t(bits), "codes"), 8));
}

size_t grain_of(size_t count) noexcept { return std::max<size_t>(1, (size_t(1) << 15) / std::max<size_t>(1, count)); }

float number_at(const uint8_t* data, NumberKind kind, size_t i) noexcept {
  return kind == NumberKind::f32 ? load_le<float>(data + 4 * i) : f32_of_f16(load_le<uint16_t>(data + 2 * i));
}

// The nearest integers to an only table's levels, at steps of a 127th of the largest.
void set_integers(Grid& grid, std::span<const float> levels) noexcept {
  float most = 0;
  for (const float level : levels) most = std::max(most, std::fabs(level));
  grid.center = 127, grid.step = most / 127, grid.integers_exact = false;
  if (!(grid.step >= 0x1p-100f)) grid.step = 0;  // no integers
  for (size_t i = 0; i < levels.size(); ++i)
    grid.integers[i] = uint8_t(127 + (grid.step > 0 ? int(std::nearbyint(levels[i] / grid.step)) : 0));
}

void check_codes_below(const Grid& grid, size_t limit, int threads) {
  parallel_for(grid.rows, grain_of(grid.columns), threads, [&](size_t begin, size_t end) {
    uint8_t some[512];
    for (size_t row = begin; row < end; ++row)
      for (size_t first = 0; first < grid.columns; first += sizeof some) {
        const size_t count = std::min(sizeof some, grid.columns - first);
        grid.unpack(row, first, count, some);
        const uint8_t most = *std::max_element(some, some + count);
        TERSOR_REQUIRE(most < limit, Code::bad_data, "codes: row ", row, " holds ", int(most), ", the codebook has ",
                       limit, " levels");
      }
  });
}

}  // namespace

// ---- vectors
// -------------------------------------------------------------------------------------------------------------

void VectorCodes::unpack(int stage, size_t n, size_t first, size_t count, uint16_t* out) const noexcept {
  unpack_wide(row(stage, n), bits, first, count, out);
}

void VectorCodes::dequantize(size_t n, size_t first, size_t count, float* out) const noexcept {
  const size_t d = size_t(dimension), stage_bytes = 2 * entries * d;
  const float scale = scales.at(n, 0);
  for (size_t done = 0; done < count;) {
    const size_t v = (first + done) / d, from = (first + done) % d, take = std::min(d - from, count - done);
    float sum[kMostDimension] = {};
    for (int s = 0; s < stages; ++s) {
      const size_t code = wide_code_at(row(s, n), bits, v);
      const uint8_t* const entry = codebook + size_t(s) * stage_bytes + 2 * (code * d + from);
      for (size_t i = 0; i < take; ++i) sum[i] += f32_of_f16(load_le<uint16_t>(entry + 2 * i));
    }
    for (size_t i = 0; i < take; ++i) out[done + i] = scale * sum[i];
    done += take;
  }
}

void check(const VectorCodebook& format) {
  TERSOR_REQUIRE(format.dimension >= kLeastDimension && format.dimension <= kMostDimension, Code::bad_call,
                 "a vector has ", kLeastDimension, "..", kMostDimension, " columns, not ", format.dimension);
  TERSOR_REQUIRE(format.stages >= 1 && format.stages <= kMostStages, Code::bad_call, "1..", kMostStages,
                 " stages are possible, not ", format.stages);
  TERSOR_REQUIRE(format.entries >= 2 && format.entries <= kMostEntries, Code::bad_call, "a stage has 2..", kMostEntries,
                 " entries, not ", format.entries);
}

std::vector<PartNeed> parts_of(const VectorCodebook& format, size_t rows, size_t columns) {
  check(format), require_shape(rows, columns);
  const size_t vectors = size_t(ceil_div(columns, size_t(format.dimension)));
  return {{"codes", DType::U8, {uint64_t(format.stages), rows, wide_row_bytes(vectors, format.bits())}},
          {"codebook", DType::F16, {uint64_t(format.stages), format.entries, uint64_t(format.dimension)}},
          {"scales", DType::F16, {rows, 1}}};
}

VectorCodes vector_codes_of(const VectorCodebook& format, size_t rows, size_t columns, std::span<const Part> parts,
                            int threads) {
  const auto needs = parts_of(format, rows, columns);
  const auto data = data_of(needs, parts);
  check_finite(data[1], NumberKind::f16, "codebook");
  check_finite(data[2], NumberKind::f16, "scales");
  VectorCodes view;
  view.rows = rows, view.columns = columns, view.dimension = format.dimension, view.stages = format.stages;
  view.entries = format.entries, view.bits = format.bits();
  view.codes = data[0].data(), view.row_bytes = size_t(needs[0].shape[2]);
  view.codebook = data[1].data();
  view.scales.kind = NumberKind::f16, view.scales.data = data[2].data(), view.scales.row_stride = 1;

  const size_t vectors = view.vectors(), tail = vectors * size_t(view.bits) % 8;
  const bool all_codes = std::has_single_bit(format.entries);
  if (all_codes && tail == 0) return view;
  parallel_for(size_t(format.stages) * rows, grain_of(vectors), threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const uint8_t* const row = view.codes + i * view.row_bytes;
      TERSOR_REQUIRE(tail == 0 || row[view.row_bytes - 1] >> tail == 0, Code::bad_data, "codes: row ", i % rows,
                     " of stage ", i / rows, " ends in the byte ", int(row[view.row_bytes - 1]),
                     ", whose unused part is not 0");
      if (all_codes) continue;
      for (size_t v = 0; v < vectors; ++v) {
        const uint16_t code = wide_code_at(row, view.bits, v);
        TERSOR_REQUIRE(code < format.entries, Code::bad_data, "codes: row ", i % rows, " of stage ", i / rows,
                       " holds ", code, ", the codebook has ", format.entries, " entries");
      }
    }
  });
  return view;
}

void pack_wide_rows(std::span<const uint16_t> codes, int bits, size_t limit, size_t rows, size_t count,
                    std::span<uint8_t> packed, int threads) {
  TERSOR_REQUIRE(bits >= 1 && bits <= kMostCodeBits && limit <= size_t(1) << bits, Code::bad_call, "codes of 1..",
                 kMostCodeBits, " bits, not ", bits, " for ", limit);
  const size_t row_bytes = wide_row_bytes(count, bits);
  TERSOR_REQUIRE(codes.size() == checked_mul(rows, count, "codes") &&
                     packed.size() == checked_mul(rows, row_bytes, "packed codes"),
                 Code::bad_data, "codes: ", codes.size(), " in ", packed.size(), " bytes for ", rows, " rows of ",
                 count);
  parallel_for(rows, grain_of(count), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const uint16_t* const from = codes.data() + row * count;
      const uint16_t most = count ? *std::max_element(from, from + count) : 0;
      TERSOR_REQUIRE(most < limit, Code::bad_data, "codes: row ", row, " holds ", most, ", below ", limit,
                     " is possible");
      pack_wide(from, bits, count, packed.data() + row * row_bytes);
    }
  });
}

void unpack_wide_rows(std::span<const uint8_t> packed, int bits, size_t rows, size_t count, std::span<uint16_t> out,
                      int threads) {
  TERSOR_REQUIRE(bits >= 1 && bits <= kMostCodeBits, Code::bad_call, "codes of 1..", kMostCodeBits, " bits, not ",
                 bits);
  const size_t row_bytes = wide_row_bytes(count, bits);
  TERSOR_REQUIRE(
      out.size() == checked_mul(rows, count, "codes") && packed.size() == checked_mul(rows, row_bytes, "packed codes"),
      Code::bad_data, "codes: ", packed.size(), " bytes for ", rows, " rows of ", count, " codes of ", bits, " bits, ",
      rows * row_bytes, " are needed");
  parallel_for(rows, grain_of(count), threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row)
      unpack_wide(packed.data() + row * row_bytes, bits, 0, count, out.data() + row * count);
  });
}

// ---- scalars
// -------------------------------------------------------------------------------------------------------------

const std::array<float, 16> kNf4 = {-1.0f,
                                    -0.6961928009986877f,
                                    -0.5250730514526367f,
                                    -0.39491748809814453f,
                                    -0.28444138169288635f,
                                    -0.18477343022823334f,
                                    -0.09105003625154495f,
                                    0.0f,
                                    0.07958029955625534f,
                                    0.16093020141124725f,
                                    0.24611230194568634f,
                                    0.33791524171829224f,
                                    0.44070982933044434f,
                                    0.5626170039176941f,
                                    0.7229568362236023f,
                                    1.0f};

int ScalarCodebook::bits() const noexcept {
  const int bits = int(std::bit_width(levels - 1));
  return bits == 7 ? 8 : bits;  // which no reader has
}

size_t ScalarCodebook::tables(size_t rows, size_t columns) const {
  switch (scope) {
    case Scope::fixed: return 0;
    case Scope::tensor: return 1;
    case Scope::channel: return rows;
    case Scope::group: return size_t(checked_mul(rows, GroupLayout(group, rows, columns).count, "tables"));
  }
  return 0;
}

void check(const ScalarCodebook& format) {
  require_group(format.group);
  TERSOR_REQUIRE(format.levels >= 4 && format.levels <= 256, Code::bad_call, "a codebook has 4..256 levels, not ",
                 format.levels);
  TERSOR_REQUIRE(format.scope != Scope::fixed || format.levels == kNf4.size(), Code::bad_call, "nf4 has ", kNf4.size(),
                 " levels, not ", format.levels);
  TERSOR_REQUIRE(format.scope != Scope::group || format.group != kTensor, Code::bad_call,
                 "a codebook a group needs a group of columns, not \"tensor\"");
  const NumberKind scale = format.scale, table = format.table;
  TERSOR_REQUIRE(
      scale == NumberKind::none || scale == NumberKind::f32 || scale == NumberKind::f16 || scale == NumberKind::bf16,
      Code::bad_call, "scales are fp32, fp16, bf16 or none, not of kind ", int(scale));
  TERSOR_REQUIRE(table == NumberKind::f32 || table == NumberKind::f16, Code::bad_call,
                 "a codebook is stored in fp32 or fp16, not kind ", int(table));
}

std::vector<PartNeed> parts_of(const ScalarCodebook& format, size_t rows, size_t columns) {
  check(format), require_shape(rows, columns);
  const GroupLayout layout(format.group, rows, columns);
  std::vector<PartNeed> needs{{"codes", DType::U8, {rows, CodeWidth{format.bits()}.row_bytes(columns)}}};
  const DType table = dtype_of(format.table);
  if (format.scope == Scope::tensor) needs.push_back({"codebook", table, {1, format.levels}});
  if (format.scope == Scope::channel) needs.push_back({"codebook", table, {rows, format.levels}});
  if (format.scope == Scope::group) needs.push_back({"codebook", table, {rows, layout.count, format.levels}});
  if (format.scale != NumberKind::none)
    needs.push_back({"scales", dtype_of(format.scale), {layout.rows, layout.count}});
  return needs;
}

Grid grid_of(const ScalarCodebook& format, size_t rows, size_t columns, std::span<const Part> parts, int threads) {
  const auto needs = parts_of(format, rows, columns);
  const auto data = data_of(needs, parts);
  const GroupLayout layout(format.group, rows, columns);
  const size_t tables = format.tables(rows, columns), codes = format.width().codes();
  Grid grid;
  grid.rows = rows, grid.columns = columns, grid.bits = format.bits(), grid.group = layout.group;
  grid.levels_used = size_t(format.levels);
  grid.codes = data[0].data(), grid.row_bytes = size_t(needs[0].shape[1]);
  check_codes(data[0], format.width(), rows, columns, nullptr, threads);
  if (format.levels < codes) check_codes_below(grid, format.levels, threads);
  if (tables) check_finite(data[1], format.table, "codebook");
  if (format.scale != NumberKind::none) check_finite(data.back(), format.scale, "scales");

  // Tables first: codes that no weight has stand for 0. Behind them the scales where there are none.
  std::vector<float> held(std::max<size_t>(1, tables) * codes);
  if (tables == 0) std::copy(kNf4.begin(), kNf4.end(), held.begin());
  for (size_t t = 0; t < tables; ++t)
    for (size_t i = 0; i < format.levels; ++i)
      held[t * codes + i] = number_at(data[1].data(), format.table, t * format.levels + i);
  const bool one_table = format.scope == Scope::fixed || format.scope == Scope::tensor;
  if (one_table) set_integers(grid, held);
  if (!one_table) grid.step = 0;
  grid.level_group_stride = format.scope == Scope::group ? codes : 0;
  grid.level_row_stride = one_table ? 0 : format.scope == Scope::group ? codes * layout.count : codes;
  const size_t ones = held.size();
  if (format.scale == NumberKind::none) held.resize(ones + layout.count, 1.0f);
  grid.held = std::make_shared<const std::vector<float>>(std::move(held));
  grid.levels = grid.held->data();
  grid.scales.kind = format.scale, grid.scales.data = data.back().data(), grid.scales.row_stride = layout.row_stride();
  if (format.scale == NumberKind::none) {
    grid.scales.kind = NumberKind::f32, grid.scales.row_stride = 0;
    grid.scales.data = reinterpret_cast<const uint8_t*>(grid.levels + ones);
  }
  return grid;
}

}  // namespace tersor::formats
