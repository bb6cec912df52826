#include <array>

#include "solve/fit_rows.h"
#include "solve/grid_fit.h"

namespace tersor::solve {
namespace {

using formats::IntGroup;
using formats::NumberKind;
using Mode = IntGroup::Mode;

constexpr int kShrinks = 36;  // of the range: 1, 0.98, ..., 0.3
constexpr int kSizes = 33;    // of ternary scales, as multiples of the mean magnitude: 1, then 0.6, 0.65, ..., 2.2

struct Rule {
  const IntGroup& format;
  std::span<uint8_t> scales, zeros, minimums, super_scales, super_minimums;
  size_t groups;  // of a row
  float most_code = float(format.width().codes() - 1);
  bool sign = format.bits == 1 && format.mode == Mode::symmetric;
  NumberKind stored = format.super() ? NumberKind::f32 : format.scale;  // what a candidate is rounded to

  int candidates() const noexcept {
    if (sign) return 1;
    if (format.ternary) return 1 + kSizes;
    return kShrinks + (format.mode == Mode::symmetric);
  }

  Choice candidate(const Statistics& group, int i) const noexcept {
    const float shrink = 1 - 0.02f * float(i);
    switch (format.mode) {
      case Mode::symmetric: return symmetric(group, i, shrink);
      case Mode::zero: {
        const float low = std::min(group.lowest, 0.f) * shrink, high = std::max(group.highest, 0.f) * shrink;
        Choice choice{.scale = rounded(stored, high / most_code - low / most_code)};
        if (choice.scale > 0) choice.zero = int(nearest(std::clamp(-low / choice.scale, 0.f, most_code)));
        return choice;
      }
      case Mode::minimum: break;
    }
    // Under super-minimums of one sign, as k-quants have them, the range reaches down to 0 at least.
    const float bottom = format.super() ? std::min(group.lowest, 0.f) : group.lowest;
    const float center = bottom / 2 + group.highest / 2;
    const auto towards_center = [&](float end) { return i == 0 ? end : center + shrink * (end - center); };
    const float low = towards_center(bottom), high = towards_center(group.highest);
    Choice choice{.minimum = rounded(stored, format.super() ? std::min(low, 0.f) : low)};
    choice.scale = rounded(stored, std::max(high / most_code - choice.minimum / most_code, 0.f));
    return choice;
  }

  Choice symmetric(const Statistics& group, int i, float shrink) const noexcept {
    Choice choice{.zero = -format.lowest()};
    if (sign || format.ternary) {
      const float size = i == 0 ? 1 : 0.55f + 0.05f * float(i);
      choice.scale = rounded(stored, group.mean_size() * size);
      return choice;
    }
    // The extreme weight is the lowest level, which has no twin above. The last candidate lets both ends reach as far.
    const float low = float(-format.lowest());
    if (format.super() || i == kShrinks)
      choice.scale = rounded(stored, group.most() / (low - 1) * (i == kShrinks ? 1 : shrink));
    else
      choice.scale = rounded(stored, -group.extreme() / low * shrink);
    return choice;
  }

  // The level of a weight, counted in scales from the minimum.
  template <class F>
  void with_level(const Choice& choice, const F& f) const noexcept {
    const float scale = choice.scale, minimum = choice.minimum;
    const float low = float(-choice.zero), high = most_code - float(choice.zero);
    if (sign)
      f([](float weight) { return weight >= 0 ? 1.f : -1.f; });
    else if (scale == 0)
      f([](float) { return 0.f; });
    else
      f([=](float weight) { return nearest(std::clamp((weight - minimum) / scale, low, high)); });
  }

  double error(const Choice& choice, const Group& group) const noexcept {
    double sum = 0;
    with_level(choice, [&](const auto& level) {
      sum = squares(group, [&](float weight) { return weight - (choice.scale * level(weight) + choice.minimum); });
    });
    return sum;
  }

  void encode(const Choice& choice, std::span<const float> weights, uint8_t* codes) const noexcept {
    with_level(choice, [&](const auto& level) {
      for (size_t i = 0; i < weights.size(); ++i)
        codes[i] = uint8_t(sign ? weights[i] >= 0 : int(level(weights[i])) + choice.zero);
    });
  }

  void store(size_t row, std::span<Choice> choices) const {
    if (format.has_zeros())
      for (size_t g = 0; g < choices.size(); ++g) zeros[row * groups + g] = uint8_t(choices[g].zero);
    if (format.super()) {
      store_super(row, choices, scales, super_scales, &Choice::scale, "super-scale");
      if (format.has_minimums()) store_super(row, choices, minimums, super_minimums, &Choice::minimum, "super-minimum");
      return;
    }
    for (size_t g = 0; g < choices.size(); ++g) {
      require_finite(choices[g].scale, "scale", row, g);
      require_finite(choices[g].minimum, "minimum", row, g);
      put_number(format.scale, scales, row * groups + g, choices[g].scale);
      if (format.has_minimums()) put_number(format.scale, minimums, row * groups + g, choices[g].minimum);
    }
  }

  // All numbers of a row have one sign: that of the super-number.
  void store_super(size_t row, std::span<Choice> choices, std::span<uint8_t> numbers, std::span<uint8_t> supers,
                   float Choice::* number, const char* what) const {
    const size_t span = size_t(format.span()), most = (size_t(1) << format.super_bits) - 1;
    const size_t supers_a_row = (groups - 1) / span + 1;
    for (size_t first = 0; first < choices.size(); first += span) {
      const auto some = choices.subspan(first, std::min(span, choices.size() - first));
      float extreme = 0;
      for (const Choice& choice : some)
        if (std::fabs(choice.*number) > std::fabs(extreme)) extreme = choice.*number;
      const float super = rounded(NumberKind::f16, extreme / float(most));
      require_finite(super, what, row, first);
      put_number(NumberKind::f16, supers, row * supers_a_row + first / span, super);
      for (size_t g = 0; g < some.size(); ++g) {
        const float ratio = super == 0 ? 0 : some[g].*number / super;
        const float integer = nearest(std::clamp(ratio, 0.f, float(most)));
        numbers[row * groups + first + g] = uint8_t(integer);
        some[g].*number = super * integer;
      }
    }
  }
};

}  // namespace

void grid_fit(const Weights& weights, const IntGroup& format, const GridFit& options,
              std::span<const formats::PartRoom> parts, int threads) {
  require_weights(weights, threads);
  const auto needs = formats::parts_of(format, weights.rows, weights.columns);
  const auto data = formats::data_of(needs, parts);
  const auto named = [&](std::string_view name) {
    for (size_t i = 0; i < needs.size(); ++i)
      if (needs[i].name == name) return data[i];
    return std::span<uint8_t>();
  };
  const formats::GroupLayout layout(format.group, weights.rows, weights.columns);
  const Rule rule{.format = format,
                  .scales = named("scales"),
                  .zeros = named("zeros"),
                  .minimums = named("minimums"),
                  .super_scales = named("super_scales"),
                  .super_minimums = named("super_minimums"),
                  .groups = layout.count};
  fit_rows(weights, format.group, format.width(), rule, options, named("codes"), threads);
}

}  // namespace tersor::solve
