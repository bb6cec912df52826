#include "formats/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/pool.h"
#include "formats/code_rows.h"
#include "formats/small_float.h"

namespace tersor::formats {
namespace {

float number_at(const uint8_t* data, NumberKind kind, size_t i) noexcept {
  switch (kind) {
    case NumberKind::f32: return load_le<float>(data + 4 * i);
    case NumberKind::bf16: return f32_of_bf16(load_le<uint16_t>(data + 2 * i));
    default: return f32_of_f16(load_le<uint16_t>(data + 2 * i));
  }
}

int position_bits(size_t span) noexcept { return int(std::bit_width(span - 1)); }

uint8_t position_at(const uint8_t* row, int bits, size_t i) noexcept {
  const size_t bit = i * size_t(bits), last = (bit + size_t(bits) - 1) / 8;
  uint32_t window = row[bit / 8];
  if (last > bit / 8) window |= uint32_t(row[last]) << 8;
  return uint8_t(window >> bit % 8 & ((1u << bits) - 1));
}

// Bits set in a string's first `bits` bits.
size_t ones_before(const uint8_t* string, size_t bits) noexcept {
  size_t ones = 0, byte = 0;
  for (; byte + 8 <= bits / 8; byte += 8) ones += size_t(std::popcount(load_le<uint64_t>(string + byte)));
  for (; byte < bits / 8; ++byte) ones += size_t(std::popcount(string[byte]));
  if (bits % 8) ones += size_t(std::popcount(uint8_t(string[byte] & ((1u << bits % 8) - 1))));
  return ones;
}

bool bit_at(const uint8_t* string, size_t i) noexcept { return string[i / 8] >> i % 8 & 1; }

// f(column, i) for a row's kept columns in [first, last), the i-th kept of the row.
template <class F>
void each_kept(const Sparse& view, size_t row, size_t first, size_t last, const F& f) noexcept {
  const uint8_t* const support = view.support + row * view.support_row_bytes;
  if (view.kind == Support::nm) {
    const int bits = position_bits(view.span);
    for (size_t s = first / view.span; s * view.span < last; ++s) {
      const size_t keep = std::min(view.keep, view.columns - s * view.span);
      for (size_t j = 0; j < keep; ++j) {
        const size_t i = s * view.keep + j, column = s * view.span + position_at(support, bits, i);
        if (column >= first && column < last) f(column, i);
      }
    }
    return;
  }
  // A block is kept whole, and only the last one may be shorter.
  const size_t from = first / view.span;
  size_t kept = ones_before(support, from) * view.span;
  for (size_t s = from; s * view.span < last; ++s) {
    if (s % 8 == 0 && support[s / 8] == 0) {  // nothing in eight spans
      s += 7;
      continue;
    }
    if (!bit_at(support, s)) continue;
    const size_t begin = s * view.span, end = std::min(begin + view.span, view.columns);
    for (size_t column = std::max(begin, first); column < std::min(end, last); ++column)
      f(column, kept + column - begin);
    kept += end - begin;
  }
}

float value_at(const Sparse& view, size_t row, size_t column, size_t index) noexcept {
  if (view.value_kind != NumberKind::none) return number_at(view.values, view.value_kind, index);
  uint8_t code;
  view.unpack(index, 1, &code);
  return view.scales.at(row, column / view.group) * view.level(code);
}

// What the support of a row says is kept; bad_data for what the page does not allow.
size_t checked_row(const Sparse& view, size_t row) {
  const uint8_t* const support = view.support + row * view.support_row_bytes;
  const int bits = view.kind == Support::nm ? position_bits(view.span) : 1;
  const size_t used = view.kind == Support::nm ? view.kept_a_row() * size_t(bits) : view.spans();
  TERSOR_REQUIRE(used % 8 == 0 || support[view.support_row_bytes - 1] >> used % 8 == 0, Code::bad_data, "support: row ",
                 row, " ends in the byte ", int(support[view.support_row_bytes - 1]), ", whose unused part is not 0");
  if (view.kind != Support::nm) {
    const size_t ones = ones_before(support, view.spans()), rest = view.columns % view.span;
    return ones * view.span - (rest && bit_at(support, view.spans() - 1) ? view.span - rest : 0);
  }
  for (size_t s = 0; s < view.spans(); ++s) {
    const size_t size = std::min(view.span, view.columns - s * view.span);
    int before = -1;
    for (size_t j = 0; j < std::min(view.keep, size); ++j) {
      const int position = position_at(support, bits, s * view.keep + j);
      TERSOR_REQUIRE(position > before && size_t(position) < size, Code::bad_data, "support: span ", s, " of row ", row,
                     " has position ", position, " after ", before, ", positions ascend and are below ", size);
      before = position;
    }
  }
  return view.kept_a_row();
}

size_t support_row_bytes_of(const SparseFormat& format, size_t columns) {
  const size_t bits =
      format.support == Support::nm
          ? size_t(checked_mul(format.kept_of(columns), uint64_t(position_bits(format.span)), "support"))
          : size_t(ceil_div(columns, format.span));
  return size_t(ceil_div(bits, 8));
}

void require_ascending(const uint8_t* row_starts, size_t rows) {
  uint32_t before = load_le<uint32_t>(row_starts);
  TERSOR_REQUIRE(before == 0, Code::bad_data, "row_starts: the first is ", before, ", 0 is needed");
  for (size_t row = 0; row < rows; ++row) {
    const uint32_t next = load_le<uint32_t>(row_starts + 4 * (row + 1));
    TERSOR_REQUIRE(next >= before, Code::bad_data, "row_starts: ", next, " after ", before, " at row ", row);
    before = next;
  }
}

}  // namespace

// ---- the view
// ------------------------------------------------------------------------------------------------------------

size_t Sparse::kept_a_row() const noexcept { return columns / span * keep + std::min(keep, columns % span); }

void Sparse::columns_of(size_t row, uint32_t* out) const noexcept {
  each_kept(*this, row, 0, columns, [&](size_t column, size_t i) { out[i] = uint32_t(column); });
}

void Sparse::unpack(size_t first, size_t count, uint8_t* out) const noexcept {
  unpack_codes(values, {bits}, first, count, out);
}

void Sparse::values_of(size_t row, const uint32_t* columns_kept, float* out) const noexcept {
  const size_t from = start(row), count = kept(row);
  for (size_t i = 0; i < count; ++i) out[i] = value_at(*this, row, columns_kept[i], from + i);
}

void Sparse::dequantize(size_t row, size_t first, size_t count, float* out) const noexcept {
  std::fill_n(out, count, 0.0f);
  const size_t from = start(row);
  each_kept(*this, row, first, first + count,
            [&](size_t column, size_t i) { out[column - first] = value_at(*this, row, column, from + i); });
}

// ---- the format
// ----------------------------------------------------------------------------------------------------------

size_t SparseFormat::kept_of(size_t columns) const noexcept {
  return columns / span * keep + std::min(keep, columns % span);
}

void check(const SparseFormat& format) {
  const size_t span = format.span, keep = format.keep;
  switch (format.support) {
    case Support::bitmap:
      TERSOR_REQUIRE(span == 1 && keep == 0, Code::bad_call, "a bitmap has a bit a column, not ", span);
      break;
    case Support::nm:
      TERSOR_REQUIRE(span >= 2 && span <= 256 && keep >= 1 && keep <= span, Code::bad_call,
                     "N of M needs M in 2..256 and N in 1..M, not ", keep, " of ", span);
      break;
    case Support::block:
      TERSOR_REQUIRE(span >= 2 && span <= 256 && keep == 0, Code::bad_call, "a block has 2..256 columns, not ", span);
      break;
    default: fail(Code::bad_call, "a support of kind ", int(format.support), ", 0..2 are known");
  }
  const auto is_float = [](NumberKind kind) {
    return kind == NumberKind::f32 || kind == NumberKind::f16 || kind == NumberKind::bf16;
  };
  TERSOR_REQUIRE(is_float(format.values) || format.coded(), Code::bad_call,
                 "values are fp32, fp16, bf16 or codes, not of kind ", int(format.values));
  if (!format.coded()) return;
  TERSOR_REQUIRE(format.bits >= 2 && format.bits <= 8 && format.bits != 7, Code::bad_call,
                 "codes have 2, 3, 4, 5, 6 or 8 bits, not ", format.bits);
  TERSOR_REQUIRE(is_float(format.scale), Code::bad_call, "scales are fp32, fp16 or bf16, not of kind ",
                 int(format.scale));
  require_group(format.group);
}

std::vector<PartNeed> parts_of(const SparseFormat& format, size_t rows, size_t columns, size_t kept) {
  check(format), require_shape(rows, columns);
  std::vector<PartNeed> needs{{"support", DType::U8, {rows, support_row_bytes_of(format, columns)}}};
  if (format.support != Support::nm) needs.push_back({"row_starts", DType::U32, {rows + 1}});
  if (!format.coded()) {
    needs.push_back({"values", dtype_of(format.values), {kept}});
    return needs;
  }
  needs.push_back({"codes", DType::U8, {CodeWidth{format.bits}.row_bytes(kept)}});
  const GroupLayout layout(format.group, rows, columns);
  needs.push_back({"scales", dtype_of(format.scale), {layout.rows, layout.count}});
  return needs;
}

Sparse sparse_of(const SparseFormat& format, size_t rows, size_t columns, std::span<const Part> parts, int threads) {
  check(format), require_shape(rows, columns);
  Sparse view;
  view.rows = rows, view.columns = columns;
  view.kind = format.support, view.keep = format.keep, view.span = format.span;
  view.support_row_bytes = support_row_bytes_of(format, columns);
  // How much is kept comes first, because the other parts' sizes follow from it. What is not there is refused below.
  const auto found = [&](const PartNeed& need) -> const uint8_t* {
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& one) { return one.name == need.name; });
    const bool sound = part != parts.end() && part->dtype == need.dtype && part->shape == need.shape &&
                       part->data.size() == bytes_of(need.dtype, need.shape);
    return sound ? part->data.data() : nullptr;
  };
  const auto first_needs = parts_of(format, rows, columns, 0);
  const bool counted = format.support != Support::nm;
  view.support = found(first_needs[0]);
  view.row_starts = counted ? found(first_needs[1]) : nullptr;
  size_t kept = 0;
  if (view.support && (view.row_starts || !counted)) {
    if (counted) require_ascending(view.row_starts, rows);
    kept = counted ? view.start(rows) : size_t(checked_mul(rows, view.kept_a_row(), "kept weights"));
    parallel_for(rows, std::max<size_t>(1, (size_t(1) << 16) / columns), threads, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) {
        const size_t here = checked_row(view, row);
        TERSOR_REQUIRE(here == view.kept(row), Code::bad_data, "row ", row, " keeps by row_starts: ", view.kept(row),
                       " weights, by support: ", here);
      }
    });
  }

  const auto data = data_of(parts_of(format, rows, columns, kept), parts);
  const auto values = data[counted ? 2 : 1];
  view.value_kind = format.values, view.values = values.data();
  if (!format.coded()) {
    check_finite(values, format.values, "values");
    return view;
  }
  const GroupLayout layout(format.group, rows, columns);
  view.bits = format.bits, view.group = layout.group;
  view.scales.kind = format.scale, view.scales.data = data.back().data(), view.scales.row_stride = layout.row_stride();
  if (kept) check_codes(values, {format.bits}, 1, kept, nullptr, threads);
  check_finite(data.back(), format.scale, "scales");
  return view;
}

}  // namespace tersor::formats
