#include "formats/low_rank.h"

#include <algorithm>

#include "core/bits.h"
#include "core/error.h"
#include "formats/small_float.h"

namespace tersor::formats {
namespace {

float number_at(const uint8_t* data, const uint8_t* scales, NumberKind kind, size_t i, size_t r) noexcept {
  switch (kind) {
    case NumberKind::f16: return f32_of_f16(load_le<uint16_t>(data + 2 * i));
    case NumberKind::bf16: return f32_of_bf16(load_le<uint16_t>(data + 2 * i));
    default: return f32_of_f16(load_le<uint16_t>(scales + 2 * r)) * float(int8_t(data[i]));
  }
}

}  // namespace

float LowRank::u_at(size_t row, size_t r) const noexcept { return number_at(u, u_scales, kind, row * rank + r, r); }
float LowRank::v_at(size_t r, size_t column) const noexcept {
  return number_at(v, v_scales, kind, r * columns + column, r);
}

void LowRank::add(size_t row, size_t first, size_t count, float* out) const noexcept {
  constexpr size_t kPiece = 256;
  while (count) {
    const size_t take = std::min(count, kPiece);
    float sums[kPiece] = {};
    for (size_t r = 0; r < rank; ++r) {
      const float factor = u_at(row, r);
      for (size_t i = 0; i < take; ++i) sums[i] += factor * v_at(r, first + i);
    }
    for (size_t i = 0; i < take; ++i) out[i] += sums[i];
    first += take, count -= take, out += take;
  }
}

std::vector<PartNeed> low_rank_parts(NumberKind kind, size_t rank, size_t rows, size_t columns) {
  TERSOR_REQUIRE(kind == NumberKind::f16 || kind == NumberKind::bf16 || kind == NumberKind::none, Code::bad_call,
                 "low-rank terms are fp16, bf16 or int8, not of kind ", int(kind));
  require_shape(rows, columns);
  TERSOR_REQUIRE(rank >= 1 && rank <= std::min(rows, columns), Code::bad_call, "rank ", rank, ", 1..",
                 std::min(rows, columns), " are possible for [", rows, ", ", columns, "]");
  const DType dtype = kind == NumberKind::none ? DType::I8 : dtype_of(kind);
  std::vector<PartNeed> needs{{"u", dtype, {rows, rank}}, {"v", dtype, {rank, columns}}};
  if (kind == NumberKind::none) {
    needs.push_back({"u_scales", DType::F16, {rank}});
    needs.push_back({"v_scales", DType::F16, {rank}});
  }
  return needs;
}

LowRank low_rank_of(NumberKind kind, size_t rank, size_t rows, size_t columns, std::span<const Part> parts) {
  const auto data = data_of(low_rank_parts(kind, rank, rows, columns), parts);
  LowRank view;
  view.rows = rows, view.columns = columns, view.rank = rank, view.kind = kind;
  view.u = data[0].data(), view.v = data[1].data();
  if (kind == NumberKind::none) {
    view.u_scales = data[2].data(), view.v_scales = data[3].data();
    check_finite(data[2], NumberKind::f16, "u_scales");
    check_finite(data[3], NumberKind::f16, "v_scales");
  } else {
    check_finite(data[0], kind, "u");
    check_finite(data[1], kind, "v");
  }
  return view;
}

}  // namespace tersor::formats
