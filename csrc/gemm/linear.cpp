#include "gemm/linear.h"

#include <algorithm>
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
constexpr bool in_place(const IntegerTile& t, size_t tokens) {
  return tokens < kPanelTokens || (t.bits == 4 && !t.lookup);
}

// A product whose tokens are read.
struct Plan {
  const Packed& weights;
  const Kernels& kernel;
  const Tokens& tokens;
  std::span<const float> bias;
  DType y_dtype;
  uint8_t* y;
  size_t pieces, piece;   // its tokens are cut so
  size_t first_work = 0;  // works of the plans before

  size_t works() const noexcept { return weights.tiles * pieces; }
  // 32 rows of the matrix for a piece of the tokens.
  void work(size_t number) const {
    const size_t first = number / weights.tiles * piece;
    rows(number % weights.tiles, first, std::min(tokens.count, first + piece));
  }

 private:
  void rows(size_t tile_row, size_t first, size_t end) const;
  IntegerTile tile(size_t tile_row) const noexcept;
  void at_column(IntegerTile& tile, size_t column, size_t token) const noexcept;
  void forward(IntegerTile& tile, size_t columns) const noexcept;
  void finish(size_t tile_row, size_t first, size_t end, const float* sums) const noexcept;
};

size_t scale_group(const Packed& weights) noexcept {
  return weights.head.group ? size_t(weights.head.group) : kMostGroupColumns;
}

IntegerTile Plan::tile(size_t tile_row) const noexcept {
  const PackedHead& head = weights.head;
  const size_t group = tokens.reading.group;
  IntegerTile t{};
  t.bits = head.bits;
  t.lookup = head.looked_up ? weights.tables->integers : nullptr;
  t.center = head.center;
  t.codes = weights.codes + tile_row * weights.code_tile_bytes();
  t.group_halves = group / 16;
  t.groups_a_scale = scale_group(weights) / group;
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
  const size_t g = token * t.sums_stride + column / tokens.reading.group;
  t.sums = tokens.sums.data() + g;
  t.x_scales = tokens.group_scales.empty() ? nullptr : tokens.group_scales.data() + g;
  t.first = column == 0;
}

// The groups' numbers `columns` further on.
void Plan::forward(IntegerTile& t, size_t columns) const noexcept {
  for (Numbers* const numbers : {&t.scales, &t.zeros, &t.minimums})
    if (numbers->at) numbers->at += columns / tokens.reading.group / t.groups_a_scale * numbers->group_stride;
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
  const bool reads = (t.lookup ? kernel.looked_up_widths : kernel.widths) >> t.bits & 1;
  const bool whole = reads && in_place(t, end - first);
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

void require_fit(const Matrix& x, const Product& product, DType y_dtype) {
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
  TERSOR_REQUIRE(head.has_integers, Code::bad_call, "int8 arithmetic does not read these levels");
}

Reading reading_of(const Packed& weights, Activations activations) noexcept {
  const size_t most = activations == Activations::int8_g128 ? 128 : kMostGroupColumns;
  return {activations, weights.padded_columns, std::min(scale_group(weights), most)};
}

// Rows of x to be read as tokens, once for all products that read them alike.
struct Batch {
  const uint32_t* rows;
  Tokens tokens;
  size_t first;  // tokens of the batches before
};

// The last of `parts`, ascending by `first`, that begins at `number` or before.
template <class T>
const T& part_of(const std::vector<T>& parts, size_t T::*first, size_t number) noexcept {
  return *(std::upper_bound(parts.begin(), parts.end(), number,
                            [first](size_t n, const T& part) { return n < part.*first; }) -
           1);
}

}  // namespace

void linear(const Matrix& x, std::span<const Product> products, Activations activations, DType y_dtype, int threads) {
  require_float(x.dtype, "x's elements"), require_float(y_dtype, "y's elements");
  for (const Product& product : products) require_fit(x, product, y_dtype);
  const Kernels& kernel = kernels();
  const size_t workers = size_t(std::max(1, threads > 0 ? threads : num_threads()));
  ScratchFrame scratch;

  std::vector<Batch> batches;
  std::vector<size_t> batch_of;
  size_t tokens = 0, tiles = 0;
  for (const Product& product : products) {
    const Reading reading = reading_of(*product.weights, activations);
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
    plans.push_back({*product.weights, kernel, read, added, y_dtype, product.y.data(),
                     size_t(ceil_div(read.count, piece)), piece, works});
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
