#include "gemm/linear.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/arena.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"

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
  std::span<const float> bias;
  DType y_dtype;
  uint8_t* y;
  size_t pieces, piece;   // its tokens are cut so
  size_t first_work = 0;  // works of the plans before

  size_t works() const noexcept { return weights.tiles * pieces; }
  // 32 rows of the matrix for a piece of the tokens.
  void work(size_t number) const;

 private:
  struct Span {
    size_t tile_row, first, end;  // tokens
    float* sums;                  // [token][32]
  };
  void integers(const Span& span) const;
  void halves(const Span& span) const;
  void floats(const Span& span) const;
  void finish(const Span& span) const noexcept;

  void at_column(TileGroups& tile, size_t tile_row, size_t column, size_t columns) const noexcept;
  template <class Tile>
  void at_token(Tile& tile, size_t column, size_t token, const Span& span) const noexcept;
  const uint8_t* codes(size_t tile_row) const noexcept { return weights.codes + tile_row * weights.code_tile_bytes(); }

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
    return Numbers{at ? at + (tile_row * weights.groups + first) * stride : nullptr, head.group ? stride : 0};
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

void Plan::integers(const Span& span) const {
  const Kernels& kernel = kernels();
  const int bits = weights.head.bits;
  IntegerTile t{};
  t.bits = bits;
  t.lookup = weights.head.looked_up ? weights.tables->integers : nullptr;
  t.center = weights.head.center;
  t.codes = codes(span.tile_row);
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
    multiply(column);
  });
}

void Plan::halves(const Span& span) const {
  const Bf16Kernels& kernel = *bf16_kernels();
  const int bits = weights.head.bits;
  FloatTile t{};
  t.bits = bits, t.levels = &weights.tables->levels, t.codes = codes(span.tile_row);
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
    multiply(column);
  });
}

void Plan::floats(const Span& span) const {
  const FloatKernels& kernel = float_kernels();
  const int bits = weights.head.bits;
  FloatTile t{};
  ScratchFrame scratch;
  const auto bytes = scratch.bytes(kFloatColumns * kTileRows);
  const auto panel = scratch.take<float>(kFloatColumns * kTileRows);
  const uint8_t* from = codes(span.tile_row);
  t.codes = reinterpret_cast<const uint8_t*>(panel.data());
  each_panel(t, span.tile_row, kFloatColumns, [&](size_t column, size_t columns) {
    kernels().integer_panel(bits, nullptr, from, t.steps, bytes.data());
    kernel.levels(bits, weights.tables->levels.exact, bytes.data(), t.steps, panel.data());
    from += columns * kTileRows / 8 * size_t(bits);
    for (size_t token = span.first; token < span.end; token += kMostTokens) {
      at_token(t, column, token, span);
      kernel.tile(t, std::min(kMostTokens, span.end - token));
    }
  });
}

void Plan::finish(const Span& span) const noexcept {
  const size_t rows = weights.head.rows, row = span.tile_row * kTileRows, count = std::min(kTileRows, rows - row);
  const size_t size = dtype_bytes(y_dtype);
  const float factor = weights.head.factor * (tokens.reading.arithmetic == Arithmetic::int8 ? weights.head.step : 1);
  const float* sums = span.sums;
  for (size_t token = span.first; token < span.end; ++token, sums += kTileRows) {
    const float scale = tokens.scales[token] * factor;
    float out[kTileRows];
    if (bias.empty())
      for (size_t i = 0; i < count; ++i) out[i] = sums[i] * scale;
    else
      for (size_t i = 0; i < count; ++i) out[i] = sums[i] * scale + bias[row + i];
    from_floats(y_dtype, out, count, y + (token * rows + row) * size);
  }
}

void Plan::work(size_t number) const {
  Span span{number % weights.tiles, number / weights.tiles * piece, 0, nullptr};
  span.end = std::min(tokens.count, span.first + piece);
  ScratchFrame scratch;
  span.sums = scratch.take<float>((span.end - span.first) * kTileRows).data();
  switch (tokens.reading.arithmetic) {
    case Arithmetic::int8: integers(span); break;
    case Arithmetic::bf16: halves(span); break;
    case Arithmetic::f32: floats(span); break;
  }
  finish(span);
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
  const auto arithmetic = activations != Activations::exact               ? Arithmetic::int8
                          : x == DType::BF16 && bf16_kernels() != nullptr ? Arithmetic::bf16
                                                                          : Arithmetic::f32;
  const size_t most = activations == Activations::int8_g128 ? 128
                      : arithmetic == Arithmetic::f32       ? kFloatColumns
                                                            : kMostGroupColumns;
  return {activations, arithmetic, weights.padded_columns, std::min(scale_group(weights), most)};
}

// Rows of x to be read as tokens, once for all products that read them alike.
struct Batch {
  const uint32_t* rows;
  Tokens tokens;
  size_t first;  // tokens of the batches before
};

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
    const auto same = std::ranges::find_if(
        batches, [&](const Batch& batch) { return !batch.rows && !product.rows && batch.tokens.reading == reading; });
    batch_of.push_back(size_t(same - batches.begin()));
    if (same == batches.end()) {
      const size_t count = product.rows ? product.row_count : x.rows;
      batches.push_back({product.rows, Tokens(reading, count, scratch), tokens});
      tokens += count;
    }
    tiles += product.weights->tiles;
  }
  parallel_for(tokens, std::max<size_t>(1, 32768 / std::max<size_t>(1, x.columns)), threads,
               [&](size_t begin, size_t end) {
                 for (size_t i = begin; i < end; ++i) {
                   const Batch& batch = part_of(batches, &Batch::first, i);
                   const size_t token = i - batch.first;
                   batch.tokens.read(x, batch.rows ? batch.rows[token] : token, token, kernel);
                 }
               });

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
    plans.push_back(
        {*product.weights, read, added, y_dtype, product.y.data(), size_t(ceil_div(read.count, piece)), piece, works});
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
