// libFuzzer target: whatever bytes come, decoding a golomb or gap stream ends in an Error or in values, and packed bits
// in the same values on every level. The last byte chooses what the bytes are: a stream, or values that are coded,
// wanted back and damaged in a few places.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "entropy/bitpack.h"
#include "entropy/golomb.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostValues = uint64_t(4) << 20;  // a few honest bytes may stand for many: that is no finding

void decode_either(std::span<const uint8_t> data) {
  std::vector<uint64_t> out;
  try {
    if (!data.empty() && data[0] == 8) {
      const auto told = gap::told(data);
      if (told.count > kMostValues) return;
      out.resize(size_t(told.count));
      gap::decode(data, std::span(out), 1);
      for (size_t i = 0; i < out.size(); ++i)
        if (out[i] >= told.size || (i > 0 && out[i] <= out[i - 1])) std::abort();
      const auto again = gap::encode(std::span<const uint64_t>(out), told.size, 1);
      std::vector<uint64_t> back(out.size());
      gap::decode(again, std::span(back), 1);
      if (back != out) std::abort();
    } else {
      out.resize(size_t(golomb::told(data).count));
      golomb::decode(data, std::span(out), 1);
    }
  } catch (const Error&) {
  }
}

// Eight bytes a value, shifted down by what the value itself says, so that all lengths come.
void code_and_want_back(std::span<const uint8_t> bytes) {
  std::vector<uint64_t> values(bytes.size() / 8), back(values.size()), positions;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = load_le<uint64_t>(bytes.data() + 8 * i);
    values[i] >>= values[i] % 64;
  }
  const uint32_t places = bytes.empty() ? 0 : bytes[0] * 2654435761u;
  const auto coded = golomb::encode(std::span<const uint64_t>(values), places % 3 ? places % 100 : 0, false, 1);
  golomb::decode(coded, std::span(back), 1);
  if (back != values) std::abort();
  fuzz::damaged(coded, places, decode_either);
  uint64_t next = 0;
  for (const uint64_t value : values)
    if (next + value % 1000 < uint64_t(1) << 40) positions.push_back(next += value % (1 + places % 1000)), ++next;
  back.resize(positions.size());
  const auto gaps = gap::encode(std::span<const uint64_t>(positions), next, 1);
  gap::decode(gaps, std::span(back), 1);
  if (back != positions) std::abort();
  fuzz::damaged(gaps, places, decode_either);
}

template <class T>
void pack_and_want_back(std::span<const uint8_t> bytes, int bits) {
  fuzz::decode_alike(bytes.size() * 8 / size_t(bits) * sizeof(T), [&](std::span<uint8_t> room) {
    const auto values = std::make_unique<T[]>(room.size() / sizeof(T));
    const std::span<T> out(values.get(), room.size() / sizeof(T));
    const auto packed = bytes.first(size_t(bitpack::packed_bytes(out.size(), bits)));
    bitpack::unpack_bits(packed, bits, out, 1);
    const auto plain = std::as_bytes(out);
    std::transform(plain.begin(), plain.end(), room.begin(), [](std::byte byte) { return uint8_t(byte); });
    std::vector<uint8_t> again(packed.size());
    bitpack::pack_bits(std::span<const T>(out), bits, again, 1);
    const size_t whole = out.size() * size_t(bits) / 8;  // behind it are bits that are not looked at
    fuzz::want_equal(std::span(again).first(whole), packed.first(whole));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const fuzz::Copy copy(data, size - 1);
  const auto bytes = copy.bytes();
  const int bits = data[size - 1] / 8 % 16 + 1;
  switch (data[size - 1] % 4) {
    case 0: code_and_want_back(bytes); break;
    case 1: bits <= 8 ? pack_and_want_back<uint8_t>(bytes, bits) : pack_and_want_back<uint16_t>(bytes, bits); break;
    default: decode_either(bytes);
  }
  return 0;
}
