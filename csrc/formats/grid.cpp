#include "formats/grid.h"

#include <algorithm>

#include "formats/code_rows.h"
#include "formats/small_float.h"

namespace tersor::formats {

float GroupNumbers::at(size_t row, size_t group) const noexcept {
  const size_t i = row * row_stride + group;
  switch (kind) {
    case NumberKind::none: return 0;
    case NumberKind::f32: return load_le<float>(data + 4 * i) * factor;
    case NumberKind::f16: return f32_of_f16(load_le<uint16_t>(data + 2 * i)) * factor;
    case NumberKind::bf16: return f32_of_bf16(load_le<uint16_t>(data + 2 * i)) * factor;
    case NumberKind::e8m0: return f32_of_e8m0(data[i]) * factor;
    case NumberKind::e4m3: return kE4M3.value(data[i]) * factor;
    case NumberKind::super: {
      const size_t super = row * supers_row_stride + group / supers_span;
      return f32_of_f16(load_le<uint16_t>(supers + 2 * super)) * float(data[i]) * factor;
    }
    case NumberKind::u8: return float(data[i]) * factor;
  }
  return 0;
}

void Grid::unpack(size_t row, size_t first, size_t count, uint8_t* out) const noexcept {
  unpack_codes(codes + row * row_bytes, {bits, trits}, first, count, out);
}

void Grid::dequantize(size_t row, size_t first, size_t count, float* out) const noexcept {
  constexpr size_t kPiece = 512;
  uint8_t unpacked[kPiece];
  float values[256];
  const size_t codes_possible = CodeWidth{bits, trits}.codes();
  while (count) {
    const size_t g = first / group, inside = std::min(count, group - first % group);
    const float* const level = levels + row * level_row_stride + g * level_group_stride;
    const float scale = scales.at(row, g), zero = zeros.at(row, g), minimum = minimums.at(row, g);
    // Without a minimum nothing is added: -0 stays.
    const bool shifted = minimums.kind != NumberKind::none;
    const auto value = [&](size_t code) {
      const float scaled = scale * (level[code] - zero);
      return shifted ? scaled + minimum : scaled;
    };
    const bool by_table = codes_possible <= inside;
    if (by_table)
      for (size_t code = 0; code < codes_possible; ++code) values[code] = value(code);
    for (size_t done = 0; done < inside;) {
      const size_t take = std::min(kPiece, inside - done);
      unpack(row, first + done, take, unpacked);
      if (by_table)
        for (size_t i = 0; i < take; ++i) out[done + i] = values[unpacked[i]];
      else
        for (size_t i = 0; i < take; ++i) out[done + i] = value(unpacked[i]);
      done += take;
    }
    first += inside, count -= inside, out += inside;
  }
}

}  // namespace tersor::formats
