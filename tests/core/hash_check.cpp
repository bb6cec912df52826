#include "core/hash.h"

#include <algorithm>
#include <vector>

#include "check.h"
#include "core/isa.h"

using namespace tersor;

namespace {

std::vector<uint8_t> sample(size_t size) {
  std::vector<uint8_t> data(size);
  for (size_t i = 0; i < size; ++i) data[i] = uint8_t(uint32_t(i) * 2654435761u >> 24);
  return data;
}

// What xxhash 3 for Python (xxh3_128_hexdigest) says of the first `size` bytes of the sample.
constexpr struct {
  size_t size;
  const char* hex;
} kKnown[] = {
    {0, "99aa06d3014798d86001c324468d497f"},      {1, "a6cd5e9392000f6ac44bdff4074eecdb"},
    {3, "977fcbc0448b49f6e14090f554a5ea90"},      {4, "4e82b36688c5328f4ee6926f0426173e"},
    {8, "7b4966a681f18d5779d85adaeefd615e"},      {9, "200d098a7113e15fee5940d4df4715ae"},
    {16, "78e8ab538d3acaab37286a19cf622308"},     {17, "1ea709ada2b9c32e33bed349ec1c0ce7"},
    {32, "4e9c19033e772df434875ae75c27bc73"},     {33, "3d498fc14d9681e19cd7914bbaf713b9"},
    {128, "5ac741c59c95d36ae1f0636051ccd2be"},    {129, "1240f4d960139642cfb3fed667226458"},
    {191, "ae3007bcddd59685705e4e9935cc6797"},    {240, "640a6149838a7599b2e6947c477a4ab0"},
    {241, "e817e20e53e42a8c2d431e984c441f15"},    {256, "96b9c38548dd27ee1369aaf85f8b805a"},
    {1023, "5687286dd310b7db4e30bb611faa8f67"},   {1024, "df4c8b9ff9715101e99def1145f12936"},
    {1025, "63e845aab7eb695f83cba9b371e4e7f4"},   {1088, "53fd1378f51e868e8e7e69b3a7124813"},
    {2048, "fb68e3b1bb55b50253275d58cfba68fd"},   {65537, "34ef5ec6349a8582cab0f544da7981e1"},
    {100000, "169bf5c50b17f183920056915640359f"},
};

}  // namespace

TEST_CASE("hash: the values of the common implementation, on every level") {
  const auto data = sample(100'000);
  for (int level = 0; level <= int(machine_isa()); ++level) {
    hold_isa(Isa(level));
    for (const auto& known : kKnown) CHECK(hash128(std::span(data).first(known.size)).hex() == known.hex);
  }
  hold_isa(machine_isa());
}

TEST_CASE("hash: levels agree at every length, and so do bytes that come in pieces") {
  const auto data = sample(5000);
  for (size_t size = 0; size <= data.size(); size += size < 1300 ? 1 : 61) {
    const auto part = std::span(data).first(size);
    hold_isa(Isa::scalar);
    const Hash128 reference = hash128(part);
    hold_isa(machine_isa());
    CHECK(hash128(part) == reference);
    for (const size_t step : {size_t(1), size_t(63), size_t(64), size_t(1024), size_t(1500)}) {
      HashStream stream;
      for (size_t at = 0; at < size; at += step) stream.update(part.subspan(at, std::min(step, size - at)));
      CHECK(stream.finish() == reference);
    }
    CHECK(Hash128::of_bytes(reference.bytes()) == reference);
  }
}
