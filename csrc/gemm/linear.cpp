#include "gemm/linear.h"

#include <algorithm>
#include <vector>

#include "core/arena.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/small_float.h"
#include "gemm/plan.h"

namespace tersor::gemm {
namespace {

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

constexpr size_t kMostRun = 16;  // tiles whose sums stay in the nearest cache

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
    // Tables of products are made anew for every run, which begins at an even tile then.
    const Packed& weights = *product.weights;
    const size_t run = looks_up(weights, read)    ? 2 * size_t(ceil_div(weights.tiles, 2 * workers))
                       : read.count > kMostTokens ? 1
                                                  : std::clamp<size_t>(weights.tiles / (8 * workers), 1, kMostRun);
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
