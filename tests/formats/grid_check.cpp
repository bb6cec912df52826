#include "formats/grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "formats/code_rows.h"
#include "formats/float_group.h"
#include "formats/int_group.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::formats;

namespace {

// Parts of a format in allocations of exactly their sizes, so that a sanitizer sees a read outside.
struct Parts {
  std::vector<PartNeed> needs;
  std::vector<std::unique_ptr<uint8_t[]>> data;

  explicit Parts(std::vector<PartNeed> needed) : needs(std::move(needed)) {
    for (const PartNeed& need : needs) data.push_back(std::make_unique<uint8_t[]>(bytes(need)));
  }
  static size_t bytes(const PartNeed& need) { return size_t(bytes_of(need.dtype, need.shape)); }
  std::span<uint8_t> operator[](std::string_view name) {
    for (size_t i = 0; i < needs.size(); ++i)
      if (needs[i].name == name) return {data[i].get(), bytes(needs[i])};
    return {};
  }
  std::vector<Part> list() const {
    std::vector<Part> parts;
    for (size_t i = 0; i < needs.size(); ++i)
      parts.push_back({needs[i].name, needs[i].dtype, needs[i].shape, {data[i].get(), bytes(needs[i])}});
    return parts;
  }
};

// Any codes, and numbers between 0.5 and 1 or small integers.
template <class Format>
Parts random_parts(const Format& format, size_t rows, size_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  Parts parts(parts_of(format, rows, columns));
  for (size_t i = 0; i < parts.needs.size(); ++i) {
    const auto [name, dtype, shape] = parts.needs[i];
    const auto bytes = parts[name];
    if (name == "codes") {
      const CodeWidth width = format.width();
      std::vector<uint8_t> codes(rows * columns);
      for (auto& code : codes) {
        do code = uint8_t(random() % width.codes());
        while (width.bits == 8 && (code & 0x7c) == 0x7c);  // no number of the floats
      }
      pack_rows(codes, width, rows, columns, bytes, 1);
      continue;
    }
    for (size_t at = 0; at < bytes.size(); at += dtype_bytes(dtype)) {
      const float value = 0.5f + float(random() % 128) / 256;
      switch (dtype) {
        case DType::F32: store_le(bytes.data() + at, value); break;
        case DType::F16: store_le(bytes.data() + at, f16_of_f32(value)); break;
        case DType::BF16: store_le(bytes.data() + at, bf16_of_f32(value)); break;
        default: bytes[at] = uint8_t(random() % (name == "zeros" ? format.width().codes() : 64));
      }
    }
  }
  return parts;
}

uint8_t code_by_bits(const Grid& grid, size_t row, size_t column) {
  const uint8_t* const bytes = grid.codes + row * grid.row_bytes;
  if (grid.trits) {
    int byte = bytes[column / 5];
    for (size_t i = 0; i < column % 5; ++i) byte /= 3;
    return uint8_t(byte % 3);
  }
  uint8_t code = 0;
  for (int i = 0; i < grid.bits; ++i) {
    const size_t bit = column * size_t(grid.bits) + size_t(i);
    code |= uint8_t((bytes[bit / 8] >> (bit % 8) & 1) << i);
  }
  return code;
}

// Every range of some rows, against one code at a time.
void ranges_agree(const Grid& grid) {
  const size_t columns = grid.columns;
  for (size_t row = 0; row < grid.rows; ++row)
    for (size_t first = 0; first < columns; first += columns > 40 ? columns / 9 : 1)
      for (size_t count = 0; count <= columns - first; count += columns > 40 ? columns / 13 : 1) {
        const auto codes = std::make_unique<uint8_t[]>(count);
        const auto values = std::make_unique<float[]>(count);
        grid.unpack(row, first, count, codes.get());
        grid.dequantize(row, first, count, values.get());
        bool same = true;
        for (size_t i = 0; i < count; ++i) {
          const size_t column = first + i, group = column / grid.group;
          const uint8_t code = code_by_bits(grid, row, column);
          float want = grid.scales.at(row, group) * (grid.levels[code] - grid.zeros.at(row, group));
          if (grid.minimums.kind != NumberKind::none) want += grid.minimums.at(row, group);
          same &= codes[i] == code && std::memcmp(&want, &values[i], sizeof want) == 0;
        }
        CHECK(same);
      }
}

template <class Format>
void formats_agree(const Format& format) {
  for (const size_t columns : {size_t(1), size_t(5), size_t(33), size_t(300), size_t(1031)}) {
    const Parts parts = random_parts(format, 3, columns, uint32_t(columns));
    const auto list = parts.list();
    const Grid grid = grid_of(format, 3, columns, list, 1);
    CHECK(grid.groups() == GroupLayout(format.group, 3, columns).count);
    ranges_agree(grid);
    // What int8 arithmetic reads is the same levels.
    if (grid.step != 0)
      for (size_t code = 0; code < format.width().codes(); ++code)
        CHECK(grid.integers_exact && grid.step * float(grid.integers[code] - grid.center) == grid.levels[code]);
  }
}

std::vector<IntGroup> int_groups() {
  std::vector<IntGroup> found;
  for (const int bits : {1, 2, 3, 4, 5, 6, 8})
    for (const auto mode : {IntGroup::Mode::symmetric, IntGroup::Mode::zero, IntGroup::Mode::minimum})
      for (const size_t group : {size_t(16), size_t(64), kChannel, kTensor})
        found.push_back({.bits = bits, .group = group, .mode = mode, .scale = NumberKind::bf16});
  found.push_back({.bits = 2, .ternary = true, .group = 32});
  found.push_back({.bits = 2, .ternary = true, .group = kTensor, .scale = NumberKind::f32});
  for (const size_t group : {size_t(16), size_t(32)})
    found.push_back(
        {.bits = 4, .group = group, .mode = IntGroup::Mode::minimum, .scale = NumberKind::super, .super_bits = 6});
  return found;
}

}  // namespace

TEST_CASE("grid: int_group, every range of columns against one code at a time") {
  for (const IntGroup& format : int_groups()) formats_agree(format);
}

TEST_CASE("grid: float_group, every range of columns against one code at a time") {
  using Element = FloatGroup::Element;
  for (const auto element : {Element::e2m1, Element::e2m3, Element::e3m2, Element::e4m3, Element::e5m2})
    for (const auto scale : {NumberKind::f32, NumberKind::f16, NumberKind::e8m0, NumberKind::e4m3})
      for (const size_t group : {size_t(16), size_t(128), kChannel})
        formats_agree(FloatGroup{.element = element, .group = group, .scale = scale});
}

TEST_CASE("grid: codes of every width are packed and unpacked, on threads as on one") {
  std::mt19937 random(1);
  for (int bits = 0; bits <= 8; ++bits) {
    const CodeWidth width = bits ? CodeWidth{bits, false} : CodeWidth{2, true};
    for (size_t columns = 1; columns < 70; ++columns) {
      const size_t rows = 5;
      std::vector<uint8_t> codes(rows * columns), packed(rows * width.row_bytes(columns), 0xff), back(codes.size());
      for (auto& code : codes) code = uint8_t(random() % width.codes());
      pack_rows(codes, width, rows, columns, packed, 3);
      check_codes(packed, width, rows, columns, nullptr, 1);
      unpack_rows(packed, width, rows, columns, back, 3);
      CHECK(back == codes);
      if (bits == 8) continue;
      codes[2 * columns + columns / 2] = uint8_t(width.codes());
      CHECK(check::error_of([&] { pack_rows(codes, width, rows, columns, packed, 1); }) ==
            text_of("codes: row 2 holds ", width.codes(), ", at most ", width.codes() - 1, " is possible"));
    }
  }
}

TEST_CASE("grid: unused bits and trits that are not 0 are refused") {
  for (int bits = 0; bits < 8; ++bits) {
    const CodeWidth width = bits ? CodeWidth{bits, false} : CodeWidth{2, true};
    for (size_t columns = 1; columns < 20; ++columns) {
      std::vector<uint8_t> packed(2 * width.row_bytes(columns));
      const size_t used = bits ? columns * size_t(bits) % 8 : columns % 5;
      if (used == 0) continue;
      packed.back() = uint8_t(bits ? 1 << used : used == 1 ? 3 : used == 2 ? 9 : used == 3 ? 27 : 81);
      CHECK(check::error_of([&] { check_codes(packed, width, 2, columns, nullptr, 1); }).find("row 1 ends in") !=
            std::string::npos);
      --packed.back();
      if (bits != 0 || packed.back() < 81) check_codes(packed, width, 2, columns, nullptr, 1);
    }
  }
}

TEST_CASE("grid: parts that are not the format's are refused") {
  const IntGroup format{.bits = 3, .group = 16, .mode = IntGroup::Mode::zero};
  const Parts parts = random_parts(format, 2, 40, 1);
  const auto error = [&](std::vector<Part> list) { return check::error_of([&] { grid_of(format, 2, 40, list, 1); }); };
  CHECK(error(parts.list()).empty());
  auto list = parts.list();
  list.pop_back();
  CHECK(error(list) == "part zeros is missing, U8 [2, 3] is needed");
  list = parts.list();
  list[1].shape = {3, 2};
  CHECK(error(list) == "part scales is F16 [3, 2], F16 [2, 3] is needed");
  list = parts.list();
  list[1].dtype = DType::BF16;
  CHECK(error(list) == "part scales is BF16 [2, 3], F16 [2, 3] is needed");
  list = parts.list();
  list[0].data = list[0].data.first(list[0].data.size() - 1);
  CHECK(error(list) == "part codes has 29 bytes, 30 are needed");
  list = parts.list();
  list.push_back(list[0]);
  CHECK(error(list) == "4 parts, 3 are needed");
  list.back().name = "stray";
  CHECK(error(list) == "part stray is not one of this format's");
  CHECK(check::error_of([&] { parts_of(format, 0, 4); }).find("[0, 4]") != std::string::npos);
  CHECK(!check::error_of([&] { parts_of(format, 1, ~size_t(0)); }).empty());
}
