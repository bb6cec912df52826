#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "formats/small_float.h"
#include "solve/codebook_fit.h"
#include "solve/fit_rows.h"
#include "vq/kmeans.h"

namespace tersor::solve {
namespace {

using formats::NumberKind;
using formats::ScalarCodebook;
using formats::Scope;

constexpr size_t kSample = size_t(1) << 18;  // weights that a codebook for all is learned from
constexpr int kShrinks = 36;                 // of a group's scale: 1, 0.98, ..., 0.3

// A codebook as a search needs it: levels in order, and where from one to the next the nearer one changes.
class Levels {
 public:
  explicit Levels(std::span<const float> table) : count_(table.size()) {
    std::iota(codes_, codes_ + count_, uint8_t(0));
    std::stable_sort(codes_, codes_ + count_, [&](uint8_t a, uint8_t b) { return table[a] < table[b]; });
    for (size_t i = 0; i < count_; ++i) levels_[i] = table[codes_[i]];
    for (size_t i = 0; i + 1 < count_; ++i) middles_[i] = levels_[i] / 2 + levels_[i + 1] / 2;
  }
  // The place of the nearest level; of two as near the lower one.
  size_t place(float value) const noexcept {
    return size_t(std::lower_bound(middles_, middles_ + count_ - 1, value) - middles_);
  }
  uint8_t code(size_t place) const noexcept { return codes_[place]; }
  float level(size_t place) const noexcept { return levels_[place]; }

 private:
  size_t count_;
  uint8_t codes_[256];
  float levels_[256], middles_[256];
};

float ratio(float weight, float scale) noexcept { return scale > 0 ? weight / scale : 0; }

float stored_level(const ScalarCodebook& format, std::span<const uint8_t> codebook, size_t i) noexcept {
  return format.table == NumberKind::f32 ? load_le<float>(codebook.data() + 4 * i)
                                         : formats::f32_of_f16(load_le<uint16_t>(codebook.data() + 2 * i));
}

// The scale among some smaller ones that leaves the least squared error.
float best_scale(NumberKind kind, const Levels& levels, const Group& group, float scale) noexcept {
  float best = scale;
  double least = INFINITY;
  for (int i = 0; i < kShrinks; ++i) {
    const float one = rounded(kind, scale * (1 - 0.02f * float(i)));
    const double error =
        squares(group, [&](float weight) { return weight - one * levels.level(levels.place(ratio(weight, one))); });
    if (error < least) least = error, best = one;
  }
  return best;
}

}  // namespace

void codebook_fit(const Weights& weights, const ScalarCodebook& format, const CodebookFit& options,
                  std::span<const formats::PartRoom> parts, int threads) {
  const float most = require_weights(weights, threads);
  require_importance(options.importance, weights.columns);
  const size_t rows = weights.rows, columns = weights.columns, count = format.levels;
  const auto data = formats::data_of(formats::parts_of(format, rows, columns), parts);
  const formats::GroupLayout layout(format.group, rows, columns);
  const bool scaled = format.scale != NumberKind::none;
  const std::span<uint8_t> codebook = format.scope == Scope::fixed ? std::span<uint8_t>() : data[1];

  std::vector<float> scales(layout.rows * layout.count, 1.0f), matrix(rows * columns), ratios(rows * columns);
  const auto each_group = [&](const auto& f) {
    parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row)
        for (size_t g = 0; g < layout.count; ++g) {
          const size_t first = row * columns + g * layout.group;
          f(row, g, first, std::min(layout.group, columns - g * layout.group));
        }
    });
  };
  const auto scale_of = [&](size_t row, size_t g) -> float& {
    return scales[layout.whole ? 0 : row * layout.count + g];
  };
  if (layout.whole && scaled) {
    scales[0] = rounded(format.scale, most);
    require_finite(scales[0], "scale", 0, 0);
  }
  each_group([&](size_t row, size_t g, size_t first, size_t size) {
    if (g == 0) weights.row(row, matrix.data() + row * columns);
    if (scaled && !layout.whole) {
      scale_of(row, g) = rounded(format.scale, statistics_of({matrix.data() + first, size}).most());
      require_finite(scale_of(row, g), "scale", row, g);
    }
    for (size_t i = first; i < first + size; ++i) ratios[i] = ratio(matrix[i], scale_of(row, g));
  });

  const size_t tables = format.tables(rows, columns);
  if (tables && !options.given) {
    std::vector<float> learned(tables * count);
    vq::KMeans learn{.entries = count, .rounds = options.rounds, .sample = kSample, .seed = options.seed};
    if (format.scope == Scope::tensor) {
      learned = vq::kmeans({ratios, 1}, learn, threads);
      std::sort(learned.begin(), learned.end());
    } else {
      vq::kmeans_groups(ratios, rows, columns, format.scope == Scope::channel ? columns : layout.group, learn, learned,
                        threads);
    }
    for (size_t i = 0; i < learned.size(); ++i) {
      const float level = rounded(format.table, learned[i]);
      require_finite(level, "level", i / count, i % count);
      put_number(format.table, codebook, i, level);
    }
  }

  const auto levels_of = [&](size_t table) {
    std::vector<float> found(count);
    for (size_t i = 0; i < count; ++i)
      found[i] = tables ? stored_level(format, codebook, table * count + i) : formats::kNf4[i];
    return Levels(found);
  };
  const bool one_table = tables <= 1;
  const Levels for_all = levels_of(0);
  std::vector<uint8_t> codes(rows * columns);
  each_group([&](size_t row, size_t g, size_t first, size_t size) {
    const Levels own = one_table ? for_all : levels_of(format.scope == Scope::channel ? row : row * layout.count + g);
    const std::span<const float> some(matrix.data() + first, size);
    float& scale = scale_of(row, g);
    if (options.least_squares && scaled && !layout.whole)
      scale = best_scale(format.scale, own, {some, part_of(options.importance, g * layout.group, size)}, scale);
    for (size_t i = 0; i < size; ++i) codes[first + i] = own.code(own.place(ratio(some[i], scale)));
  });
  if (scaled)
    for (size_t i = 0; i < scales.size(); ++i) put_number(format.scale, data.back(), i, scales[i]);
  formats::pack_rows(codes, format.width(), rows, columns, data[0], threads);
}

}  // namespace tersor::solve
