#include "formats/float_group.h"

#include <array>

#include "core/error.h"

namespace tersor::formats {
namespace {

using Levels = std::array<float, 256>;

Levels levels_of(const SmallFloat& floats) {
  Levels levels{};
  for (int code = 0; code < 1 << floats.bits; ++code) levels[size_t(code)] = floats.value(uint8_t(code));
  return levels;
}

const float* levels_of(FloatGroup::Element element) {
  static const Levels kLevels[] = {levels_of(kE2M1), levels_of(kE2M3), levels_of(kE3M2), levels_of(kE4M3),
                                   levels_of(kE5M2)};
  return kLevels[int(element)].data();
}

}  // namespace

const SmallFloat& FloatGroup::floats() const noexcept {
  switch (element) {
    case Element::e2m1: return kE2M1;
    case Element::e2m3: return kE2M3;
    case Element::e3m2: return kE3M2;
    case Element::e4m3: return kE4M3;
    case Element::e5m2: break;
  }
  return kE5M2;
}

void check(const FloatGroup& format) {
  require_group(format.group);
  switch (format.scale) {
    case NumberKind::f32:
    case NumberKind::f16:
    case NumberKind::bf16:
    case NumberKind::e8m0: break;
    case NumberKind::e4m3:
      TERSOR_REQUIRE(format.group != kTensor, Code::bad_call,
                     "e4m3 scales stand under one scale of the tensor: their group is not \"tensor\"");
      break;
    default: fail(Code::bad_call, "scales of float_group are fp32, fp16, bf16, e8m0 or e4m3");
  }
}

std::vector<PartNeed> parts_of(const FloatGroup& format, size_t rows, size_t columns) {
  check(format);
  require_shape(rows, columns);
  const GroupLayout layout(format.group, rows, columns);
  std::vector<PartNeed> needs{{"codes", DType::U8, {rows, format.width().row_bytes(columns)}},
                              {"scales", dtype_of(format.scale), {layout.rows, layout.count}}};
  if (format.has_tensor_scale()) needs.push_back({"tensor_scale", DType::F32, {1}});
  return needs;
}

Grid grid_of(const FloatGroup& format, size_t rows, size_t columns, std::span<const Part> parts, int threads) {
  const auto data = data_of(parts_of(format, rows, columns), parts);
  const GroupLayout layout(format.group, rows, columns);
  const SmallFloat& floats = format.floats();
  Grid grid;
  grid.rows = rows, grid.columns = columns;
  grid.bits = floats.bits;
  grid.group = layout.group;
  grid.codes = data[0].data(), grid.row_bytes = format.width().row_bytes(columns);
  grid.levels = levels_of(format.element);
  grid.step = 0;  // no integers, unless
  if (format.element == FloatGroup::Element::e2m1 || format.element == FloatGroup::Element::e2m3) {
    grid.step = format.element == FloatGroup::Element::e2m1 ? 0.5f : 0.125f;
    grid.center = int(floats.most / grid.step);
    grid.integers_exact = true;
    for (int code = 0; code < 1 << floats.bits; ++code)
      grid.integers[size_t(code)] = uint8_t(int(grid.levels[code] / grid.step) + grid.center);
  }
  check_codes(data[0], format.width(), rows, columns, &floats, threads);
  check_finite(data[1], format.scale, "scales");
  grid.scales = {.kind = format.scale, .data = data[1].data(), .row_stride = layout.row_stride()};
  if (format.has_tensor_scale()) {
    check_finite(data[2], NumberKind::f32, "tensor_scale");
    grid.scales.factor = load_le<float>(data[2].data());
  }
  return grid;
}

}  // namespace tersor::formats
