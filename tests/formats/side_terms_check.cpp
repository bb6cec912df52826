// Outliers and low-rank terms: added where they belong, in pieces as in whole rows; what points outside is refused.
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "formats/held_parts.h"
#include "formats/low_rank.h"
#include "formats/outliers.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::formats;
using tersor::check::error_of;
using tersor::check::HeldParts;

namespace {

constexpr size_t kRows = 4, kColumns = 50;

// Outlier i is in column 3 i of its row and is worth i + 1; rows have 0, 1, 2, 3 of them.
HeldParts outliers(size_t columns) {
  HeldParts parts(outliers_parts(NumberKind::f16, kRows, columns, 6));
  for (uint32_t n = 0, i = 0; n < kRows; ++n) {
    for (uint32_t j = 0; j < n; ++j, ++i) {
      parts.put("values", i, f16_of_f32(float(i + 1)));
      if (columns <= kNarrowColumns)
        parts.put("columns", i, uint16_t(3 * j));
      else
        parts.put("columns", i, 3 * j);
    }
    parts.put("row_starts", n + 1, i);
  }
  return parts;
}

HeldParts low_rank(NumberKind kind, size_t rank) {
  std::mt19937 random(1);
  HeldParts parts(low_rank_parts(kind, rank, kRows, kColumns));
  for (const auto& need : parts.needs)
    for (size_t i = 0; i < HeldParts::bytes(need) / (need.dtype == DType::I8 ? 1 : 2); ++i) {
      const float value = float(int(random() % 255) - 127) / 16;
      if (need.dtype == DType::I8) parts.put(need.name, i, int8_t(random()));
      if (need.dtype == DType::F16) parts.put(need.name, i, f16_of_f32(value));
      if (need.dtype == DType::BF16) parts.put(need.name, i, bf16_of_f32(value));
    }
  return parts;
}

template <class View>
void pieces_agree(const View& view, size_t columns) {
  for (size_t n = 0; n < kRows; ++n) {
    std::vector<float> whole(columns, 0.5f), pieces(columns, 0.5f);
    view.add(n, 0, columns, whole.data());
    for (size_t first = 0; first < columns; first += 7)
      view.add(n, first, std::min<size_t>(7, columns - first), pieces.data() + first);
    CHECK(whole == pieces);
  }
}

}  // namespace

TEST_CASE("outliers: added where they belong") {
  for (const size_t columns : {kColumns, size_t(70'000)}) {
    HeldParts parts = outliers(columns);
    const Outliers view = outliers_of(NumberKind::f16, kRows, columns, parts.list(), 2);
    std::vector<float> row(columns, 1);
    view.add(3, 0, columns, row.data());
    CHECK(row[0] == 5 && row[1] == 1 && row[3] == 6 && row[6] == 7 && row[columns - 1] == 1);
    pieces_agree(view, columns);
  }
}

TEST_CASE("outliers: what points outside is refused") {
  const auto error = [&](auto&& change) {
    HeldParts parts = outliers(kColumns);
    change(parts);
    return error_of([&] { outliers_of(NumberKind::f16, kRows, kColumns, parts.list(), 1); });
  };
  CHECK(error([](HeldParts& parts) { parts.put<uint32_t>("row_starts", 4, 7); }) ==
        "row_starts: from 0 to 7, 0 to 6 is needed");
  CHECK(error([](HeldParts& parts) { parts.put<uint32_t>("row_starts", 0, 1); }) ==
        "row_starts: from 1 to 6, 0 to 6 is needed");
  CHECK(error([](HeldParts& parts) { parts.put<uint32_t>("row_starts", 2, 0x80000000); }) ==
        "row_starts: 3 after 2147483648 at row 2");
  CHECK(error([](HeldParts& parts) { parts.put<uint16_t>("columns", 5, 50); }) ==
        "columns: row 3 has an outlier in 50, columns ascend and are below 50");
  CHECK(error([](HeldParts& parts) { parts.put<uint16_t>("columns", 4, 0); }) ==
        "columns: row 3 has an outlier in 0, columns ascend and are below 50");
  CHECK(error([](HeldParts& parts) { parts.put<uint16_t>("values", 0, 0xfc00); }) ==
        "part values: number 0 is not finite");
  CHECK(error([](HeldParts& parts) { parts.needs[1].dtype = DType::U32; }).starts_with("part columns is U32 [6]"));
  CHECK(error([](HeldParts& parts) { parts.needs[1].shape = {5}; }) == "part values is F16 [6], F16 [5] is needed");
  // Shapes that the bytes are no match for.
  const HeldParts parts = outliers(kColumns);
  for (const uint64_t count : {uint64_t(5), uint64_t(7), uint64_t(1) << 62, ~uint64_t(0)}) {
    auto list = parts.list();
    list[1].shape = list[2].shape = {count};
    CHECK(!error_of([&] { outliers_of(NumberKind::f16, kRows, kColumns, list, 1); }).empty());
  }
  CHECK(error_of([] { outliers_parts(NumberKind::u8, 1, 1, 1); }) == "outliers are fp32, fp16 or bf16, not of kind 7");
}

TEST_CASE("low_rank: sums of products in order") {
  for (const NumberKind kind : {NumberKind::f16, NumberKind::bf16, NumberKind::none})
    for (const size_t rank : {1, 2, 4}) {
      HeldParts parts = low_rank(kind, rank);
      const LowRank view = low_rank_of(kind, rank, kRows, kColumns, parts.list());
      for (size_t n = 0; n < kRows; ++n) {
        std::vector<float> row(kColumns, 2);
        view.add(n, 0, kColumns, row.data());
        for (size_t k = 0; k < kColumns; ++k) {
          float sum = 0;
          for (size_t r = 0; r < rank; ++r) sum += view.u_at(n, r) * view.v_at(r, k);
          CHECK(row[k] == 2 + sum);
        }
      }
      pieces_agree(view, kColumns);
      if (kind == NumberKind::none)
        CHECK(view.u_at(1, 0) ==
              f32_of_f16(load_le<uint16_t>(parts["u_scales"].data())) * float(int8_t(parts["u"][rank])));
    }
}

TEST_CASE("low_rank: what is none is refused") {
  const auto error = [&](NumberKind kind, auto&& change) {
    HeldParts parts = low_rank(kind, 2);
    change(parts);
    return error_of([&] { low_rank_of(kind, 2, kRows, kColumns, parts.list()); });
  };
  for (const NumberKind kind : {NumberKind::f16, NumberKind::bf16}) {
    CHECK(error(kind, [](HeldParts& parts) { parts.put<uint16_t>("u", 3, 0x7fff); }) ==
          "part u: number 3 is not finite");
    CHECK(error(kind, [](HeldParts& parts) { parts.put<uint16_t>("v", 9, 0xffff); }) ==
          "part v: number 9 is not finite");
  }
  CHECK(error(NumberKind::none, [](HeldParts& parts) { parts.put<uint16_t>("v_scales", 1, 0x7c00); }) ==
        "part v_scales: number 1 is not finite");
  CHECK(error_of([] { low_rank_parts(NumberKind::f16, 0, 4, 5); }) == "rank 0, 1..4 are possible for [4, 5]");
  CHECK(error_of([] { low_rank_parts(NumberKind::f16, 5, 4, 5); }) == "rank 5, 1..4 are possible for [4, 5]");
  CHECK(error_of([] { low_rank_parts(NumberKind::f32, 1, 4, 5); }) ==
        "low-rank terms are fp16, bf16 or int8, not of kind 1");
}
