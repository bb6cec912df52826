#include "entropy/escape.h"

#include <algorithm>
#include <random>

#include "check.h"
#include "levels.h"

namespace tersor::entropy {
namespace {

// `named` symbols from `first` on, `stride` apart, have a name of their own; the rest are escaped.
NameMap map_of(unsigned first, unsigned named, unsigned stride) {
  NameMap map{};
  map.escape = uint8_t(named);
  std::fill(std::begin(map.name_of), std::end(map.name_of), map.escape);
  for (unsigned name = 0; name < named; ++name) {
    map.symbol_of[name] = uint8_t(first + name * stride);
    map.name_of[map.symbol_of[name]] = uint8_t(name);
  }
  return map;
}

}  // namespace

TEST_CASE("escape: every level splits and merges as scalar does, at every length and place") {
  std::mt19937 random(1);
  const NameMap maps[] = {map_of(0, 31, 1), map_of(225, 31, 1), map_of(110, 20, 1), map_of(3, 31, 8), map_of(7, 0, 1)};
  for (const NameMap& map : maps) {
    for (size_t count = 0; count < 300; count += count < 140 ? 1 : 53) {
      std::vector<uint8_t> symbols(count);
      for (auto& symbol : symbols) symbol = uint8_t(random() % 4 ? map.symbol_of[random() % 31] : random());
      std::vector<uint8_t> names(count), escaped(count + 64);
      const size_t splits =
          split_escapes_scalar(map, window_of(map), symbols.data(), count, names.data(), escaped.data());
      escaped.resize(splits);
      check::each_isa([&] {
        std::vector<uint8_t> names_here(count), escaped_here(count + 64);
        CHECK(split_escapes(map, symbols, names_here.data(), escaped_here.data()) == splits);
        escaped_here.resize(splits);
        CHECK(names_here == names && escaped_here == escaped);

        escaped_here.push_back(99);  // one more than is needed stays where it is
        std::span<const uint8_t> left = escaped_here;
        CHECK(merge_escapes(map, names_here, left));
        CHECK(names_here == symbols && left.size() == 1 && left[0] == 99);
      });
    }
  }
}

TEST_CASE("escape: too few escaped symbols are noticed on every level") {
  const NameMap map = map_of(100, 31, 1);
  for (const size_t at : {size_t(0), size_t(63), size_t(64), size_t(129)}) {
    check::each_isa([&] {
      std::vector<uint8_t> names(130, 1);
      names[at] = map.escape;
      std::span<const uint8_t> none;
      CHECK(!merge_escapes(map, names, none));
    });
  }
}

}  // namespace tersor::entropy
