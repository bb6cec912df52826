#include "gemm/plan.h"

#include <type_traits>

#include "core/arena.h"

namespace tersor::gemm {

static_assert(kPanelColumns % kMostGroupColumns == 0);

size_t scale_group(const Packed& weights) noexcept {
  return weights.head.group ? size_t(weights.head.group) : kMostGroupColumns;
}

void Plan::at_column(TileGroups& t, size_t tile_row, size_t column, size_t columns) const noexcept {
  const PackedHead& head = weights.head;
  const size_t group = tokens.reading.group;
  t.steps = columns / kStepColumns;
  t.group_halves = group / 16;
  t.groups_a_scale = scale_group(weights) / group;
  t.scale_kind = head.scale_kind;
  const auto numbers = [&](const uint8_t* at, size_t size) {
    const size_t stride = kTileRows * size, first = head.group ? column / size_t(head.group) : 0;
    return Numbers{at ? at + tile_row * weights.number_stride + first * stride : nullptr, head.group ? stride : 0};
  };
  t.scales = numbers(weights.scales, weights.number_bytes());
  t.zeros = numbers(weights.zeros, 1);
  t.minimums = numbers(weights.minimums, weights.number_bytes());
}

template <class Tile>
void Plan::at_token(Tile& t, size_t column, size_t token, const Span& span) const noexcept {
  constexpr bool kIntegers = std::is_same_v<Tile, IntegerTile>;
  const size_t sums_stride = tokens.groups + 1, g = token * sums_stride + column / tokens.reading.group;
  const size_t element = kIntegers ? 1 : tokens.reading.arithmetic == Arithmetic::bf16 ? 2 : 4;
  const uint8_t* const x = tokens.values.data() + token * tokens.stride + column * element;
  t.x_stride = tokens.stride, t.sums_stride = sums_stride;
  if constexpr (kIntegers) {
    t.x = reinterpret_cast<const int8_t*>(x);
    t.sums = tokens.sums.data() + g;
    t.x_scales = tokens.group_scales.empty() ? nullptr : tokens.group_scales.data() + g;
  } else {
    t.x = x, t.sums = tokens.float_sums.data() + g;
  }
  t.y = span.sums + (token - span.first) * kTileRows;
  t.first = column == 0;
}

// Tables of a token's products with all codewords cost as much as some tokens more in a panel.
static constexpr size_t kLookUpTokens = 4;

bool looks_up(const Packed& weights, const Tokens& tokens) noexcept {
  return weights.head.family == Family::vectors && weights.vectors.planes && vector_kernels().look_up &&
         tokens.reading.arithmetic == Arithmetic::int8 && tokens.count <= kLookUpTokens;
}

void Plan::look_up(const Span& span, size_t end_tile) const {
  const size_t groups = tokens.groups + 1;
  LookUps t{};
  t.vectors = &weights.vectors, t.first_tile = span.tile_row, t.end_tile = end_tile;
  t.center = weights.head.center;
  t.scale_kind = weights.head.scale_kind, t.scales = weights.scales;
  t.scale_tile_bytes = weights.number_stride;
  t.columns = weights.padded_columns, t.group_columns = tokens.reading.group;
  t.y_stride = (span.end - span.first) * kTileRows;
  ScratchFrame scratch;
  t.room = scratch.bytes(look_up_room(weights.head.stages, end_tile - span.tile_row)).data();
  for (size_t token = span.first; token < span.end; ++token) {
    t.x = reinterpret_cast<const int8_t*>(tokens.values.data() + token * tokens.stride);
    t.sums = tokens.sums.data() + token * groups;
    t.x_scales = tokens.group_scales.empty() ? nullptr : tokens.group_scales.data() + token * groups;
    t.y = span.sums + (token - span.first) * kTileRows;
    vector_kernels().look_up(t);
  }
}

// Families that are no grids.
void Plan::decoded_integers(const Span& span) const {
  IntegerTile t{};
  t.bits = 8, t.center = weights.head.center;
  const auto multiply = [&](size_t column, const auto& kernel) {
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      at_token(t, column, token, span);
      kernel(std::min(kMostTokens, span.end - token));
    }
  };
  if (weights.head.family == Family::sparse && sparse_kernels().tile && span.end - span.first <= kMostTokens) {
    const Kept& kept = weights.kept;
    t.codes = kept.codes + kept.starts[span.tile_row * kept.pieces];
    return each_panel(t, span.tile_row, weights.padded_columns, [&](size_t column, size_t) {
      multiply(column, [&](size_t count) { sparse_kernels().tile(t, kept, count); });
    });
  }
  ScratchFrame scratch;
  const auto panel = scratch.bytes(kPanelColumns * kTileRows);
  t.codes = panel.data();
  each_panel(t, span.tile_row, kPanelColumns, [&](size_t column, size_t columns) {
    weights.integer_panel(span.tile_row, column, columns, panel.data());
    multiply(column, [&](size_t count) { kernels().integer_tile(t, count); });
  });
}

// Codes that are decoded next, into the second cache: they come while the panel before is multiplied.
static void prefetch_panel(const uint8_t* codes, int bits) noexcept {
  for (size_t i = 0; i < kPanelColumns * kTileRows / 8 * size_t(bits); i += 64) __builtin_prefetch(codes + i, 0, 2);
}

void Plan::integers(const Span& span) const {
  if (weights.head.family != Family::grid) return decoded_integers(span);
  const Kernels& kernel = kernels();
  const int bits = weights.head.bits;
  IntegerTile t{};
  t.bits = bits;
  t.lookup = weights.head.looked_up ? weights.tables->integers : nullptr;
  t.center = weights.head.center;
  t.codes = weights.tile_codes(span.tile_row);
  const auto multiply = [&](size_t column) {
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      at_token(t, column, token, span);
      kernel.integer_tile(t, std::min(kMostTokens, span.end - token));
    }
  };
  const bool reads = (t.lookup ? kernel.looked_up_widths : kernel.widths) >> bits & 1;
  const bool whole = reads && (span.end - span.first < kPanelTokens || (bits == 4 && !t.lookup));
  if (whole || (reads && bits == 8)) {
    // Codes as they lie; where many tokens read them, panel by panel, so that they stay in the nearest cache.
    each_panel(t, span.tile_row, whole ? weights.padded_columns : kPanelColumns, [&](size_t column, size_t columns) {
      multiply(column);
      t.codes += columns * kTileRows / 8 * size_t(bits);
    });
    return;
  }
  ScratchFrame scratch;
  const auto panel = scratch.bytes(kPanelColumns * kTileRows);
  const uint8_t *from = t.codes, *const lookup = t.lookup;
  t.codes = panel.data(), t.bits = 8, t.lookup = nullptr;
  each_panel(t, span.tile_row, kPanelColumns, [&](size_t column, size_t columns) {
    kernel.integer_panel(bits, lookup, from, t.steps, panel.data());
    from += columns * kTileRows / 8 * size_t(bits);
    prefetch_panel(from, bits);
    multiply(column);
  });
}

void Plan::halves(const Span& span) const {
  const Bf16Kernels& kernel = *bf16_kernels();
  const int bits = weights.head.bits;
  FloatTile t{};
  t.bits = bits, t.levels = &weights.tables->levels, t.codes = weights.tile_codes(span.tile_row);
  const auto multiply = [&](size_t column) {
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      at_token(t, column, token, span);
      kernel.tile(t, std::min(kMostTokens, span.end - token));
    }
  };
  // Codes of 8 bits take as many look-ups as multiplications of four tokens.
  if (span.end - span.first < (bits == 8 ? kPanelTokens / 3 : kPanelTokens))
    return each_panel(t, span.tile_row, weights.padded_columns, [&](size_t column, size_t) { multiply(column); });
  ScratchFrame scratch;
  const auto panel = scratch.take<uint16_t>(kPanelColumns * kTileRows);
  const uint8_t* from = t.codes;
  t.codes = reinterpret_cast<const uint8_t*>(panel.data()), t.bits = 0;
  each_panel(t, span.tile_row, kPanelColumns, [&](size_t column, size_t columns) {
    kernel.panel(bits, *t.levels, from, t.steps, panel.data());
    from += columns * kTileRows / 8 * size_t(bits);
    prefetch_panel(from, bits);
    multiply(column);
  });
}

// Levels of columns of a tile, before their scales.
void Plan::float_panel(size_t tile_row, size_t column, size_t columns, float* out) const {
  if (weights.head.family != Family::grid) return weights.level_panel(tile_row, column, columns, out);
  const int bits = weights.head.bits;
  ScratchFrame scratch;
  const auto bytes = scratch.bytes(columns * kTileRows);
  const uint8_t* const from = weights.tile_codes(tile_row) + column * kTileRows / 8 * size_t(bits);
  kernels().integer_panel(bits, nullptr, from, columns / kStepColumns, bytes.data());
  float_kernels().levels(bits, weights.tables->levels.exact, bytes.data(), columns / kStepColumns, out);
}

void Plan::floats(const Span& span) const {
  const FloatKernels& kernel = float_kernels();
  FloatTile t{};
  ScratchFrame scratch;
  const auto panel = scratch.take<float>(kFloatColumns * kTileRows);
  t.codes = reinterpret_cast<const uint8_t*>(panel.data());
  each_panel(t, span.tile_row, kFloatColumns, [&](size_t column, size_t columns) {
    float_panel(span.tile_row, column, columns, panel.data());
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      at_token(t, column, token, span);
      kernel.tile(t, std::min(kMostTokens, span.end - token));
    }
  });
}

// Those of int8_outlier, a step of columns after the other.
void Plan::large_elements(const Span& span) const {
  const LargeElements& large = tokens.large_elements;
  ScratchFrame scratch;
  const auto panel = scratch.take<float>(kStepColumns * kTileRows);
  const size_t group = std::min(tokens.reading.group, kStepColumns);
  FloatTile t{};
  t.codes = reinterpret_cast<const uint8_t*>(panel.data());
  t.x_stride = 4 * kStepColumns, t.sums_stride = kStepSums;
  for (size_t i = 0; i < large.steps.size(); ++i) {
    const size_t column = large.steps[i] * kStepColumns;
    at_column(t, span.tile_row, column, kStepColumns);
    t.group_halves = group / 16, t.groups_a_scale = scale_group(weights) / group;
    float_panel(span.tile_row, column, kStepColumns, panel.data());
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      const size_t at = i * tokens.count + token;
      t.x = reinterpret_cast<const uint8_t*>(large.x.data() + at * kStepColumns);
      t.sums = large.sums.data() + at * kStepSums;
      t.y = span.added + (token - span.first) * kTileRows;
      float_kernels().tile(t, std::min(kMostTokens, span.end - token));
    }
  }
  for (size_t i = 0; i < (span.end - span.first) * kTileRows; ++i) span.added[i] *= weights.head.factor;
}

void Plan::finish(const Span& span) const noexcept {
  const size_t rows = weights.head.rows, row = span.tile_row * kTileRows, count = std::min(kTileRows, rows - row);
  const size_t size = dtype_bytes(y_dtype);
  const float factor = weights.head.factor * (tokens.reading.arithmetic == Arithmetic::int8 ? weights.head.step : 1);
  const float *sums = span.sums, *added = span.added;
  for (size_t token = span.first; token < span.end; ++token, sums += kTileRows) {
    const float scale = tokens.scales[token] * factor;
    float out[kTileRows];
    for (size_t i = 0; i < count; ++i) out[i] = sums[i] * scale;
    if (added)
      for (size_t i = 0; i < count; ++i) out[i] += added[(token - span.first) * kTileRows + i];
    if (!bias.empty())
      for (size_t i = 0; i < count; ++i) out[i] += bias[row + i];
    from_floats(y_dtype, out, count, y + (token * rows + row) * size);
  }
}

void Plan::work(size_t number) const {
  Span span{number % runs() * run, number / runs() * piece, 0, nullptr, nullptr};
  span.end = std::min(tokens.count, span.first + piece);
  ScratchFrame scratch;
  const size_t end_tile = std::min(weights.tiles, span.tile_row + run), numbers = (span.end - span.first) * kTileRows;
  span.sums = scratch.take<float>(numbers * (end_tile - span.tile_row)).data();
  const bool has_large = !tokens.large_elements.steps.empty(), has_side = weights.extras.has_side_terms();
  if (has_large || has_side) span.added = scratch.take<float>(numbers).data();
  const bool found = looks_up(weights, tokens);
  if (found) look_up(span, end_tile);
  for (; span.tile_row < end_tile; ++span.tile_row, span.sums += numbers) {
    if (span.added) std::fill_n(span.added, numbers, 0.0f);
    switch (tokens.reading.arithmetic) {
      case Arithmetic::int8:
        if (!found) integers(span);
        break;
      case Arithmetic::bf16: halves(span); break;
      case Arithmetic::f32: floats(span); break;
    }
    const size_t row = span.tile_row * kTileRows;
    if (has_large) large_elements(span);
    if (has_side)
      side.add(weights.extras, row, std::min(kTileRows, size_t(weights.head.rows) - row), span.first, span.end,
               span.added);
    finish(span);
  }
}

}  // namespace tersor::gemm
