#include "gemm/linear.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/arena.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/small_float.h"

namespace tersor::gemm {
namespace {

static_assert(kPanelColumns % kMostGroupColumns == 0);
// Tokens from which on it pays to decode weights once for all of them rather than for four at a time. Codes of 4 bits
// without a table cost less than that in any case: their shifts and masks fit between the multiplications.
constexpr size_t kPanelTokens = 24;
// Columns of a panel of float32, which has to stay in the nearest cache, and the most that are summed before scaling.
constexpr size_t kFloatColumns = 128;

// A product whose tokens are read.
struct Plan {
  const Packed& weights;
  const Tokens& tokens;
  const SideTokens& side;
  std::span<const float> bias;
  DType y_dtype;
  uint8_t* y;
  size_t pieces, piece;   // its tokens are cut so
  size_t run;             // tiles of a work
  size_t first_work = 0;  // works of the plans before

  size_t runs() const noexcept { return size_t(ceil_div(weights.tiles, run)); }
  size_t works() const noexcept { return runs() * pieces; }
  // 32 rows of the matrix, or a run of them, for a piece of the tokens.
  void work(size_t number) const;

 private:
  struct Span {
    size_t tile_row, first, end;  // tokens
    float* sums;                  // [token][32]
    float* added;                 // the same, of what is not scaled; null: nothing
  };
  void integers(const Span& span) const;
  void decoded_integers(const Span& span) const;
  void look_up(const Span& span, size_t end_tile) const;
  void halves(const Span& span) const;
  void floats(const Span& span) const;
  void large_elements(const Span& span) const;
  void finish(const Span& span) const noexcept;

  void float_panel(size_t tile_row, size_t column, size_t columns, float* out) const;
  void at_column(TileGroups& tile, size_t tile_row, size_t column, size_t columns) const noexcept;
  template <class Tile>
  void at_token(Tile& tile, size_t column, size_t token, const Span& span) const noexcept;

  // f(column, columns) for every panel of columns.
  template <class F>
  void each_panel(TileGroups& tile, size_t tile_row, size_t panel_columns, const F& f) const {
    for (size_t column = 0; column < weights.padded_columns; column += panel_columns) {
      const size_t columns = std::min(panel_columns, weights.padded_columns - column);
      at_column(tile, tile_row, column, columns);
      f(column, columns);
    }
  }
};

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
constexpr size_t kLookUpTokens = 4;

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
void prefetch_panel(const uint8_t* codes, int bits) noexcept {
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

void require_fit(const Matrix& x, const Product& product, Activations activations, DType y_dtype) {
  const PackedHead& head = product.weights->head;
  const size_t rows = product.rows ? product.row_count : x.rows;
  TERSOR_REQUIRE(x.columns == head.columns, Code::bad_call, "x has ", x.columns, " columns, the matrix has ",
                 head.columns);
  TERSOR_REQUIRE(product.bias.data == nullptr || product.bias.columns == head.rows, Code::bad_call, "bias has ",
                 product.bias.columns, " elements, the matrix has ", head.rows, " rows");
  if (product.bias.data) require_float(product.bias.dtype, "bias's elements");
  TERSOR_REQUIRE(product.y.size() == checked_mul(checked_mul(rows, head.rows, "y"), dtype_bytes(y_dtype), "y"),
                 Code::bad_call, "y has ", product.y.size(), " bytes, ", rows, " rows of ", head.rows, " are needed");
  for (size_t i = 0; product.rows && i < rows; ++i)
    TERSOR_REQUIRE(product.rows[i] < x.rows, Code::bad_call, "row ", product.rows[i], " of x is asked, it has ",
                   x.rows);
  TERSOR_REQUIRE(head.has_integers || activations == Activations::exact, Code::bad_call,
                 "8 bits do not hold these levels: exact activations are needed");
}

Reading reading_of(const Packed& weights, Activations activations, DType x) noexcept {
  const auto arithmetic = activations != Activations::exact ? Arithmetic::int8
                          : x == DType::BF16 && bf16_kernels() != nullptr && weights.head.family == Family::grid
                              ? Arithmetic::bf16
                              : Arithmetic::f32;
  const size_t most = activations == Activations::int8_g128 ? 128
                      : arithmetic == Arithmetic::f32       ? kFloatColumns
                                                            : kMostGroupColumns;
  return {activations, arithmetic, weights.padded_columns, std::min(scale_group(weights), most)};
}

size_t grain_of_rows(const Matrix& x) noexcept { return std::max<size_t>(1, 32768 / std::max<size_t>(1, x.columns)); }

// Rows of x to be read as tokens, once for all products that read them alike.
struct Batch {
  const Extras* extras;
  const uint32_t* rows;  // null: all
  Matrix x;
  Tokens tokens;
  size_t first = 0;  // tokens of the batches before
};

bool alike(const Batch& batch, const Product& product, const Reading& reading) noexcept {
  return !batch.rows && !product.rows && batch.tokens.reading == reading &&
         std::ranges::equal(batch.extras->transform_bytes, product.weights->extras.transform_bytes);
}

// f(row of x as floats, token) for rows of x.
template <class F>
void each_row(const Matrix& x, const uint32_t* rows, size_t count, int threads, const F& f) {
  parallel_for(count, grain_of_rows(x), threads, [&](size_t begin, size_t end) {
    ScratchFrame own;
    const auto floats = own.take<float>(x.columns);
    for (size_t token = begin; token < end; ++token) {
      const size_t row = rows ? rows[token] : token;
      to_floats(x.dtype, x.data + row * x.columns * dtype_bytes(x.dtype), x.columns, floats.data());
      f(floats.data(), token);
    }
  });
}

// The batch's rows as they are after the transforms; bfloat16 again where it is multiplied.
void transform(Batch& batch, ScratchFrame& scratch, int threads) {
  const size_t columns = batch.x.columns, count = batch.tokens.count;
  const auto floats = scratch.take<float>(count * columns);
  {
    ScratchFrame own;
    const auto room = own.take<float>(count * columns);
    each_row(batch.x, batch.rows, count, threads,
             [&](const float* row, size_t token) { std::copy_n(row, columns, floats.data() + token * columns); });
    batch.extras->transform(floats, room, threads);
  }
  if (batch.tokens.reading.arithmetic == Arithmetic::bf16)
    for (float& x : floats) x = formats::f32_of_bf16(formats::bf16_of_f32(x));
  batch.x = {DType::F32, reinterpret_cast<const uint8_t*>(floats.data()), count, columns};
  batch.rows = nullptr;
}

SideTokens side_tokens_of(const Matrix& x, const Product& product, ScratchFrame& scratch, int threads) {
  const Extras& extras = product.weights->extras;
  const size_t count = product.rows ? product.row_count : x.rows;
  if (!extras.has_side_terms() || count == 0) return {};
  const SideTokens side(extras, count, scratch);
  each_row(x, product.rows, count, threads, [&](const float* row, size_t token) { side.read(extras, row, token); });
  if (extras.rank)
    parallel_for(side.blocks(), 1, threads, [&](size_t begin, size_t end) {
      for (size_t block = begin; block < end; ++block) side.multiply(extras, block);
    });
  return side;
}

// The last of `parts`, ascending by `first`, that begins at `number` or before.
template <class T>
const T& part_of(const std::vector<T>& parts, size_t T::* first, size_t number) noexcept {
  return *(std::upper_bound(parts.begin(), parts.end(), number,
                            [first](size_t n, const T& part) { return n < part.*first; }) -
           1);
}

}  // namespace

void linear(const Matrix& x, std::span<const Product> products, Activations activations, DType y_dtype, int threads) {
  require_float(x.dtype, "x's elements"), require_float(y_dtype, "y's elements");
  for (const Product& product : products) require_fit(x, product, activations, y_dtype);
  const Kernels& kernel = kernels();
  const size_t workers = size_t(std::max(1, threads > 0 ? threads : num_threads()));
  ScratchFrame scratch;

  std::vector<Batch> batches;
  std::vector<size_t> batch_of;
  size_t tokens = 0, tiles = 0;
  for (const Product& product : products) {
    const Reading reading = reading_of(*product.weights, activations, x.dtype);
    const auto same = std::ranges::find_if(batches, [&](const Batch& one) { return alike(one, product, reading); });
    batch_of.push_back(size_t(same - batches.begin()));
    tiles += product.weights->tiles;
    if (same != batches.end()) continue;
    const size_t count = product.rows ? product.row_count : x.rows;
    batches.push_back({&product.weights->extras, product.rows, x, Tokens(reading, count, scratch), tokens});
    tokens += count;
  }
  for (Batch& batch : batches)
    if (!batch.extras->transforms.empty()) transform(batch, scratch, threads);
  parallel_for(tokens, grain_of_rows(x), threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const Batch& batch = part_of(batches, &Batch::first, i);
      const size_t token = i - batch.first;
      batch.tokens.read(batch.x, batch.rows ? batch.rows[token] : token, token, kernel);
    }
  });
  std::vector<SideTokens> sides;
  for (Batch& batch : batches) batch.tokens.gather_large(scratch);
  for (const Product& product : products) sides.push_back(side_tokens_of(x, product, scratch, threads));

  std::vector<Plan> plans;
  size_t works = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& product = products[i];
    const Tokens& read = batches[batch_of[i]].tokens;
    if (read.count == 0) continue;
    std::span<float> added;
    if (product.bias.data) {
      added = scratch.take<float>(product.weights->head.rows);
      to_floats(product.bias.dtype, product.bias.data, added.size(), added.data());
    }
    // Rows are cut first; tokens only where rows do not keep all threads busy.
    const size_t cuts = tiles >= 4 * workers || read.count < 2 * kPanelTokens
                            ? 1
                            : std::min<size_t>(read.count / kPanelTokens, 4 * workers / tiles + 1);
    const size_t piece = size_t(ceil_div(ceil_div(read.count, cuts), kMostTokens)) * kMostTokens;
    // Tables of products are made anew for every run, which begins at an even tile.
    const Packed& weights = *product.weights;
    const size_t run = looks_up(weights, read) ? 2 * size_t(ceil_div(weights.tiles, 2 * workers)) : 1;
    plans.push_back({weights, read, sides[i], added, y_dtype, product.y.data(), size_t(ceil_div(read.count, piece)),
                     piece, run, works});
    works += plans.back().works();
  }
  const size_t grain = works > tiles ? 1 : std::max<size_t>(1, works / (8 * workers));
  parallel_for(works, grain, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const Plan& plan = part_of(plans, &Plan::first_work, i);
      plan.work(i - plan.first_work);
    }
  });
}

}  // namespace tersor::gemm
