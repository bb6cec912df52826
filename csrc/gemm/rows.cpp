#include "gemm/rows.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/bits.h"
#include "core/error.h"
#include "core/pool.h"
#include "gemm/tokens.h"

namespace tersor::gemm {
namespace {

// Codes of a row's columns 32 step .. 32 step + 31, a byte each. A word of a plane has four columns by bytes, and the
// next four in the bits above.
void step_codes(const Packed& packed, size_t row, size_t step, uint8_t* out) noexcept {
  const uint8_t* plane = packed.tile_codes(row / kTileRows) + step * 128 * packed.head.bits;
  std::memset(out, 0, kStepColumns);
  int low = 0;
  for (const int width : {8, 4, 2, 1}) {
    if (!(packed.head.bits & width)) continue;
    const uint32_t mask = ((1u << width) - 1) * 0x01010101u;
    for (size_t column = 0; column < kStepColumns; column += size_t(32 / width)) {
      const auto word = load_le<uint32_t>(plane + column * size_t(width) / 32 * 128 + row % kTileRows * 4);
      for (size_t i = 0; i < size_t(8 / width); ++i) {
        uint32_t codes;
        std::memcpy(&codes, out + column + 4 * i, 4);
        codes |= (word >> (i * size_t(width)) & mask) << low;
        std::memcpy(out + column + 4 * i, &codes, 4);
      }
    }
    low += width;
    plane += 128 * width;
  }
}

// Of families that have no codes of a row side by side: a row of 32 that are decoded.
void dequantize_decoded(const Packed& packed, size_t row, float* out) {
  const PackedHead& head = packed.head;
  ScratchFrame scratch;
  const auto panel = scratch.take<float>(kPieceColumns * kTileRows);
  const size_t columns = size_t(head.columns), group = head.group ? size_t(head.group) : packed.padded_columns;
  const uint8_t* const scales = packed.scales + row / kTileRows * packed.number_stride;
  for (size_t first = 0; first < columns; first += kPieceColumns) {
    const size_t count = std::min(kPieceColumns, packed.padded_columns - first);
    packed.level_panel(row / kTileRows, first, count, panel.data());
    for (size_t k = first; k < std::min(columns, first + count); ++k) {
      const float level = panel[(k - first) * kTileRows + row % kTileRows];
      out[k] = number_at(head.scale_kind, scales, k / group * kTileRows + row % kTileRows) * head.factor * level;
    }
  }
}

// The same operations in the same order as Grid::dequantize, so that both give the same bits.
void dequantize_row(const Packed& packed, size_t row, float* out) {
  const PackedHead& head = packed.head;
  if (head.family != Family::grid) return dequantize_decoded(packed, row, out);
  const size_t columns = size_t(head.columns), group = head.group ? size_t(head.group) : packed.padded_columns;
  const size_t numbers_at = row / kTileRows * packed.number_stride;
  uint8_t codes[kStepColumns];
  float scale = 0, zero = 0, minimum = 0;
  for (size_t column = 0; column < columns; column += kStepColumns) {
    step_codes(packed, row, column / kStepColumns, codes);
    const size_t end = std::min(columns, column + kStepColumns);
    for (size_t k = column; k < end;) {
      if (k % group == 0) {
        const size_t i = k / group * kTileRows + row % kTileRows;
        scale = number_at(head.scale_kind, packed.scales + numbers_at, i) * head.factor;
        if (packed.zeros) zero = float(packed.zeros[numbers_at + i]);
        if (packed.minimums) minimum = number_at(head.scale_kind, packed.minimums + numbers_at, i);
      }
      const size_t stop = std::min(end, k / group * group + group);
      for (; k < stop; ++k) {
        const float scaled = scale * (packed.tables->levels.exact[codes[k - column]] - zero);
        out[k] = packed.minimums ? scaled + minimum : scaled;  // -0 stays where nothing is added
      }
    }
  }
}

template <class RowOf>
void dequantize(const Packed& packed, size_t count, const RowOf& row_of, DType dtype, std::span<uint8_t> out,
                int threads) {
  require_float(dtype, "rows");
  const size_t columns = size_t(packed.head.columns), row_bytes = columns * dtype_bytes(dtype);
  TERSOR_REQUIRE(out.size() == checked_mul(count, row_bytes, "rows"), Code::bad_call, "out has ", out.size(),
                 " bytes, ", count, " rows of ", row_bytes, " are needed");
  parallel_for(count, std::max<size_t>(1, (size_t(1) << 14) / columns), threads, [&](size_t begin, size_t end) {
    ScratchFrame scratch;
    const auto values = scratch.take<float>(columns), room = scratch.take<float>(columns);
    for (size_t i = begin; i < end; ++i) {
      dequantize_row(packed, row_of(i), values.data());
      if (!packed.extras.empty()) packed.extras.restore(row_of(i), values, room);
      from_floats(dtype, values.data(), columns, out.data() + i * row_bytes);
    }
  });
}

}  // namespace

void dequantize_rows(const Packed& packed, std::span<const int64_t> ids, DType dtype, std::span<uint8_t> out,
                     int threads) {
  for (size_t i = 0; i < ids.size(); ++i)
    TERSOR_REQUIRE(ids[i] >= 0 && uint64_t(ids[i]) < packed.head.rows, Code::bad_call, "id ", ids[i], " at ", i,
                   ": rows are 0..", packed.head.rows - 1);
  dequantize(packed, ids.size(), [&](size_t i) { return size_t(ids[i]); }, dtype, out, threads);
}

void dequantize_rows(const Packed& packed, size_t first, size_t count, DType dtype, std::span<uint8_t> out,
                     int threads) {
  TERSOR_REQUIRE(first <= packed.head.rows && count <= packed.head.rows - first, Code::bad_call, "rows ", first, " to ",
                 first + count, " are asked, the matrix has ", packed.head.rows);
  dequantize(packed, count, [&](size_t i) { return first + i; }, dtype, out, threads);
}

void codes_of(const Packed& packed, formats::CodeWidth width, std::span<uint8_t> out, int threads) {
  const PackedHead& head = packed.head;
  TERSOR_REQUIRE(head.family <= Family::tables, Code::bad_call,
                 "codes are asked of vectors or sparse weights, whose order is not kept");
  TERSOR_REQUIRE(width.bits == head.bits, Code::bad_call, "codes of ", width.bits, " bits are asked, the matrix has ",
                 int(head.bits));
  const size_t rows = size_t(head.rows), columns = size_t(head.columns), row_bytes = width.row_bytes(columns);
  TERSOR_REQUIRE(out.size() == checked_mul(rows, row_bytes, "codes"), Code::bad_call, "out has ", out.size(),
                 " bytes, ", rows, " rows of ", row_bytes, " are needed");
  parallel_for(rows, std::max<size_t>(1, (size_t(1) << 14) / columns), threads, [&](size_t begin, size_t end) {
    ScratchFrame scratch;
    const auto codes = scratch.take<uint8_t>(packed.padded_columns);
    for (size_t row = begin; row < end; ++row) {
      for (size_t step = 0; step < packed.padded_columns / kStepColumns; ++step)
        step_codes(packed, row, step, codes.data() + step * kStepColumns);
      formats::pack_codes(codes.data(), width, columns, out.data() + row * row_bytes);
    }
  });
}

}  // namespace tersor::gemm
