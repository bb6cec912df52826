// Sparse weights: a plain reader of the page agrees, pieces are whole rows, supports that claim what is not there are
// refused before anything is read by them.
#include "formats/sparse.h"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "formats/code_rows.h"
#include "formats/held_parts.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::formats;
using tersor::check::error_of;
using tersor::check::HeldParts;

namespace {

struct Made {
  HeldParts parts;
  std::vector<float> dense;
};

void set_bits(std::span<uint8_t> string, size_t bit, int bits, unsigned value) {
  for (int i = 0; i < bits; ++i, ++bit)
    if (value >> i & 1) string[bit / 8] |= uint8_t(1 << bit % 8);
}

// Any support, with empty and full rows among them; values that are small multiples of a 16th.
Made made(const SparseFormat& format, size_t rows, size_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<bool> kept(rows * columns);
  std::vector<std::pair<size_t, unsigned>> positions;
  const size_t spans = size_t(ceil_div(columns, format.span));
  for (size_t n = 0; n < rows; ++n)
    for (size_t s = 0; s < spans; ++s) {
      const size_t first = s * format.span, size = std::min(format.span, columns - first);
      if (format.support != Support::nm) {
        if (random() % 4 < n % 5)
          for (size_t i = 0; i < size; ++i) kept[n * columns + first + i] = true;
        continue;
      }
      for (size_t i = 0, left = std::min(format.keep, size); i < size; ++i)
        if (random() % (size - i) < left) --left, kept[n * columns + first + i] = true;
    }
  size_t total = 0;
  for (const bool one : kept) total += one;
  Made found{HeldParts(parts_of(format, rows, columns, total)), std::vector<float>(rows * columns)};
  HeldParts& parts = found.parts;
  const size_t support_row = parts["support"].size() / rows;
  const int width = format.support == Support::nm ? int(std::bit_width(format.span - 1)) : 1;
  std::vector<uint8_t> codes;
  size_t i = 0;
  const GroupLayout layout(format.group, rows, columns);
  for (size_t g = 0; g < parts["scales"].size() / 2; ++g) parts.put("scales", g, f16_of_f32(float(int(g % 9) - 4) / 4));
  for (size_t n = 0; n < rows; ++n) {
    size_t bit = 0;
    const auto row = parts["support"].subspan(n * support_row, support_row);
    for (size_t k = 0; k < columns; ++k) {
      if (!kept[n * columns + k]) continue;
      if (format.support == Support::nm)
        set_bits(row, bit, width, unsigned(k % format.span)), bit += size_t(width);
      else if (!(row[k / format.span / 8] >> (k / format.span % 8) & 1))
        set_bits(row, k / format.span, 1, 1);
      if (format.coded()) {
        codes.push_back(uint8_t(random() % (1u << format.bits)));
        const size_t g = layout.whole ? 0 : n * layout.count + k / layout.group;
        found.dense[n * columns + k] = f32_of_f16(load_le<uint16_t>(parts["scales"].data() + 2 * g)) *
                                       float(int(codes.back()) - (1 << (format.bits - 1)));
      } else {
        const float value = float(int(random() % 255) - 127) / 16;
        if (format.values == NumberKind::f32) parts.put("values", i, value);
        if (format.values == NumberKind::f16) parts.put("values", i, f16_of_f32(value));
        if (format.values == NumberKind::bf16) parts.put("values", i, bf16_of_f32(value));
        found.dense[n * columns + k] = value;
      }
      ++i;
    }
    if (format.support != Support::nm) parts.put("row_starts", n + 1, uint32_t(i));
  }
  if (format.coded() && total) pack_rows(codes, {format.bits}, 1, total, parts["codes"], 1);
  return found;
}

std::vector<SparseFormat> every_format() {
  std::vector<SparseFormat> found;
  for (SparseFormat format : {SparseFormat{},
                              {.support = Support::nm, .keep = 2, .span = 4},
                              {.support = Support::nm, .keep = 3, .span = 7},
                              {.support = Support::nm, .keep = 1, .span = 256},
                              {.support = Support::block, .span = 5},
                              {.support = Support::block, .span = 64}}) {
    for (const NumberKind values : {NumberKind::f32, NumberKind::f16, NumberKind::bf16})
      format.values = values, found.push_back(format);
    format.values = NumberKind::none;
    for (const int bits : {2, 3, 5, 8})
      for (const size_t group : {size_t(16), kChannel, kTensor})
        format.bits = bits, format.group = group, found.push_back(format);
  }
  return found;
}

}  // namespace

TEST_CASE("sparse: as written value by value, in pieces as in whole rows") {
  for (const SparseFormat& format : every_format())
    for (const size_t columns : {1, 4, 8, 61, 129}) {
      const size_t rows = 6;
      const Made all = made(format, rows, columns, uint32_t(columns));
      const Sparse view = sparse_of(format, rows, columns, all.parts.list(), 2);
      std::vector<float> row(columns);
      for (size_t n = 0; n < rows; ++n) {
        view.dequantize(n, 0, columns, row.data());
        for (size_t k = 0; k < columns; ++k) CHECK(row[k] == all.dense[n * columns + k]);
        CHECK(tersor::check::pieces_agree(view, n));
        std::vector<uint32_t> places(view.kept(n));
        std::vector<float> values(view.kept(n));
        view.columns_of(n, places.data());
        view.values_of(n, places.data(), values.data());
        for (size_t i = 0; i < places.size(); ++i) {
          CHECK(i == 0 || places[i] > places[i - 1]);
          CHECK(values[i] == row[places[i]]);
        }
      }
    }
}

TEST_CASE("sparse: supports that claim what is not there are refused") {
  const SparseFormat bitmap{.values = NumberKind::f16}, nm{.support = Support::nm, .keep = 2, .span = 5};
  const SparseFormat coded{.values = NumberKind::none, .bits = 4};
  const auto error = [&](const SparseFormat& format, auto&& change) {
    Made all = made(format, 6, 61, 1);
    change(all.parts);
    return error_of([&] { sparse_of(format, 6, 61, all.parts.list(), 1); });
  };
  for (const SparseFormat& format : {bitmap, nm, coded}) CHECK(error(format, [](HeldParts&) {}).empty());
  // Row 0 is empty: a bit there has no value.
  CHECK(error(bitmap, [](HeldParts& parts) { parts["support"][3] = 1; }) ==
        "row 0 keeps by row_starts: 0 weights, by support: 1");
  CHECK(error(bitmap, [](HeldParts& parts) { parts["support"][7] = 0x20; }) ==
        "support: row 0 ends in the byte 32, whose unused part is not 0");
  CHECK(error(bitmap, [](HeldParts& parts) { parts.put<uint32_t>("row_starts", 0, 1); }) ==
        "row_starts: the first is 1, 0 is needed");
  CHECK(error(bitmap, [](HeldParts& parts) {
          parts.put<uint32_t>("row_starts", 2, 0xffffffff);
        }).starts_with("row_starts: "));
  CHECK(error(bitmap, [](HeldParts& parts) {
          parts.put<uint32_t>("row_starts", 6, 0xffffffff);
        }).starts_with("row 5 keeps by row_starts: "));
  // They agree with each other and not with the values.
  const auto claims_more = [](HeldParts& parts) {
    parts["support"][0] = 0xff;
    for (size_t n = 1; n <= 6; ++n)
      parts.put<uint32_t>("row_starts", n, load_le<uint32_t>(parts["row_starts"].data() + 4 * n) + 8);
  };
  CHECK(error(bitmap, claims_more).starts_with("part values is F16 ["));
  CHECK(error(coded, claims_more).starts_with("part codes is U8 ["));
  CHECK(error(bitmap, [](HeldParts& parts) { parts.put<uint16_t>("values", 2, 0x7c01); }) ==
        "part values: number 2 is not finite");
  CHECK(error(nm, [](HeldParts& parts) { parts["support"][0] = 0; }) ==
        "support: span 0 of row 0 has position 0 after 0, positions ascend and are below 5");
  CHECK(error(nm, [](HeldParts& parts) { parts["support"][0] = 0x3d; }) ==
        "support: span 0 of row 0 has position 5 after -1, positions ascend and are below 5");
  CHECK(error(bitmap, [](HeldParts& parts) { parts.needs[1].name = "starts"; }) ==
        "part row_starts is missing, U32 [7] is needed");
  CHECK(error(bitmap, [](HeldParts& parts) { parts.needs[0].dtype = DType::I8; }) ==
        "part support is I8 [6, 8], U8 [6, 8] is needed");
}

TEST_CASE("sparse: any flipped bit is refused, or read inside the parts") {
  std::mt19937 random(3);
  for (const SparseFormat& format : every_format())
    for (int round = 0; round < 40; ++round) {
      Made all = made(format, 5, 67, uint32_t(round));
      const size_t part = random() % all.parts.needs.size(), bytes = HeldParts::bytes(all.parts.needs[part]);
      if (bytes == 0) continue;
      all.parts.data[part][random() % bytes] ^= uint8_t(1 << random() % 8);
      std::vector<float> row(67);
      error_of([&] {
        const Sparse view = sparse_of(format, 5, 67, all.parts.list(), 1);
        for (size_t n = 0; n < 5; ++n) {
          view.dequantize(n, 0, 67, row.data());
          std::vector<uint32_t> places(view.kept(n));
          view.columns_of(n, places.data());
          for (const uint32_t k : places) CHECK(k < 67);
        }
      });
    }
}
