#include "gemm/plan.h"

#include <type_traits>

#include "core/arena.h"

namespace tersor::gemm {

static_assert(kPanelColumns % kMostGroupColumns == 0);

size_t scale_group(const Packed& weights) noexcept {
  return weights.head.group ? size_t(weights.head.group) : kMostGroupColumns;
}

void Plan::at_column(TileGroups& t, size_t tile, size_t column, size_t columns) const noexcept {
  const PackedHead& head = weights.head;
  const size_t group = tokens.reading.group;
  t.steps = columns / kStepColumns;
  t.group_halves = group / 16;
  t.groups_a_scale = scale_group(weights) / group;
  t.scale_kind = head.scale_kind;
  const auto numbers = [&](const uint8_t* at, size_t size) {
    const size_t stride = kTileRows * size, first = head.group ? column / size_t(head.group) : 0;
    return Numbers{at ? at + tile * weights.number_stride + first * stride : nullptr, head.group ? stride : 0};
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

template <class Tile, class Kernel>
void Plan::all_tokens(Tile& t, size_t column, const Span& span, const Kernel& kernel) const {
  for (size_t token = span.first; token < span.end; token += kMostTokens) {
    at_token(t, column, token, span);
    kernel(t, std::min(kMostTokens, span.end - token));
  }
}

// Tables of a token's products with all codewords cost as much as some tokens more in a panel.
static constexpr size_t kLookUpTokens = 4;

bool looks_up(const Packed& weights, const Tokens& tokens) noexcept {
  return weights.head.family == Family::vectors && weights.vectors.planes && vector_kernels().look_up &&
         tokens.reading.arithmetic == Arithmetic::int8 && tokens.count <= kLookUpTokens;
}

void Plan::look_up(const Span& span) const {
  const size_t groups = tokens.groups + 1;
  LookUps t{};
  t.vectors = &weights.vectors, t.first_tile = span.tile, t.end_tile = span.end_tile;
  t.center = weights.head.center;
  t.scale_kind = weights.head.scale_kind, t.scales = weights.scales;
  t.scale_tile_bytes = weights.number_stride;
  t.columns = weights.padded_columns, t.group_columns = tokens.reading.group;
  t.y_stride = (span.end - span.first) * kTileRows;
  ScratchFrame scratch;
  t.room = scratch.bytes(look_up_room(weights.head.stages, span.end_tile - span.tile)).data();
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
  if (weights.head.family == Family::sparse && sparse_kernels().tile && span.end - span.first <= kMostTokens) {
    const Kept& kept = weights.kept;
    t.codes = kept.codes + kept.starts[span.tile * kept.pieces];
    return each_panel(t, span.tile, weights.padded_columns, [&](size_t column, size_t) {
      all_tokens(t, column, span,
                 [&](const IntegerTile& tile, size_t count) { sparse_kernels().tile(tile, kept, count); });
    });
  }
  ScratchFrame scratch;
  const auto panel = scratch.bytes(kPanelColumns * kTileRows);
  t.codes = panel.data();
  each_panel(t, span.tile, kPanelColumns, [&](size_t column, size_t columns) {
    weights.integer_panel(span.tile, column, columns, panel.data());
    all_tokens(t, column, span, kernels().integer_tile);
  });
}

// Codes that are decoded next, into the second cache: they come while the panel before is multiplied.
static void prefetch_panel(const uint8_t* codes, int bits) noexcept {
  for (size_t i = 0; i < kPanelColumns * kTileRows / 8 * size_t(bits); i += 64) __builtin_prefetch(codes + i, 0, 2);
}

// The fewer instructions stand between two tiles, the sooner the next one's codes are asked for: with one token memory
// would wait a tenth of the time.
template <class Tile, class Kernel>
void Plan::whole_tiles(Tile& t, const Span& span, const Kernel& kernel) const {
  at_column(t, span.tile, 0, weights.padded_columns);
  t.codes = weights.tile_codes(span.tile);
  each_tile(span, [&](const Span& one) {
    all_tokens(t, 0, one, kernel);
    t.codes += weights.code_stride;
    for (Numbers* const numbers : {&t.scales, &t.zeros, &t.minimums})
      if (numbers->at) numbers->at += weights.number_stride;
  });
}

void Plan::integers(const Span& span) const {
  if (weights.head.family != Family::grid) return each_tile(span, [&](const Span& one) { decoded_integers(one); });
  const Kernels& kernel = kernels();
  const int bits = weights.head.bits;
  IntegerTile t{};
  t.bits = bits;
  t.lookup = weights.head.looked_up ? weights.tables->integers : nullptr;
  t.center = weights.head.center;
  const bool reads = (t.lookup ? kernel.looked_up_widths : kernel.widths) >> bits & 1;
  if (reads && (span.end - span.first < kPanelTokens || (bits == 4 && !t.lookup)))
    return whole_tiles(t, span, kernel.integer_tile);
  t.panel = true;
  const bool bytes = reads && bits == 8;
  each_tile(span, [&](const Span& one) { bytes ? byte_panels(t, one) : integer_panels(t, one); });
}

// Bytes are read as they lie, but by panels, so that they stay in the nearest cache for all tokens.
void Plan::byte_panels(IntegerTile t, const Span& span) const {
  t.codes = weights.tile_codes(span.tile);
  each_panel(t, span.tile, kPanelColumns, [&](size_t column, size_t columns) {
    all_tokens(t, column, span, kernels().integer_tile);
    t.codes += columns * kTileRows;
  });
}

void Plan::integer_panels(IntegerTile t, const Span& span) const {
  const int bits = t.bits;
  const uint8_t *from = weights.tile_codes(span.tile), *const lookup = t.lookup;
  ScratchFrame scratch;
  const auto panel = scratch.bytes(kPanelColumns * kTileRows);
  t.codes = panel.data(), t.bits = 8, t.lookup = nullptr;
  each_panel(t, span.tile, kPanelColumns, [&](size_t column, size_t columns) {
    kernels().integer_panel(bits, lookup, from, t.steps, panel.data());
    from += columns * kTileRows / 8 * size_t(bits);
    prefetch_panel(from, bits);
    all_tokens(t, column, span, kernels().integer_tile);
  });
}

void Plan::halves(const Span& span) const {
  const int bits = weights.head.bits;
  FloatTile t{};
  t.bits = bits, t.levels = &weights.tables->levels;
  // Codes of 8 bits take as many look-ups as multiplications of four tokens.
  if (span.end - span.first < (bits == 8 ? kPanelTokens / 3 : kPanelTokens))
    return whole_tiles(t, span, bf16_kernels()->tile);
  each_tile(span, [&](const Span& one) { half_panels(t, one); });
}

void Plan::half_panels(FloatTile t, const Span& span) const {
  const Bf16Kernels& kernel = *bf16_kernels();
  const int bits = t.bits;
  ScratchFrame scratch;
  const auto panel = scratch.take<uint16_t>(kPanelColumns * kTileRows);
  const uint8_t* from = weights.tile_codes(span.tile);
  t.codes = reinterpret_cast<const uint8_t*>(panel.data()), t.bits = 0;
  each_panel(t, span.tile, kPanelColumns, [&](size_t column, size_t columns) {
    kernel.panel(bits, *t.levels, from, t.steps, panel.data());
    from += columns * kTileRows / 8 * size_t(bits);
    prefetch_panel(from, bits);
    all_tokens(t, column, span, kernel.tile);
  });
}

// Levels of columns of a tile, before their scales.
void Plan::float_panel(size_t tile, size_t column, size_t columns, float* out) const {
  if (weights.head.family != Family::grid) return weights.level_panel(tile, column, columns, out);
  const int bits = weights.head.bits;
  ScratchFrame scratch;
  const auto bytes = scratch.bytes(columns * kTileRows);
  const uint8_t* const from = weights.tile_codes(tile) + column * kTileRows / 8 * size_t(bits);
  kernels().integer_panel(bits, nullptr, from, columns / kStepColumns, bytes.data());
  float_kernels().levels(bits, weights.tables->levels.exact, bytes.data(), columns / kStepColumns, out);
}

void Plan::floats(const Span& span) const {
  const FloatKernels& kernel = float_kernels();
  FloatTile t{};
  ScratchFrame scratch;
  const auto panel = scratch.take<float>(kFloatColumns * kTileRows);
  t.codes = reinterpret_cast<const uint8_t*>(panel.data());
  each_panel(t, span.tile, kFloatColumns, [&](size_t column, size_t columns) {
    float_panel(span.tile, column, columns, panel.data());
    all_tokens(t, column, span, kernel.tile);
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
    at_column(t, span.tile, column, kStepColumns);
    t.group_halves = group / 16, t.groups_a_scale = scale_group(weights) / group;
    float_panel(span.tile, column, kStepColumns, panel.data());
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
  const size_t rows = weights.head.rows, row = span.tile * kTileRows, count = std::min(kTileRows, rows - row);
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
  Span span{};
  span.tile = number % runs() * run, span.end_tile = std::min(weights.tiles, span.tile + run);
  span.first = number / runs() * piece, span.end = std::min(tokens.count, span.first + piece);
  ScratchFrame scratch;
  span.sums = scratch.take<float>(span.tile_sums() * (span.end_tile - span.tile)).data();
  const bool has_large = !tokens.large_elements.steps.empty(), has_side = weights.extras.has_side_terms();
  if (has_large || has_side) span.added = scratch.take<float>(span.tile_sums()).data();
  switch (tokens.reading.arithmetic) {
    case Arithmetic::int8: looks_up(weights, tokens) ? look_up(span) : integers(span); break;
    case Arithmetic::bf16: halves(span); break;
    case Arithmetic::f32: each_tile(span, [&](const Span& one) { floats(one); }); break;
  }
  each_tile(span, [&](const Span& one) {
    if (one.added) std::fill_n(one.added, one.tile_sums(), 0.0f);
    if (has_large) large_elements(one);
    const size_t row = one.tile * kTileRows;
    if (has_side)
      side.add(weights.extras, row, std::min(kTileRows, size_t(weights.head.rows) - row), one.first, one.end,
               one.added);
    finish(one);
  });
}

}  // namespace tersor::gemm
