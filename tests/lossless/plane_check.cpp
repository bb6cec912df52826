#include "lossless/plane.h"

#include <algorithm>
#include <vector>

#include "check.h"

namespace tersor::lossless {
namespace {

TEST_CASE("plane: a value that occurs only at the end comes back") {
  for (const size_t size : {4096, 4097, 11416, 65536, 65599, 70001, 262207}) {
    for (const int stride : {1, 8}) {
      std::vector<uint8_t> values;
      for (size_t i = 1; i < size; ++i) values.push_back(uint8_t(i * i % 23 % 7));
      values.push_back(31);
      std::vector<uint8_t> room(size + 1024), back(size);
      ByteWriter coded(room);
      encode_plane(values, 32, {.segment = 16384, .precision = 13, .stride = stride}, coded);
      CHECK(!coded.full());
      std::span<const uint8_t> data = coded.written();
      PlaneDecoder decoder(data, size, 32);
      constexpr size_t kTile = 16384;
      for (size_t at = 0; at < size; at += kTile) {
        const size_t count = std::min(kTile, size - at);
        const uint8_t* from = decoder.next(count, back.data() + at);
        if (from != back.data() + at) std::copy_n(from, count, back.data() + at);
      }
      decoder.finish();
      CHECK(data.empty());
      CHECK(back == values);
    }
  }
}

TEST_CASE("plane: tables for more values than there are cost nothing") {
  std::vector<uint32_t> frequencies(65'000, 0);  // a few bytes when serialized, a quarter of a MiB when read
  frequencies[3] = frequencies[5] = 2048;
  std::vector<uint8_t> coded = {2, 1, 0};
  entropy::Table::from_frequencies(frequencies, 12).serialize(coded);
  coded.insert(coded.end(), 4, 0);
  const std::string error = check::error_of([&] {
    std::span<const uint8_t> data = coded;
    PlaneDecoder plane(data, 4, 256);
  });
  CHECK(error == "lossless plane: a table of 65000 frequencies, at most 256 are allowed");
}

}  // namespace
}  // namespace tersor::lossless
