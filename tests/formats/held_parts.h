// Parts in allocations of exactly their sizes, so that a sanitizer sees a read outside.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "core/bits.h"
#include "formats/parts.h"

namespace tersor::check {

struct HeldParts {
  std::vector<formats::PartNeed> needs;
  std::vector<std::unique_ptr<uint8_t[]>> data;

  explicit HeldParts(std::vector<formats::PartNeed> needed) : needs(std::move(needed)) {
    for (const auto& need : needs) data.push_back(std::make_unique<uint8_t[]>(bytes(need)));
  }
  static size_t bytes(const formats::PartNeed& need) { return size_t(bytes_of(need.dtype, need.shape)); }
  std::span<uint8_t> operator[](std::string_view name) {
    for (size_t i = 0; i < needs.size(); ++i)
      if (needs[i].name == name) return {data[i].get(), bytes(needs[i])};
    return {};
  }
  template <class T>
  void put(std::string_view name, size_t index, T value) {
    store_le<T>((*this)[name].data() + index * sizeof(T), value);
  }
  std::vector<formats::Part> list() const {
    std::vector<formats::Part> parts;
    for (size_t i = 0; i < needs.size(); ++i)
      parts.push_back({needs[i].name, needs[i].dtype, needs[i].shape, {data[i].get(), bytes(needs[i])}});
    return parts;
  }
};

// Pieces of a row are those of the whole row, from every place on.
template <class View>
bool pieces_agree(const View& view, size_t row) {
  std::vector<float> whole(view.columns), piece(view.columns);
  view.dequantize(row, 0, view.columns, whole.data());
  for (size_t first = 0; first < view.columns; ++first)
    for (const size_t count : {size_t(0), size_t(1), size_t(7), view.columns - first}) {
      const size_t take = std::min(count, view.columns - first);
      view.dequantize(row, first, take, piece.data());
      if (std::memcmp(piece.data(), whole.data() + first, 4 * take) != 0) return false;
    }
  return true;
}

}  // namespace tersor::check
