#include "formats/parts.h"

#include <algorithm>
#include <cmath>

#include "core/bits.h"
#include "core/error.h"
#include "formats/small_float.h"

namespace tersor::formats {

template <class Byte>
std::vector<std::span<Byte>> data_of(const std::vector<PartNeed>& needs, std::span<const PartOf<Byte>> parts) {
  std::vector<std::span<Byte>> found;
  for (const PartNeed& need : needs) {
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const auto& one) { return one.name == need.name; });
    TERSOR_REQUIRE(part != parts.end(), Code::bad_data, "part ", need.name, " is missing, ", dtype_name(need.dtype),
                   " ", shape_text(need.shape), " is needed");
    TERSOR_REQUIRE(part->dtype == need.dtype && part->shape == need.shape, Code::bad_data, "part ", need.name, " is ",
                   dtype_name(part->dtype), " ", shape_text(part->shape), ", ", dtype_name(need.dtype), " ",
                   shape_text(need.shape), " is needed");
    const uint64_t bytes = bytes_of(need.dtype, need.shape);
    TERSOR_REQUIRE(part->data.size() == bytes, Code::bad_data, "part ", need.name, " has ", part->data.size(),
                   " bytes, ", bytes, " are needed");
    found.push_back(part->data);
  }
  for (const auto& part : parts)
    TERSOR_REQUIRE(std::any_of(needs.begin(), needs.end(), [&](const auto& need) { return need.name == part.name; }),
                   Code::bad_data, "part ", part.name, " is not one of this format's");
  TERSOR_REQUIRE(parts.size() == needs.size(), Code::bad_data, parts.size(), " parts, ", needs.size(), " are needed");
  return found;
}
template std::vector<std::span<const uint8_t>> data_of(const std::vector<PartNeed>&, std::span<const Part>);
template std::vector<std::span<uint8_t>> data_of(const std::vector<PartNeed>&, std::span<const PartRoom>);

void require_group(size_t group) {
  const bool known = group == kChannel || group == kTensor || group == 16 || group == 32 || group == 64 ||
                     group == 128 || group == 256;
  TERSOR_REQUIRE(known, Code::bad_call, "a group is 16, 32, 64, 128, 256, \"channel\" or \"tensor\", not ", group);
}

void require_shape(size_t rows, size_t columns) {
  TERSOR_REQUIRE(rows > 0 && columns > 0, Code::bad_call, "a matrix of [", rows, ", ", columns,
                 "], at least one row and column are needed");
}

std::string group_text(size_t group) {
  return group == kChannel ? "channel" : group == kTensor ? "tensor" : std::to_string(group);
}

GroupLayout::GroupLayout(size_t group_or_scope, size_t matrix_rows, size_t columns)
    : group(group_or_scope), rows(matrix_rows), count(1), whole(group_or_scope == kTensor) {
  if (whole) rows = 1;
  if (whole || group_or_scope == kChannel)
    group = columns;
  else
    count = size_t(ceil_div(columns, group));
}

DType dtype_of(NumberKind kind) {
  switch (kind) {
    case NumberKind::f32: return DType::F32;
    case NumberKind::f16: return DType::F16;
    case NumberKind::bf16: return DType::BF16;
    default: return DType::U8;
  }
}

void check_finite(std::span<const uint8_t> data, NumberKind kind, const char* name) {
  const auto refuse = [&](size_t i) { fail(Code::bad_data, "part ", name, ": number ", i, " is not finite"); };
  // The exponent of all ones, whatever the mantissa; e4m3 has one such number, and e8m0's 255 is no number.
  const auto each = [&](auto word, uint32_t mask, uint32_t bad) {
    using Word = decltype(word);
    const size_t count = data.size() / sizeof(Word);
    uint32_t any = 0;
    for (size_t i = 0; i < count; ++i) any |= (load_le<Word>(data.data() + i * sizeof(Word)) & mask) == bad;
    if (!any) return;
    for (size_t i = 0; i < count; ++i)
      if ((load_le<Word>(data.data() + i * sizeof(Word)) & mask) == bad) refuse(i);
  };
  switch (kind) {
    case NumberKind::f32: return each(uint32_t(), 0x7f800000, 0x7f800000);
    case NumberKind::f16: return each(uint16_t(), 0x7c00, 0x7c00);
    case NumberKind::bf16: return each(uint16_t(), 0x7f80, 0x7f80);
    case NumberKind::e8m0: return each(uint8_t(), 0xff, 0xff);
    case NumberKind::e4m3: return each(uint8_t(), 0x7f, 0x7f);
    default: return;
  }
}

void check_most(std::span<const uint8_t> data, int most, const char* name) {
  const auto found = std::find_if(data.begin(), data.end(), [&](uint8_t number) { return number > most; });
  TERSOR_REQUIRE(found == data.end(), Code::bad_data, "part ", name, ": number ", found - data.begin(), " is ",
                 int(*found), ", at most ", most, " is possible");
}

}  // namespace tersor::formats
