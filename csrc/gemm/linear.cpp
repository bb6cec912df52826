#include "gemm/linear.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/bits.h"
#include "core/isa.h"
#include "core/pool.h"
#include "formats/small_float.h"

namespace tersor::gemm {
namespace {

constexpr size_t kXGroup = 128;
static_assert(kPanelColumns % kMostGroupColumns == 0 && kMostGroupColumns % kXGroup == 0);
// Tokens from which on it pays to decode weights once for all of them rather than for four at a time. Codes of 4 bits
// without a table cost less than that in any case: their shifts and masks fit between the multiplications.
constexpr size_t kPanelTokens = 24;
constexpr bool in_place(const IntegerTile& t, size_t tokens) {
  return tokens < kPanelTokens || (t.bits == 4 && !t.lookup);
}
constexpr size_t kRowPad = 64;  // rows of x that lie a power of two apart would share their cache lines' places

void to_floats(DType dtype, const uint8_t* from, size_t count, float* to) noexcept {
  if (dtype == DType::F32)
    std::memcpy(to, from, 4 * count);
  else if (dtype == DType::BF16)
    for (size_t i = 0; i < count; ++i) to[i] = formats::f32_of_bf16(load_le<uint16_t>(from + 2 * i));
  else
    for (size_t i = 0; i < count; ++i) to[i] = formats::f32_of_f16(load_le<uint16_t>(from + 2 * i));
}

void from_floats(DType dtype, const float* from, size_t count, uint8_t* to) noexcept {
  if (dtype == DType::F32)
    std::memcpy(to, from, 4 * count);
  else if (dtype == DType::BF16)
    for (size_t i = 0; i < count; ++i) store_le(to + 2 * i, formats::bf16_of_f32(from[i]));
  else
    for (size_t i = 0; i < count; ++i) store_le(to + 2 * i, formats::f16_of_f32(from[i]));
}

void require_float(DType dtype, const char* what) {
  TERSOR_REQUIRE(dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16, Code::bad_type, what,
                 " are F32, F16 or BF16, not ", dtype_name(dtype));
}

// x in 8 bits.
struct Tokens {
  size_t count, stride, groups;  // stride: bytes a token; groups: kernels' groups a token, and one more in `sums`
  std::span<int8_t> values;
  std::span<int32_t> sums;        // [token][groups + 1]
  std::span<float> scales;        // [token]; 1 where groups have scales
  std::span<float> group_scales;  // [token][groups + 1], or none
};

struct Plan {
  const Packed& weights;
  const Kernels& kernel;
  const Tokens& tokens;
  size_t group;  // columns the kernels sum before they scale
  size_t groups_a_scale;
  std::span<const float> bias;
  DType y_dtype;
  uint8_t* y;

  // 32 rows of the matrix for tokens [first, end).
  void rows(size_t tile_row, size_t first, size_t end) const;

 private:
  IntegerTile tile(size_t tile_row) const noexcept;
  void at_column(IntegerTile& tile, size_t column, size_t token) const noexcept;
  void forward(IntegerTile& tile, size_t columns) const noexcept;
  void finish(size_t tile_row, size_t first, size_t end, const float* sums) const noexcept;
};

IntegerTile Plan::tile(size_t tile_row) const noexcept {
  const PackedHead& head = weights.head;
  IntegerTile t{};
  t.bits = head.bits;
  t.lookup = head.looked_up ? weights.tables->integers : nullptr;
  t.center = head.center;
  t.codes = weights.codes + tile_row * weights.code_tile_bytes();
  t.group_halves = group / 16;
  t.groups_a_scale = groups_a_scale;
  t.scale_kind = head.scale_kind;
  const auto numbers = [&](const uint8_t* at, size_t size) {
    const size_t stride = kTileRows * size;
    return Numbers{at ? at + tile_row * weights.groups * stride : nullptr, head.group ? stride : 0};
  };
  t.scales = numbers(weights.scales, weights.number_bytes());
  t.zeros = numbers(weights.zeros, 1);
  t.minimums = numbers(weights.minimums, weights.number_bytes());
  t.x_stride = tokens.stride;
  t.sums_stride = tokens.groups + 1;
  return t;
}

void Plan::at_column(IntegerTile& t, size_t column, size_t token) const noexcept {
  t.x = tokens.values.data() + token * tokens.stride + column;
  const size_t g = token * t.sums_stride + column / group;
  t.sums = tokens.sums.data() + g;
  t.x_scales = tokens.group_scales.empty() ? nullptr : tokens.group_scales.data() + g;
  t.first = column == 0;
}

// The groups' numbers `columns` further on.
void Plan::forward(IntegerTile& t, size_t columns) const noexcept {
  for (Numbers* const numbers : {&t.scales, &t.zeros, &t.minimums})
    if (numbers->at) numbers->at += columns / group / groups_a_scale * numbers->group_stride;
}

void Plan::finish(size_t tile_row, size_t first, size_t end, const float* sums) const noexcept {
  const size_t rows = weights.head.rows, row = tile_row * kTileRows, count = std::min(kTileRows, rows - row);
  const size_t size = dtype_bytes(y_dtype);
  for (size_t token = first; token < end; ++token, sums += kTileRows) {
    const float scale = tokens.scales[token] * weights.head.factor;
    float out[kTileRows];
    if (bias.empty())
      for (size_t i = 0; i < count; ++i) out[i] = sums[i] * scale;
    else
      for (size_t i = 0; i < count; ++i) out[i] = sums[i] * scale + bias[row + i];
    from_floats(y_dtype, out, count, y + (token * rows + row) * size);
  }
}

void Plan::rows(size_t tile_row, size_t first, size_t end) const {
  ScratchFrame scratch;
  const auto sums = scratch.take<float>((end - first) * kTileRows);
  IntegerTile t = tile(tile_row);
  const bool reads = kernel.reads_codes && !(t.bits == 8 && t.lookup), whole = reads && in_place(t, end - first);
  const auto tokens_of = [&](size_t column) {
    for (size_t token = first; token < end; token += kMostTokens) {
      at_column(t, column, token);
      t.y = sums.data() + (token - first) * kTileRows;
      kernel.integer_tile(t, std::min(kMostTokens, end - token));
    }
  };
  if (whole || (reads && t.bits == 8)) {
    // Codes as they lie; where many tokens read them, panel by panel, so that they stay in the nearest cache.
    const size_t columns = whole ? weights.padded_columns : kPanelColumns;
    for (size_t column = 0; column < weights.padded_columns; column += columns) {
      t.steps = std::min(columns, weights.padded_columns - column) / kStepColumns;
      tokens_of(column);
      t.codes += t.steps * 128 * size_t(t.bits);
      forward(t, columns);
    }
  } else {
    const auto panel = scratch.take<uint8_t>(kPanelColumns * kTileRows);
    const uint8_t* codes = t.codes;
    const int bits = t.bits;
    const uint8_t* const lookup = t.lookup;
    t.codes = panel.data(), t.bits = 8, t.lookup = nullptr;
    for (size_t column = 0; column < weights.padded_columns; column += kPanelColumns) {
      t.steps = std::min(kPanelColumns, weights.padded_columns - column) / kStepColumns;
      kernel.integer_panel(bits, lookup, codes, t.steps, panel.data());
      codes += t.steps * 128 * size_t(bits);
      tokens_of(column);
      forward(t, kPanelColumns);
    }
  }
  finish(tile_row, first, end, sums.data());
}

}  // namespace

const Kernels& kernels() noexcept {
  static constexpr struct {
    Isa level;
    const Kernels* kernels;
  } kRows[] = {{Isa::scalar, &kScalarKernels}, TERSOR_X86({Isa::avx512vbmi, &kAvx512VbmiKernels}, )};
  const Kernels* found = kRows[0].kernels;
  for (const auto& row : kRows)
    if (row.level <= active_isa()) found = row.kernels;
  return *found;
}

void linear(const Matrix& x, const Packed& weights, const Matrix& bias, Activations activations, DType y_dtype,
            std::span<uint8_t> y, int threads) {
  const PackedHead& head = weights.head;
  require_float(x.dtype, "x's elements"), require_float(y_dtype, "y's elements");
  TERSOR_REQUIRE(x.columns == head.columns, Code::bad_call, "x has ", x.columns, " columns, the matrix has ",
                 head.columns);
  TERSOR_REQUIRE(bias.data == nullptr || bias.columns == head.rows, Code::bad_call, "bias has ", bias.columns,
                 " elements, the matrix has ", head.rows, " rows");
  TERSOR_REQUIRE(y.size() == checked_mul(checked_mul(x.rows, head.rows, "y"), dtype_bytes(y_dtype), "y"),
                 Code::bad_call, "y has ", y.size(), " bytes, ", x.rows, " rows of ", head.rows, " are needed");
  TERSOR_REQUIRE(head.has_integers, Code::bad_call, "int8 arithmetic does not read these levels");
  if (x.rows == 0) return;

  const bool grouped = activations == Activations::int8_g128;
  const size_t scale_group = head.group ? size_t(head.group) : kMostGroupColumns;
  const size_t group = std::min(scale_group, grouped ? kXGroup : kMostGroupColumns);
  TERSOR_ASSERT(scale_group % group == 0 && kPanelColumns % group == 0);
  const Kernels& kernel = kernels();
  ScratchFrame scratch;
  Tokens tokens{};
  tokens.count = x.rows, tokens.stride = weights.padded_columns + kRowPad;
  tokens.groups = size_t(ceil_div(weights.padded_columns, group));
  tokens.values = scratch.take<int8_t>(x.rows * tokens.stride);
  tokens.sums = scratch.take<int32_t>(x.rows * (tokens.groups + 1));
  tokens.scales = scratch.take<float>(x.rows);
  if (grouped) tokens.group_scales = scratch.take<float>(x.rows * (tokens.groups + 1));
  std::span<float> added;
  if (bias.data) {
    require_float(bias.dtype, "bias's elements");
    added = scratch.take<float>(head.rows);
    to_floats(bias.dtype, bias.data, head.rows, added.data());
  }

  const size_t row_bytes = x.columns * dtype_bytes(x.dtype);
  parallel_for(x.rows, std::max<size_t>(1, 32768 / x.columns), threads, [&](size_t begin, size_t end) {
    ScratchFrame own;
    const auto floats = own.take<float>(x.columns);
    for (size_t token = begin; token < end; ++token) {
      const uint8_t* const from = x.data + token * row_bytes;
      const float* row = floats.data();
      if (x.dtype == DType::F32)
        row = reinterpret_cast<const float*>(from);
      else
        to_floats(x.dtype, from, x.columns, floats.data());
      int8_t* const to = tokens.values.data() + token * tokens.stride;
      tokens.scales[token] = 1;
      if (!grouped) {
        tokens.scales[token] = kernel.quantize(row, x.columns, tokens.stride, to);
      } else {
        float* const scales = tokens.group_scales.data() + token * (tokens.groups + 1);
        for (size_t column = 0; column < weights.padded_columns; column += kXGroup) {
          const size_t padded = std::min(kXGroup, weights.padded_columns - column);
          const size_t present = column < x.columns ? std::min(kXGroup, x.columns - column) : 0;
          const float scale = kernel.quantize(row + column, present, padded, to + column);
          if (scale != scale) tokens.scales[token] = scale;
          for (size_t k = 0; k < padded; k += group) scales[(column + k) / group] = scale == scale ? scale : 0;
        }
        scales[tokens.groups] = 0;
      }
      int32_t* const sums = tokens.sums.data() + token * (tokens.groups + 1);
      kernel.sum_groups(to, weights.padded_columns, group, sums);
      sums[tokens.groups] = 0;
    }
  });

  const Plan plan{weights, kernel, tokens, group, scale_group / group, added, y_dtype, y.data()};
  // Rows are cut first; tokens only where rows do not keep all threads busy.
  const size_t tile_rows = weights.tiles;
  const size_t workers = size_t(std::max(1, threads > 0 ? threads : num_threads()));
  const size_t cuts = tile_rows >= 4 * workers || x.rows < 2 * kPanelTokens
                          ? 1
                          : std::min<size_t>(x.rows / kPanelTokens, 4 * workers / tile_rows + 1);
  const size_t piece = (ceil_div(x.rows, cuts) + kMostTokens - 1) / kMostTokens * kMostTokens;
  const size_t pieces = size_t(ceil_div(x.rows, piece));
  const size_t grain = pieces > 1 ? 1 : std::max<size_t>(1, tile_rows / (8 * workers));
  parallel_for(tile_rows * pieces, grain, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t first = i / tile_rows * piece;
      plan.rows(i % tile_rows, first, std::min(x.rows, first + piece));
    }
  });
}

}  // namespace tersor::gemm
