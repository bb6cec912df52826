// Codebooks: codes come back, rows in pieces are whole rows, what does not belong together is refused by name.
#include "formats/codebook.h"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "formats/held_parts.h"
#include "formats/small_float.h"

using namespace tersor;
using namespace tersor::formats;
using tersor::check::error_of;
using tersor::check::HeldParts;

namespace {

// Any codes, small numbers.
HeldParts random_parts(const VectorCodebook& format, size_t rows, size_t columns, std::vector<uint16_t>& codes) {
  std::mt19937 random{uint32_t(columns)};
  HeldParts parts(parts_of(format, rows, columns));
  const size_t vectors = size_t(ceil_div(columns, size_t(format.dimension)));
  codes.resize(size_t(format.stages) * rows * vectors);
  for (auto& code : codes) code = uint16_t(random() % format.entries);
  pack_wide_rows(codes, format.bits(), format.entries, size_t(format.stages) * rows, vectors, parts["codes"], 1);
  for (const char* name : {"codebook", "scales"})
    for (size_t i = 0; i < parts[name].size() / 2; ++i)
      parts.put(name, i, f16_of_f32(float(int(random() % 2001) - 1000) / 512));
  return parts;
}

}  // namespace

TEST_CASE("codebook: codes of every width come back") {
  std::mt19937 random(1);
  for (int bits = 1; bits <= 12; ++bits)
    for (size_t count = 0; count <= 40; ++count) {
      std::vector<uint16_t> codes(3 * count), back(codes.size());
      for (auto& code : codes) code = uint16_t(random() % (1u << bits));
      std::vector<uint8_t> packed(3 * ((count * size_t(bits) + 7) / 8));
      pack_wide_rows(codes, bits, size_t(1) << bits, 3, count, packed, 2);
      unpack_wide_rows(packed, bits, 3, count, back, 2);
      CHECK(back == codes);
    }
  std::vector<uint16_t> codes{1, 2, 300, 3};
  std::vector<uint8_t> packed(6);
  CHECK(error_of([&] { pack_wide_rows(codes, 9, 300, 2, 2, packed, 1); }) ==
        "codes: row 1 holds 300, below 300 is possible");
  CHECK(error_of([&] { pack_wide_rows(codes, 13, 300, 2, 2, packed, 1); }) == "codes of 1..12 bits, not 13 for 300");
  CHECK(error_of([&] { unpack_wide_rows(packed, 9, 2, 3, codes, 1); }) ==
        "codes: 6 bytes for 2 rows of 3 codes of 9 bits, 8 are needed");
}

TEST_CASE("codebook: vectors are the sums of their entries, in pieces as in whole rows") {
  for (const int dimension : {2, 3, 5, 8})
    for (const size_t entries : {2, 5, 256, 300, 4096})
      for (const int stages : {1, 4})
        for (const size_t columns : {1, 2, 8, 61}) {
          const VectorCodebook format{dimension, stages, entries};
          std::vector<uint16_t> codes;
          HeldParts parts = random_parts(format, 3, columns, codes);
          const VectorCodes view = vector_codes_of(format, 3, columns, parts.list(), 2);
          const size_t d = size_t(dimension), vectors = view.vectors();
          std::vector<float> row(columns);
          for (size_t n = 0; n < 3; ++n) {
            CHECK(tersor::check::pieces_agree(view, n));
            view.dequantize(n, 0, columns, row.data());
            for (size_t k = 0; k < columns; ++k) {
              float sum = 0;
              for (size_t s = 0; s < size_t(stages); ++s) {
                const size_t code = codes[(s * 3 + n) * vectors + k / d];
                uint16_t got;
                view.unpack(int(s), n, k / d, 1, &got);
                CHECK(got == code);
                sum += f32_of_f16(load_le<uint16_t>(parts["codebook"].data() + 2 * ((s * entries + code) * d + k % d)));
              }
              CHECK(row[k] == f32_of_f16(load_le<uint16_t>(parts["scales"].data() + 2 * n)) * sum);
            }
          }
        }
}

TEST_CASE("codebook: vectors that do not belong together are refused by name") {
  const VectorCodebook format{4, 2, 5};
  std::vector<uint16_t> codes;
  const auto error = [&](auto&& change) {
    HeldParts parts = random_parts(format, 3, 37, codes);
    change(parts);
    return error_of([&] { vector_codes_of(format, 3, 37, parts.list(), 1); });
  };
  CHECK(error([](HeldParts&) {}).empty());
  CHECK(error([](HeldParts& parts) { parts["codes"][4] = 5; }) ==
        "codes: row 1 of stage 0 holds 5, the codebook has 5 entries");
  CHECK(error([](HeldParts& parts) { parts["codes"][23] = 0x80; }) ==
        "codes: row 2 of stage 1 ends in the byte 128, whose unused part is not 0");
  CHECK(error([](HeldParts& parts) { parts.put<uint16_t>("codebook", 7, 0x7c00); }) ==
        "part codebook: number 7 is not finite");
  CHECK(error([](HeldParts& parts) { parts.put<uint16_t>("scales", 1, 0x7e00); }) ==
        "part scales: number 1 is not finite");
  CHECK(error([](HeldParts& parts) { parts.needs[1].shape[1] = 4; }).starts_with("part codebook is F16 [2, 4, 4]"));
  for (const VectorCodebook& wrong :
       {VectorCodebook{1, 1, 4}, {9, 1, 4}, {4, 0, 4}, {4, 5, 4}, {4, 1, 1}, {4, 1, 4097}})
    CHECK(!error_of([&] { parts_of(wrong, 3, 37); }).empty());
  CHECK(error_of([&] { parts_of(format, 0, 37); }) == "a matrix of [0, 37], at least one row and column are needed");
}

TEST_CASE("codebook: scalars are a grid, whose integers are near its levels") {
  std::mt19937 random(2);
  for (const Scope scope : {Scope::fixed, Scope::tensor, Scope::channel, Scope::group})
    for (const size_t levels : {4, 5, 16, 100, 256})
      for (const size_t group : {size_t(32), kChannel})
        for (const NumberKind scale : {NumberKind::none, NumberKind::f16}) {
          const ScalarCodebook format{scope, levels, group, scale, NumberKind::f16};
          if (scope == Scope::fixed && levels != 16) {
            CHECK(error_of([&] { formats::check(format); }) == "nf4 has 16 levels, not " + std::to_string(levels));
            continue;
          }
          const size_t rows = 3, columns = 75;
          HeldParts parts(parts_of(format, rows, columns));
          std::vector<uint8_t> codes(rows * columns);
          for (auto& code : codes) code = uint8_t(random() % levels);
          pack_rows(codes, format.width(), rows, columns, parts["codes"], 1);
          for (const char* name : {"codebook", "scales"})
            for (size_t i = 0; i < parts[name].size() / 2; ++i)
              parts.put(name, i, f16_of_f32(float(int(random() % 2001) - 1000) / 512));
          const Grid grid = grid_of(format, rows, columns, parts.list(), 1);
          const auto number = [&](const char* name, size_t i) {
            return f32_of_f16(load_le<uint16_t>(parts[name].data() + 2 * i));
          };
          std::vector<float> row(columns);
          const size_t groups = group == kChannel ? 1 : 3;
          for (size_t n = 0; n < rows; ++n) {
            CHECK(tersor::check::pieces_agree(grid, n));
            grid.dequantize(n, 0, columns, row.data());
            for (size_t k = 0; k < columns; ++k) {
              const size_t g = group == kChannel ? 0 : k / group, code = codes[n * columns + k];
              const size_t table = scope == Scope::tensor ? 0 : scope == Scope::channel ? n : n * groups + g;
              const float level = scope == Scope::fixed ? kNf4[code] : number("codebook", table * levels + code);
              CHECK(row[k] == (scale == NumberKind::none ? 1 : number("scales", n * groups + g)) * level);
              if (scope == Scope::fixed || scope == Scope::tensor)
                CHECK(std::fabs(grid.step * float(int(grid.integers[code]) - grid.center) - level) <=
                      0.5001f * grid.step);
              else
                CHECK(grid.step == 0);
            }
          }
        }
}

TEST_CASE("codebook: a code beyond the levels, and a table of nothing") {
  const ScalarCodebook format{Scope::tensor, 5, kChannel, NumberKind::f16, NumberKind::f16};
  HeldParts parts(parts_of(format, 2, 9));
  CHECK(grid_of(format, 2, 9, parts.list(), 1).step == 0);  // all levels are 0: no integers
  parts["codes"][4] = 6;
  CHECK(error_of([&] { grid_of(format, 2, 9, parts.list(), 1); }) == "codes: row 1 holds 6, the codebook has 5 levels");
}
