#include "formats/int_group.h"

#include <array>

#include "core/error.h"

namespace tersor::formats {
namespace {

// code + lowest for codes from 0 on; one bit counts in twos.
template <int kLowest, int kStep>
constexpr std::array<float, 256> kLevels = [] {
  std::array<float, 256> levels{};
  for (int code = 0; code < 256; ++code) levels[size_t(code)] = float(kLowest + kStep * code);
  return levels;
}();

const float* levels_of(const IntGroup& format) noexcept {
  switch (format.lowest()) {
    case -1: return format.bits == 1 ? kLevels<-1, 2>.data() : kLevels<-1, 1>.data();
    case -2: return kLevels<-2, 1>.data();
    case -4: return kLevels<-4, 1>.data();
    case -8: return kLevels<-8, 1>.data();
    case -16: return kLevels<-16, 1>.data();
    case -32: return kLevels<-32, 1>.data();
    case -128: return kLevels<-128, 1>.data();
    default: return kLevels<0, 1>.data();
  }
}

GroupNumbers numbers_of(const IntGroup& format, const GroupLayout& layout, std::span<const uint8_t> data,
                        std::span<const uint8_t> supers, const char* name, const char* supers_name) {
  GroupNumbers numbers{.kind = format.scale, .data = data.data(), .row_stride = layout.row_stride()};
  if (format.super()) {
    numbers.supers = supers.data();
    numbers.supers_span = size_t(format.span());
    numbers.supers_row_stride = size_t(ceil_div(layout.count, numbers.supers_span));
    check_most(data, (1 << format.super_bits) - 1, name);
    check_finite(supers, NumberKind::f16, supers_name);
  } else {
    check_finite(data, format.scale, name);
  }
  return numbers;
}

}  // namespace

int IntGroup::lowest() const noexcept {
  if (mode != Mode::symmetric) return 0;
  return ternary || bits == 1 ? -1 : -(1 << (bits - 1));
}

void check(const IntGroup& format) {
  TERSOR_REQUIRE((format.bits >= 1 && format.bits <= 6) || format.bits == 8, Code::bad_call,
                 "bits are 1, 2, 3, 4, 5, 6, 8 or \"ternary\", not ", format.bits);
  TERSOR_REQUIRE(!format.ternary || (format.bits == 2 && format.mode == IntGroup::Mode::symmetric), Code::bad_call,
                 "ternary levels are symmetric");
  require_group(format.group);
  switch (format.scale) {
    case NumberKind::f32:
    case NumberKind::f16:
    case NumberKind::bf16: break;
    case NumberKind::super:
      TERSOR_REQUIRE(format.group == 16 || format.group == 32, Code::bad_call,
                     "super-scales need groups of 16 or 32, not ", group_text(format.group));
      TERSOR_REQUIRE(format.super_bits >= 6 && format.super_bits <= 8, Code::bad_call,
                     "scales under a super-scale have 6, 7 or 8 bits, not ", format.super_bits);
      break;
    default: fail(Code::bad_call, "scales of int_group are fp32, fp16, bf16, super6, super7 or super8");
  }
}

std::vector<PartNeed> parts_of(const IntGroup& format, size_t rows, size_t columns) {
  check(format);
  require_shape(rows, columns);
  const GroupLayout layout(format.group, rows, columns);
  const Shape numbers{layout.rows, layout.count};
  std::vector<PartNeed> needs{{"codes", DType::U8, {rows, format.width().row_bytes(columns)}},
                              {"scales", dtype_of(format.scale), numbers}};
  if (format.has_zeros()) needs.push_back({"zeros", DType::U8, numbers});
  if (format.has_minimums()) needs.push_back({"minimums", dtype_of(format.scale), numbers});
  if (format.super()) {
    const Shape supers{layout.rows, ceil_div(layout.count, uint64_t(format.span()))};
    needs.push_back({"super_scales", DType::F16, supers});
    if (format.has_minimums()) needs.push_back({"super_minimums", DType::F16, supers});
  }
  return needs;
}

Grid grid_of(const IntGroup& format, size_t rows, size_t columns, std::span<const Part> parts, int threads) {
  const auto needs = parts_of(format, rows, columns);
  const auto data = data_of(needs, parts);
  const auto named = [&](std::string_view name) {
    for (size_t i = 0; i < needs.size(); ++i)
      if (needs[i].name == name) return data[i];
    return std::span<const uint8_t>();
  };
  const GroupLayout layout(format.group, rows, columns);
  Grid grid;
  grid.rows = rows, grid.columns = columns;
  grid.bits = format.bits, grid.trits = format.ternary;
  grid.group = layout.group;
  grid.codes = data[0].data(), grid.row_bytes = format.width().row_bytes(columns);
  grid.levels = levels_of(format);
  for (size_t code = 0; code < 256; ++code) grid.integers[code] = uint8_t(format.bits == 1 ? 2 * code : code);
  if (format.mode != IntGroup::Mode::symmetric) {
    for (size_t code = 0; code < 256; ++code) grid.integers[code] = uint8_t(code);
  }
  grid.center = -format.lowest();
  grid.step = 1, grid.integers_exact = true;
  check_codes(data[0], format.width(), rows, columns, nullptr, threads);
  grid.scales = numbers_of(format, layout, data[1], named("super_scales"), "scales", "super_scales");
  if (format.has_zeros()) {
    check_most(named("zeros"), (1 << format.bits) - 1, "zeros");
    grid.zeros = {.kind = NumberKind::u8, .data = named("zeros").data(), .row_stride = layout.row_stride()};
  }
  if (format.has_minimums())
    grid.minimums =
        numbers_of(format, layout, named("minimums"), named("super_minimums"), "minimums", "super_minimums");
  return grid;
}

}  // namespace tersor::formats
