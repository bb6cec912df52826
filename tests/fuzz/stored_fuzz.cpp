// libFuzzer target: whatever bytes come as the parts of a codebook, of sparse weights or of a side term, reading them
// ends in an Error or in floats, inside the parts' own memory. The first bytes choose the format and the shape.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"
#include "formats/codebook.h"
#include "formats/low_rank.h"
#include "formats/outliers.h"
#include "formats/sparse.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::formats;

namespace {

struct Held {
  std::vector<std::unique_ptr<uint8_t[]>> kept;
  std::vector<Part> parts;

  Held(const std::vector<PartNeed>& needs, std::span<const uint8_t> data) {
    for (const PartNeed& need : needs) {
      const size_t bytes = size_t(bytes_of(need.dtype, need.shape)), there = std::min(bytes, data.size());
      kept.push_back(std::make_unique<uint8_t[]>(bytes));  // what is missing is 0
      if (there) std::memcpy(kept.back().get(), data.data(), there);
      data = data.subspan(there);
      parts.push_back({need.name, need.dtype, need.shape, {kept.back().get(), bytes}});
    }
  }
};

template <class View>
void read(const View& view) {
  std::vector<float> row(view.columns);
  const size_t some = view.columns / 3;
  for (size_t n = 0; n < view.rows; ++n) {
    if constexpr (requires { view.dequantize(n, 0, some, row.data()); }) {
      view.dequantize(n, 0, view.columns, row.data());
      view.dequantize(n, some, view.columns - some, row.data());
    } else {
      view.add(n, 0, view.columns, row.data());
      view.add(n, some, view.columns - some, row.data());
    }
  }
}

void read_sparse(const uint8_t* choice, size_t rows, size_t columns, std::span<const uint8_t> rest) {
  SparseFormat format;
  format.support = Support(choice[3] % 4);  // the last is none
  if (format.support == Support::nm) format.keep = choice[4] % 9;
  if (format.support != Support::bitmap) format.span = 1 + choice[5];
  format.values = NumberKind(choice[6] % 4);
  format.bits = format.coded() ? choice[7] % 10 : 0;
  format.group = choice[8] % 2 ? 16 : kChannel;
  // As many values as the row starts in the data will say, where they are small enough to be meant.
  size_t kept = choice[9];
  const auto needs = parts_of(format, rows, columns, kept);
  const size_t support = size_t(bytes_of(needs[0].dtype, needs[0].shape));
  if (rest.size() >= support + 4 * (rows + 1)) kept = load_le<uint32_t>(rest.data() + support + 4 * rows) % 4096;
  const Held held(parts_of(format, rows, columns, kept), rest);
  const Sparse view = sparse_of(format, rows, columns, held.parts, 1);
  read(view);
  for (size_t n = 0; n < rows; ++n) {
    std::vector<uint32_t> places(view.kept(n));
    std::vector<float> values(view.kept(n));
    view.columns_of(n, places.data());
    view.values_of(n, places.data(), values.data());
  }
}

void read_any(const uint8_t* choice, std::span<const uint8_t> rest) {
  const size_t rows = 1 + choice[1] % 4, columns = 1 + choice[2] % 200;
  switch (choice[0] % 5) {
    case 0: {
      const VectorCodebook format{choice[3] % 10, choice[4] % 6, size_t(choice[5]) * (choice[6] % 18)};
      const Held held(parts_of(format, rows, columns), rest);
      return read(vector_codes_of(format, rows, columns, held.parts, 1));
    }
    case 1: {
      constexpr size_t kGroups[] = {16, 64, kChannel, kTensor};
      const ScalarCodebook format{Scope(choice[3] % 4), size_t(choice[4]) + 2, kGroups[choice[5] % 4],
                                  NumberKind(choice[6] % 4), NumberKind(1 + choice[7] % 2)};
      const Held held(parts_of(format, rows, columns), rest);
      return read(grid_of(format, rows, columns, held.parts, 1));
    }
    case 2: return read_sparse(choice, rows, columns, rest);
    case 3: {
      const auto kind = NumberKind(1 + choice[3] % 3);
      const Held held(outliers_parts(kind, rows, columns, choice[4]), rest);
      return read(outliers_of(kind, rows, columns, held.parts, 1));
    }
    default: {
      const auto kind = NumberKind(choice[3] % 4);
      const size_t rank = choice[4] % 5;
      const Held held(low_rank_parts(kind, rank, rows, columns), rest);
      return read(low_rank_of(kind, rank, rows, columns, held.parts));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 10) return 0;
  const fuzz::Copy copy(data, size);
  try {
    read_any(copy.bytes().data(), copy.bytes().subspan(10));
  } catch (const Error&) {
  }
  return 0;
}
