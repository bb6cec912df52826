#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/small_float.h"
#include "solve/codebook_fit.h"
#include "solve/fit_rows.h"
#include "vq/kmeans.h"

namespace tersor::solve {
namespace {

using formats::NumberKind;

constexpr size_t kSampleAnEntry = 64, kLeastSample = size_t(1) << 16;  // vectors that a stage is learned from

// The square root of the mean square, summed in the order of fit_rows.h.
float root_mean_square(std::span<const float> row) noexcept {
  return float(std::sqrt(squares({row, {}}, [](float weight) { return weight; }) / double(row.size())));
}

}  // namespace

void codebook_fit(const Weights& weights, const formats::VectorCodebook& format, const CodebookFit& options,
                  std::span<const formats::PartRoom> parts, int threads) {
  require_weights(weights, threads);
  const size_t rows = weights.rows, columns = weights.columns, entries = format.entries;
  const size_t d = size_t(format.dimension), vectors = size_t(ceil_div(columns, d)), width = vectors * d;
  const auto data = formats::data_of(formats::parts_of(format, rows, columns), parts);
  const auto put_scale = [&](size_t row, float scale) {
    scale = rounded(NumberKind::f16, scale);
    require_finite(scale, "scale", row, 0);
    put_number(NumberKind::f16, data[2], row, scale);
    return scale;
  };

  // Rows over their scales, what is missing in a last vector as 0; stage by stage what is left of them.
  std::vector<float> rest(rows * width);
  parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
    std::vector<float> row(columns);
    for (size_t n = begin; n < end; ++n) {
      weights.row(n, row.data());
      const float scale = put_scale(n, root_mean_square(row));
      for (size_t k = 0; k < columns; ++k) rest[n * width + k] = scale > 0 ? row[k] / scale : 0;
    }
  });
  const std::vector<float> whole = options.least_squares ? rest : std::vector<float>();

  std::vector<uint16_t> codes(rows * vectors);
  for (int s = 0; s < format.stages; ++s) {
    const size_t values = entries * d;
    const auto stage = data[1].subspan(size_t(s) * 2 * values, 2 * values);
    if (!options.given) {
      const vq::KMeans learn{.entries = entries,
                             .rounds = options.rounds,
                             .sample = std::max(kLeastSample, kSampleAnEntry * entries),
                             .seed = options.seed + uint64_t(s)};
      const auto learned = vq::kmeans({rest, d}, learn, threads);
      for (size_t i = 0; i < values; ++i) {
        require_finite(rounded(NumberKind::f16, learned[i]), "entry", size_t(s), i / d);
        put_number(NumberKind::f16, stage, i, rounded(NumberKind::f16, learned[i]));
      }
    }
    std::vector<float> codebook(values);
    for (size_t i = 0; i < values; ++i) codebook[i] = formats::f32_of_f16(load_le<uint16_t>(stage.data() + 2 * i));
    vq::nearest({rest, d}, {codebook, d}, {}, {codes, {}, rest}, threads);
    const size_t bytes = data[0].size() / size_t(format.stages);
    formats::pack_wide_rows(codes, format.bits(), entries, rows, vectors, data[0].subspan(size_t(s) * bytes, bytes),
                            threads);
  }
  if (!options.least_squares) return;
  // With v what the codes stand for and w the row, scale = (w v) / (v v).
  parallel_for(rows, grain_of(columns), threads, [&](size_t begin, size_t end) {
    for (size_t n = begin; n < end; ++n) {
      double both = 0, own = 0;
      for (size_t i = n * width; i < n * width + columns; ++i) {
        const double v = double(whole[i]) - double(rest[i]);
        both += double(whole[i]) * v, own += v * v;
      }
      const float scale = formats::f32_of_f16(load_le<uint16_t>(data[2].data() + 2 * n));
      if (own > 0 && both > 0) put_scale(n, float(double(scale) * both / own));
    }
  });
}

}  // namespace tersor::solve
