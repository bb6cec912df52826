#include "formats/outliers.h"

#include <algorithm>

#include "core/error.h"
#include "core/pool.h"
#include "formats/small_float.h"

namespace tersor::formats {

float Outliers::value(size_t i) const noexcept {
  switch (value_kind) {
    case NumberKind::f32: return load_le<float>(values + 4 * i);
    case NumberKind::bf16: return f32_of_bf16(load_le<uint16_t>(values + 2 * i));
    default: return f32_of_f16(load_le<uint16_t>(values + 2 * i));
  }
}

void Outliers::add(size_t row, size_t first, size_t count, float* out) const noexcept {
  for (size_t i = start(row); i < start(row + 1); ++i) {
    const size_t k = column(i);
    if (k >= first && k - first < count) out[k - first] += value(i);
  }
}

std::vector<PartNeed> outliers_parts(NumberKind values, size_t rows, size_t columns, size_t count) {
  TERSOR_REQUIRE(values == NumberKind::f32 || values == NumberKind::f16 || values == NumberKind::bf16, Code::bad_call,
                 "outliers are fp32, fp16 or bf16, not of kind ", int(values));
  require_shape(rows, columns);
  return {{"row_starts", DType::U32, {rows + 1}},
          {"columns", columns <= kNarrowColumns ? DType::U16 : DType::U32, {count}},
          {"values", dtype_of(values), {count}}};
}

Outliers outliers_of(NumberKind values, size_t rows, size_t columns, std::span<const Part> parts, int threads) {
  // As many as the other parts hold; the row starts are held against it.
  const auto part = std::find_if(parts.begin(), parts.end(), [](const Part& one) { return one.name == "columns"; });
  const size_t count = part != parts.end() && part->shape.size() == 1 ? size_t(part->shape[0]) : 0;
  const auto data = data_of(outliers_parts(values, rows, columns, count), parts);
  Outliers view;
  view.rows = rows, view.columns = columns, view.value_kind = values;
  view.row_starts = data[0].data(), view.places = data[1].data(), view.values = data[2].data();
  check_finite(data[2], values, "values");
  TERSOR_REQUIRE(view.start(0) == 0 && view.start(rows) == count, Code::bad_data, "row_starts: from ", view.start(0),
                 " to ", view.start(rows), ", 0 to ", count, " is needed");
  for (size_t row = 0; row < rows; ++row)
    TERSOR_REQUIRE(view.start(row) <= view.start(row + 1), Code::bad_data, "row_starts: ", view.start(row + 1),
                   " after ", view.start(row), " at row ", row);
  parallel_for(rows, 256, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row)
      for (size_t i = view.start(row); i < view.start(row + 1); ++i) {
        const bool ascends = i == view.start(row) || view.column(i) > view.column(i - 1);
        TERSOR_REQUIRE(ascends && view.column(i) < columns, Code::bad_data, "columns: row ", row, " has an outlier in ",
                       view.column(i), ", columns ascend and are below ", columns);
      }
  });
  return view;
}

}  // namespace tersor::formats
