// Bins and strides: what goes in comes out, for every width of place and at every edge of a width of values.
#include "transform/value_bins.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::transform;

namespace {

// Bins of the given widths from `first` on, and values in all of them, their edges among these.
template <class U>
void comes_back(U first, const std::vector<int>& widths, size_t count, std::mt19937_64& random) {
  ValueBins<U> bins{};
  bins.count = widths.size();
  U end = first;
  for (size_t i = 0; i < widths.size(); ++i) {
    bins.first[i] = end, bins.bits[i] = uint8_t(widths[i]);
    end = widths[i] < int(8 * sizeof(U)) ? U(end + U(U(1) << widths[i])) : end;
  }
  std::vector<U> values(count), back(count);
  size_t bits = 0;
  std::vector<uint8_t> want(count), names(count);
  for (size_t i = 0; i < count; ++i) {
    want[i] = uint8_t(random() % bins.count);
    const int width = widths[want[i]];
    const uint64_t most = width == 0 ? 0 : ~uint64_t(0) >> (64 - width);
    values[i] = U(bins.first[want[i]] + U(random() % 4 == 0 ? (random() % 2 ? most : 0) : random() & most));
    bits += size_t(width);
  }
  std::vector<uint16_t> cells(BinFinder<U>::cells_for(count));
  BinFinder<U>(bins, U(end - first - 1), cells).find(values, names.data());
  CHECK(names == want);
  std::vector<uint8_t> places((bits + 7) / 8 + 8);
  put_places<U>(bins, values, names.data(), places.data());
  places.resize((bits + 7) / 8);
  places.shrink_to_fit();
  for (int level = 0; level <= int(machine_isa()); ++level) {
    hold_isa(Isa(level));
    PlaceReader reader{places};
    // In two parts, as tiles are.
    const size_t part = count / 3;
    std::fill(back.begin(), back.end(), U(0));
    CHECK(take_values<U>(bins, names.data(), reader, std::span(back).first(part)));
    CHECK(take_values<U>(bins, names.data() + part, reader, std::span(back).subspan(part)));
    CHECK(back == values && reader.bit == bits);
    for (const size_t missing : {size_t(1), size_t(2), size_t(9), size_t(64), size_t(353), places.size() / 2}) {
      if (missing == 0 || missing > places.size()) continue;
      const std::vector<uint8_t> part_of(places.begin(), places.end() - long(missing));  // a sanitizer sees its end
      PlaceReader cut{part_of};
      CHECK(!take_values<U>(bins, names.data(), cut, back));
    }
  }
  hold_isa(machine_isa());
}

template <class U>
void every_width() {
  constexpr int kWidth = 8 * sizeof(U);
  std::mt19937_64 random(kWidth);
  for (const size_t count : {size_t(1), size_t(7), size_t(40), size_t(3000)}) {
    for (int width = 0; width <= kWidth; ++width) comes_back<U>(U(random()), {width}, count, random);
    std::vector<int> around;  // octaves around a value, as a law of differences has them
    for (int i = kWidth - 2; i >= 0; --i) around.push_back(i);
    around.push_back(0);
    for (int i = 0; i < kWidth - 1; ++i) around.push_back(i);
    comes_back<U>(U(U(1) << (kWidth - 1)), around, count, random);
    comes_back<U>(U(5), std::vector<int>(kMostBins, std::max(0, kWidth - 8)), count, random);
    for (const size_t bins : {31, 33, 63, 65})
      for (const int most : {9, 25, 26, 36, 37, kWidth - 8}) {
        std::vector<int> mixed(bins);
        for (int& width : mixed) width = std::min(most, kWidth - 8) - int(random() % 2);
        if (kWidth > 8) comes_back<U>(U(random()), mixed, count, random);
      }
    comes_back<U>(U(200), {3, 3, 0, 1, 2, 0}, count, random);
  }
}

template <class U>
void strides_come_back() {
  std::mt19937_64 random(9);
  for (const size_t count : {1, 2, 16, 17, 500})
    for (const size_t stride : {1, 2, 3, 5, 7, 8, 15, 16, 31, 33, 63, 64, 100, 499, 1000}) {
      std::vector<U> values(count), back(count);
      for (U& value : values) value = U(random());
      subtract_stride<U>(values, stride, back.data());
      CHECK(count <= stride || back[stride] == U(values[stride] - values[0]));
      const std::vector<U> differences = back;
      check::each_isa([&] {
        back = differences;
        add_stride(back.data(), 0, count / 2, stride), add_stride(back.data(), count / 2, count, stride);
        CHECK(back == values);
      });
    }
}

}  // namespace

TEST_CASE("value_bins: values of every width come back from bins") {
  every_width<uint8_t>(), every_width<uint16_t>(), every_width<uint32_t>(), every_width<uint64_t>();
}

TEST_CASE("value_bins: sums along a stride undo differences along it") {
  strides_come_back<uint8_t>(), strides_come_back<uint16_t>(), strides_come_back<uint32_t>();
  strides_come_back<uint64_t>();
}

TEST_CASE("value_bins: floats in their order") {
  const float rising[] = {-3e38f, -2.5f, -2.25f, -1e-40f, 0.0f, 1e-40f, 1.0f, 1.5f, 3e38f};
  for (size_t i = 0; i < std::size(rising); ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(rising[i]);
    CHECK(order_float(order_float(bits)) == bits);
    if (i) CHECK(int32_t(order_float(bits)) > int32_t(order_float(std::bit_cast<uint32_t>(rising[i - 1]))));
  }
  CHECK(order_float(0x80000000u) == 0x80000000u);  // -0 keeps a number of its own
  CHECK(order_float(uint16_t(0xc000)) % 0x4000 == 0);
}
