#include "solve/fit_rows.h"
#include "solve/grid_fit.h"

namespace tersor::solve {
namespace {

using formats::FloatGroup;
using formats::NumberKind;
using formats::SmallFloat;

constexpr int kShrinks = 36;              // of the range: 1, 0.98, ..., 0.3
constexpr int kExponents[] = {0, 1, -1};  // beside OCP's

struct Rule {
  const FloatGroup& format;
  std::span<uint8_t> scales;
  size_t groups;       // of a row
  float tensor_scale;  // where scales are e4m3
  const SmallFloat floats = format.floats();

  int candidates() const noexcept { return format.scale == NumberKind::e8m0 ? int(std::size(kExponents)) : kShrinks; }

  Choice candidate(const Statistics& group, int i) const noexcept {
    const float most = group.most();
    if (format.scale == NumberKind::e8m0) {
      // OCP: the largest weight's exponent is the largest element's; what is then beyond its range saturates.
      const int exponent = most == 0 ? -127 : std::ilogb(most) - floats.top + kExponents[i];
      const uint8_t byte = uint8_t(std::clamp(exponent + 127, 0, 254));
      return {.scale = formats::f32_of_e8m0(byte), .scale_byte = byte};
    }
    const float scale = most / floats.most * (1 - 0.02f * float(i));
    if (format.scale != NumberKind::e4m3) return {.scale = rounded(format.scale, scale)};
    const uint8_t byte = tensor_scale == 0 ? 0 : formats::kE4M3.code(scale / tensor_scale);
    return {.scale = formats::kE4M3.value(byte) * tensor_scale, .scale_byte = byte};
  }

  double error(const Choice& choice, const Group& group) const noexcept {
    const float scale = choice.scale;
    if (scale == 0) return squares(group, [](float weight) { return weight; });
    return squares(group, [&](float weight) { return weight - scale * floats.rounded(weight / scale); });
  }

  void encode(const Choice& choice, std::span<const float> weights, uint8_t* codes) const noexcept {
    for (size_t i = 0; i < weights.size(); ++i)
      codes[i] = choice.scale == 0 ? 0 : floats.code(weights[i] / choice.scale);
  }

  void store(size_t row, std::span<const Choice> choices) const {
    for (size_t g = 0; g < choices.size(); ++g) {
      if (formats::dtype_of(format.scale) == DType::U8) {
        scales[row * groups + g] = choices[g].scale_byte;
        continue;
      }
      require_finite(choices[g].scale, "scale", row, g);
      put_number(format.scale, scales, row * groups + g, choices[g].scale);
    }
  }
};

}  // namespace

void grid_fit(const Weights& weights, const FloatGroup& format, const GridFit& options,
              std::span<const formats::PartRoom> parts, int threads) {
  const float most = require_weights(weights, threads);
  const auto data = formats::data_of(formats::parts_of(format, weights.rows, weights.columns), parts);
  const formats::GroupLayout layout(format.group, weights.rows, weights.columns);
  // The largest block's scale is then e4m3's largest number.
  const float tensor_scale = most / (formats::kE4M3.most * format.floats().most);
  if (format.has_tensor_scale()) put_number(NumberKind::f32, data[2], 0, tensor_scale);
  const Rule rule{.format = format, .scales = data[1], .groups = layout.count, .tensor_scale = tensor_scale};
  fit_rows(weights, format.group, format.width(), rule, options, data[0], threads);
}

}  // namespace tersor::solve
