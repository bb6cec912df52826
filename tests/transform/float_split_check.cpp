// Every level cuts and joins floats as scalar does: at awkward lengths, from unaligned words, with every number of
// extra bits; and what is cut comes back.
#include "transform/float_split.h"

#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::transform;

namespace {

constexpr size_t kLengths[] = {0,  1,   2,   15,  16,  17,  31,  32,  33,  63,   64,
                               65, 127, 191, 255, 256, 257, 511, 512, 513, 1025, 2047};

// Words behind one odd byte; the span is never read through as words, only handed on.
template <class Word>
struct Unaligned {
  std::vector<uint8_t> bytes;
  explicit Unaligned(size_t count) : bytes(count * sizeof(Word) + 1) {}
  std::span<Word> words() { return {reinterpret_cast<Word*>(bytes.data() + 1), bytes.size() / sizeof(Word)}; }
};

FloatSplit around(int extra_bits, uint16_t special) { return {extra_bits, uint16_t(110 << extra_bits), special}; }

// Most keys within the window, some special, some far away, and every sign.
Unaligned<uint16_t> words_for(const FloatSplit& split, size_t count, std::mt19937& random) {
  Unaligned<uint16_t> unaligned(count);
  for (size_t i = 0; i < count; ++i) {
    const unsigned key = random() % 8 == 0   ? random()
                         : random() % 8 == 0 ? split.special
                                             : split.window + random() % kWindow;
    const uint16_t word = uint16_t((key << (7 - split.extra_bits) & 0x7fff) | (random() & 0x8000) |
                                   (random() & ((1u << (7 - split.extra_bits)) - 1)));
    std::memcpy(unaligned.bytes.data() + 1 + 2 * i, &word, 2);
  }
  return unaligned;
}

}  // namespace

TEST_CASE("float split: words on every level, as scalar, and back") {
  std::mt19937 random(1);
  for (int extra = 0; extra <= kMostExtraBits; ++extra)
    for (const uint16_t special : {FloatSplit::kNoKey, uint16_t(0), uint16_t((256 << extra) - 1)}) {
      const FloatSplit split = around(extra, special);
      for (const size_t count : kLengths) {
        Unaligned<uint16_t> words = words_for(split, count, random);
        std::vector<uint8_t> names(count), rest(count);
        std::vector<uint16_t> escaped(count + 32);
        const size_t escapes =
            split_words_scalar(split, words.words().data(), count, names.data(), rest.data(), escaped.data());
        escaped.resize(escapes);
        for (size_t i = 0; i < count; ++i) CHECK(names[i] < 32 && rest[i] < 1 << (8 - extra));
        check::each_isa([&] {
          std::vector<uint8_t> names_here(count), rest_here(count);
          std::vector<uint16_t> escaped_here(count + 32);
          CHECK(split_words(split, words.words(), names_here.data(), rest_here.data(), escaped_here.data()) == escapes);
          escaped_here.resize(escapes);
          CHECK(names_here == names && rest_here == rest && escaped_here == escaped);

          escaped_here.push_back(4711);  // one more than is needed stays where it is
          std::span<const uint16_t> left = escaped_here;
          Unaligned<uint16_t> back(count);
          CHECK(merge_words(split, names.data(), rest.data(), back.words(), left));
          CHECK(back.bytes == words.bytes && left.size() == 1);
          if (escapes == 0) return;
          std::span<const uint16_t> short_of = std::span(escaped_here).first(escapes - 1);
          CHECK(!merge_words(split, names.data(), rest.data(), back.words(), short_of));
        });
      }
    }
}

TEST_CASE("float split: hostile windows, keys and rests join alike on every level") {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const FloatSplit split{int(random() % 3), uint16_t(random()), uint16_t(random())};
    const size_t count = 1 + random() % 300;
    std::vector<uint8_t> names(count), rest(count);
    std::vector<uint16_t> escaped(count);
    for (auto& name : names) name = uint8_t(random() % 32);
    for (auto& r : rest) r = uint8_t(random());
    for (auto& key : escaped) key = uint16_t(random());
    std::vector<uint16_t> want(count);
    const uint16_t* at = escaped.data();
    CHECK(merge_words_scalar(split, names.data(), rest.data(), count, want.data(), at, escaped.data() + count));
    check::each_isa([&] {
      std::vector<uint16_t> got(count);
      std::span<const uint16_t> left = escaped;
      CHECK(merge_words(split, names.data(), rest.data(), got, left));
      CHECK(got == want && left.data() == at);
    });
  }
}

TEST_CASE("float split: keys of a whole byte come back, whatever the word") {
  Unaligned<uint16_t> all(65536), back(65536);
  for (uint32_t word = 0; word < 65536; ++word) std::memcpy(all.bytes.data() + 1 + 2 * word, &word, 2);
  std::vector<uint8_t> keys(65536), rest(65536);
  split_keys(all.words(), keys.data(), rest.data());
  CHECK(keys[0x3f80] == 0x7f && rest[0x3f80] == 0 && keys[0xbf81] == 0x7f && rest[0xbf81] == 0x81);
  merge_keys(keys.data(), rest.data(), back.words());
  CHECK(back.bytes == all.bytes);
}

TEST_CASE("float split: 32-bit words on every level, as scalar, and back") {
  std::mt19937 random(3);
  for (const size_t count : kLengths) {
    Unaligned<uint32_t> words(count);
    for (auto& byte : words.bytes) byte = uint8_t(random());
    words.bytes[0] = 0;
    std::vector<uint16_t> upper(count);
    std::vector<uint8_t> byte1(count), byte0(count);
    split32_scalar(words.words().data(), count, upper.data(), byte1.data(), byte0.data());
    check::each_isa([&] {
      std::vector<uint16_t> upper_here(count);
      std::vector<uint8_t> byte1_here(count), byte0_here(count);
      split32(words.words(), upper_here.data(), byte1_here.data(), byte0_here.data());
      CHECK(upper_here == upper && byte1_here == byte1 && byte0_here == byte0);
      Unaligned<uint32_t> back(count);
      merge32(upper.data(), byte1.data(), byte0.data(), back.words());
      CHECK(back.bytes == words.bytes);
    });
  }
}

TEST_CASE("float split: rests packed without holes on every level, and back") {
  std::mt19937 random(4);
  for (int extra = 0; extra <= kMostExtraBits; ++extra)
    for (const size_t count : kLengths) {
      std::vector<uint8_t> rest(count);
      for (auto& r : rest) r = uint8_t(random() & ((1u << (8 - extra)) - 1));
      const size_t whole = extra == 0 ? 0 : count / (extra == 1 ? 512 : 256);
      CHECK(packed_bytes(extra, count) == count - 64 * whole);
      std::vector<uint8_t> want;
      check::each_isa([&] {
        std::vector<uint8_t> packed(packed_bytes(extra, count)), back(count);
        pack_rest(extra, rest, packed.data());
        if (want.empty()) want = packed;
        CHECK(packed == want);
        unpack_rest(extra, packed.data(), back);
        CHECK(back == rest);
      });
      if (whole == 0) continue;
      // By the page: the last run's first value gives run 1 its bits from `extra` on.
      const size_t last = extra == 1 ? 448 : 192;
      CHECK(want[64] == (rest[64] | (rest[last] >> extra & ((1 << extra) - 1)) << (8 - extra)));
    }
}
