// libFuzzer target: whatever bytes come as the parts of an int_group or float_group, reading them ends in an Error or
// in floats, inside the parts' own memory. The first bytes choose the format and the shape. Odd first bytes take the
// rest as weights instead, whose parts must be read back.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"
#include "formats/float_group.h"
#include "formats/int_group.h"
#include "fuzz/alike.h"
#include "solve/grid_fit.h"

using namespace tersor;
using namespace tersor::formats;

namespace {

struct Choices {
  const uint8_t* bytes;
  size_t rows() const { return 1 + bytes[1] % 4; }
  size_t columns() const { return 1 + bytes[2] % 200; }
  size_t group() const {
    constexpr size_t kGroups[] = {16, 32, 64, 128, 256, kChannel, kTensor};
    return kGroups[bytes[3] % 7];
  }
  IntGroup int_group() const {
    constexpr int kBits[] = {1, 2, 3, 4, 5, 6, 8, 2};
    IntGroup format{.bits = kBits[bytes[4] % 8], .ternary = bytes[4] % 8 == 7, .group = group()};
    format.mode = IntGroup::Mode(bytes[5] % 3);
    format.scale = NumberKind(bytes[6] % 9);  // some are not for scales
    format.super_bits = 5 + bytes[7] % 5;
    return format;
  }
  FloatGroup float_group() const {
    return {.element = FloatGroup::Element(bytes[4] % 5), .group = group(), .scale = NumberKind(bytes[6] % 9)};
  }
};

void read(const Grid& grid) {
  std::vector<float> row(grid.columns);
  for (size_t n = 0; n < grid.rows; ++n) grid.dequantize(n, 0, grid.columns, row.data());
  const size_t some = grid.columns / 3;
  grid.dequantize(grid.rows - 1, some, grid.columns - some, row.data());
}

template <class Format>
void read_parts(const Format& format, const Choices& choices, std::span<const uint8_t> data) {
  std::vector<std::unique_ptr<uint8_t[]>> kept;
  std::vector<Part> parts;
  for (const PartNeed& need : parts_of(format, choices.rows(), choices.columns())) {
    const size_t bytes = size_t(bytes_of(need.dtype, need.shape)), there = std::min(bytes, data.size());
    kept.push_back(std::make_unique<uint8_t[]>(bytes));  // what is missing is 0
    if (there) std::memcpy(kept.back().get(), data.data(), there);
    data = data.subspan(there);
    parts.push_back({need.name, need.dtype, need.shape, {kept.back().get(), bytes}});
  }
  read(grid_of(format, choices.rows(), choices.columns(), parts, 1));
}

template <class Format>
void fit_and_read(const Format& format, const Choices& choices, std::span<const uint8_t> data) {
  const size_t rows = choices.rows(), columns = choices.columns();
  std::vector<uint8_t> weights(rows * columns * 2);
  for (size_t i = 0; i < weights.size() && !data.empty(); ++i) weights[i] = data[i % data.size()];
  std::vector<std::vector<uint8_t>> kept;
  std::vector<PartRoom> rooms;
  for (const PartNeed& need : parts_of(format, rows, columns)) {
    kept.emplace_back(size_t(bytes_of(need.dtype, need.shape)));
    rooms.push_back({need.name, need.dtype, need.shape, kept.back()});
  }
  const DType dtype = choices.bytes[0] & 2 ? DType::F16 : DType::BF16;
  solve::grid_fit({dtype, rows, columns, weights}, format, {.least_squares = bool(choices.bytes[0] & 4)}, rooms, 1);
  const std::vector<Part> parts = [&] {
    std::vector<Part> found;
    for (const PartRoom& room : rooms) found.push_back({room.name, room.dtype, room.shape, room.data});
    return found;
  }();
  try {
    read(grid_of(format, rows, columns, parts, 1));
  } catch (const Error&) {
    std::abort();  // what we write is read
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  const fuzz::Copy copy(data, size);
  const Choices choices{copy.bytes().data()};
  const auto rest = copy.bytes().subspan(8);
  try {
    if (data[0] & 1)
      data[0] & 8 ? fit_and_read(choices.int_group(), choices, rest)
                  : fit_and_read(choices.float_group(), choices, rest);
    else
      data[0] & 8 ? read_parts(choices.int_group(), choices, rest) : read_parts(choices.float_group(), choices, rest);
  } catch (const Error&) {
  }
  return 0;
}
