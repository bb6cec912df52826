// Sparse values: each is where its bit is, on every level, for every width and size.
#include "transform/sparse_map.h"

#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::transform;

namespace {

template <class U>
void fills() {
  std::mt19937_64 random(sizeof(U));
  for (const size_t count : {1, 7, 8, 9, 63, 64, 65, 500, 1001})
    for (const unsigned share : {0, 1, 8, 15, 16}) {
      std::vector<uint8_t> map((count + 7) / 8);
      std::vector<U> want(count), others;
      for (size_t i = 0; i < count; ++i)
        if (random() % 16 < share) {
          want[i] = U(random());
          map[i / 8] |= uint8_t(1 << i % 8);
          others.push_back(want[i]);
        }
      CHECK(count_map(map) == others.size());
      others.resize(others.size() + kOthersSpare / sizeof(U), U(random()));
      check::each_isa([&] {
        std::vector<U> values(count, U(7));
        fill_sparse<U>(map.data(), others.data(), values);
        CHECK(values == want);
      });
    }
}

}  // namespace

TEST_CASE("sparse_map: values are where their bits are, on every level") {
  fills<uint8_t>(), fills<uint16_t>(), fills<uint32_t>(), fills<uint64_t>();
}
