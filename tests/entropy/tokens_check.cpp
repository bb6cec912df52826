#include "entropy/tokens.h"

#include <algorithm>
#include <memory>
#include <random>

#include "check.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::entropy;
using Bytes = std::vector<uint8_t>;
using Tokens = std::vector<uint16_t>;
using Sizes = std::vector<uint32_t>;

namespace {

// Uneven tokens; one in `turn` does not stay.
Tokens tokens_of(const Sizes& sizes, size_t frames, uint32_t turn, uint32_t seed) {
  std::mt19937 random(seed);
  Tokens tokens;
  for (size_t i = 0; i < frames * sizes.size(); ++i) {
    const uint32_t size = sizes[i % sizes.size()], drawn = random() % size;
    const bool stays = i >= sizes.size() && random() % turn;
    tokens.push_back(stays ? tokens[i - sizes.size()] : uint16_t(random() % 2 ? drawn : drawn / 16));
  }
  return tokens;
}

const std::vector<Sizes> kShapes = {{256, 256, 256, 256}, {8, 8, 5}, {2}, {65536}, {4097, 3, 4096}, Sizes(64, 20)};

tokens::Model fitted(const Tokens& tokens, const Sizes& sizes, size_t chunk_frames, bool prior) {
  const std::vector<uint64_t> clips = {tokens.size() / sizes.size()};
  return tokens::fit(tokens, clips, sizes, chunk_frames, prior);
}

Tokens decoded(std::span<const uint8_t> data, const tokens::Model* model) {
  const tokens::Stream stream(data, model, true);
  Tokens out(size_t(stream.frames()) * stream.model().books().size());
  const auto damaged = stream.decode(out);
  TERSOR_REQUIRE(damaged.empty(), Code::bad_data, damaged[0].reason);
  return out;
}

// The chunk with the checksum that it should have.
Bytes mended(Bytes chunk, uint64_t number) {
  std::array<uint8_t, 8> place;
  store_le(place.data(), number);
  const auto content = std::span(chunk).first(chunk.size() - 4);
  store_le(chunk.data() + content.size(), crc32c(content, crc32c(place)));
  return chunk;
}

}  // namespace

TEST_CASE("tokens: the level of a weight is the nearest as a ratio") {
  for (uint64_t weight = 0; weight < 4u << 20; weight += 1 + weight / 300) {
    const size_t level = tokens::nearest_level(weight);
    CHECK(level >= 1 && level < tokens::kLevels);
    const auto mean = [](size_t l) { return uint64_t(tokens::weight_of(l)) * tokens::weight_of(l + 1) << 12; };
    CHECK(level == 1 || weight * weight >= mean(level - 1));
    CHECK(level == tokens::kLevels - 1 || weight * weight < mean(level));
  }
}

TEST_CASE("tokens: a table fills its slots and every slot finds its symbol") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const size_t symbols = 1 + random() % (round < 150 ? 40 : 4096);
    Bytes levels(symbols);
    for (auto& level : levels) level = uint8_t(random() % 3 ? random() % tokens::kLevels : 0);
    levels[random() % symbols] = 1;
    tokens::Table table;
    table.build(levels);
    CHECK(table.starts.back() == 65536 && table.starts.size() == table.symbols.size() + 1);
    for (size_t s = 0; s < symbols; ++s) CHECK((table.length[s] > 0) == (levels[s] > 0));
    size_t i = 0;
    for (uint32_t slot = 0; slot < 65536; slot += 1 + random() % 5) {
      while (table.starts[i + 1] <= slot) ++i;
      const uint16_t symbol = table.symbols[i];
      CHECK(table.start[symbol] == table.starts[i] && slot - table.start[symbol] < table.length[symbol]);
      CHECK(table.first[slot >> 8] <= i && table.starts[table.first[slot >> 8]] <= slot);
    }
  }
}

TEST_CASE("tokens: the stack gives back what it was given and then is empty") {
  std::mt19937 random(2);
  struct Put {
    uint32_t start, length;
    int bits;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<Put> puts(random() % (round < 2000 ? 12 : 300));
    for (Put& put : puts) {
      put.bits = 1 + int(random() % 16);
      const uint32_t slots = 1u << put.bits;
      put.start = random() % slots;
      put.length = 1 + random() % (random() % 2 ? slots - put.start : std::min(slots - put.start, 3u));
    }
    Bytes room(2 * puts.size() + 8);
    tokens::StackWriter writer(room);
    for (size_t i = puts.size(); i-- > 0;) writer.put(puts[i].start, puts[i].length, puts[i].bits);
    const auto string = writer.finish();
    const auto exact = std::make_unique<uint8_t[]>(string.size());  // a read behind it is seen by a sanitizer
    std::ranges::copy(string, exact.get());
    tokens::StackReader reader({exact.get(), string.size()});
    for (const Put& put : puts) {
      CHECK(reader.slot(put.bits) - put.start < put.length);
      reader.drop(put.start, put.length, put.bits);
    }
    CHECK(reader.done());
  }
}

TEST_CASE("tokens: short streams of every shape come back") {
  for (const Sizes& sizes : kShapes) {
    const Tokens all = tokens_of(sizes, 64, 3, 3);
    const tokens::Model prior = fitted(all, sizes, 20, true);
    for (size_t frames = 0; frames <= 64; ++frames) {
      const Tokens some(all.begin(), all.begin() + long(frames * sizes.size()));
      CHECK(decoded(tokens::encode(some, prior, false), &prior) == some);
      CHECK(decoded(tokens::encode(some, fitted(some, sizes, 20, false), true), nullptr) == some);
    }
  }
}

TEST_CASE("tokens: every level gives the same bytes, and a model comes back as it was") {
  for (const Sizes& sizes : kShapes)
    for (const bool prior : {false, true}) {
      const Tokens all = tokens_of(sizes, 3000, 4, 5);
      const tokens::Model want = fitted(all, sizes, 75, prior);
      const Bytes data = tokens::encode(all, want, false);
      check::each_isa([&] {
        const tokens::Model model = fitted(all, sizes, 75, prior);
        CHECK(std::ranges::equal(model.bytes(), want.bytes()) && model.id() == want.id());
        CHECK(tokens::encode(all, model, false) == data);
        const tokens::Model back = tokens::unpack(tokens::pack(model));
        CHECK(std::ranges::equal(back.bytes(), want.bytes()) && back.id() == want.id());
        CHECK(decoded(data, &back) == all);
      });
    }
}

TEST_CASE("tokens: a chunk of the likeliest tokens stands for no more of them than its bytes allow") {
  for (const size_t books : {1u, 3u, 64u})
    for (size_t frames = 1; frames <= tokens::kMostChunkFrames; frames = frames * 5 / 2 + 1) {
      const Tokens all(frames * books, 7);
      const tokens::Model model = fitted(all, Sizes(books, 9), frames, false);
      const Bytes chunk = model.encode_chunk(all, 3);
      CHECK(all.size() <= 2048 * chunk.size());
      CHECK(model.frames_in(chunk) == frames);
      Tokens out(all.size());
      model.decode_chunk(chunk, 3, out);
      CHECK(out == all);
    }
}

TEST_CASE("tokens: every truncation and flipped bit is an error") {
  for (const Sizes& sizes : kShapes) {
    const Tokens all = tokens_of(sizes, 30, 3, 7);
    const Bytes data = tokens::encode(all, fitted(all, sizes, 12, false), true);
    for (size_t cut = 0; cut < data.size(); ++cut) {
      const Bytes bad(data.begin(), data.begin() + long(cut));
      CHECK(!check::error_of([&] { decoded(bad, nullptr); }).empty());
    }
    for (size_t bit = 0; bit < 8 * data.size(); bit += 1 + data.size() / 500) {
      Bytes bad = data;
      bad[bit / 8] ^= uint8_t(1 << bit % 8);
      CHECK(!check::error_of([&] { decoded(bad, nullptr); }).empty());
    }
  }
}

TEST_CASE("tokens: chunks and models of any content under a good checksum end in tokens or in an error") {
  std::mt19937 random(8);
  for (const Sizes& sizes : kShapes) {
    const Tokens all = tokens_of(sizes, 40, 3, 9);
    const tokens::Model model = fitted(all, sizes, 40, true);
    const Bytes chunk = model.encode_chunk(all, 0);
    size_t read = 0;
    for (int round = 0; round < 400; ++round) {
      Bytes bad = chunk;
      if (round % 4 == 0) bad.resize(5 + random() % bad.size());
      for (int flips = 0; flips < 1 + round % 3; ++flips)
        bad[1 + random() % (bad.size() - 1)] ^= uint8_t(1 << random() % 8);
      bad = mended(std::move(bad), 0);
      const auto exact = std::make_unique<uint8_t[]>(bad.size());
      std::ranges::copy(bad, exact.get());
      Tokens out(all.size());
      if (!check::error_of([&] { model.decode_chunk({exact.get(), bad.size()}, 0, out); }).empty()) continue;
      ++read;
      for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] < sizes[i % sizes.size()]);
    }
    CHECK(read < 400);
    for (int round = 0; round < 400; ++round) {
      Bytes bad(model.bytes().begin(), model.bytes().end());
      bad[random() % std::min<size_t>(bad.size(), round % 2 ? 40 : bad.size())] ^= uint8_t(1 << random() % 8);
      check::error_of([&] {
        const tokens::Model other = tokens::Model::parse(bad);
        CHECK(std::ranges::equal(tokens::Model::parse(other.bytes()).bytes(), other.bytes()));
      });
    }
  }
}

TEST_CASE("tokens: claims beyond what the bytes can hold are refused before anything is allocated") {
  const Tokens all = tokens_of({4, 4}, 20, 2, 1);
  const tokens::Model model = fitted(all, {4, 4}, 65535, true);
  Bytes head = {10, 1, 1};
  head.resize(11);
  store_le(head.data() + 3, model.id());
  for (int i = 0; i < 9; ++i) head.push_back(0xff);
  for (const uint8_t byte : {0x01, 6, 0, 0, 0, 0}) head.push_back(byte);
  CHECK(check::error_of([&] { decoded(head, &model); }).find("frames claimed by") != std::string::npos);
  const Bytes chunk = mended({0xff, 0xff, 0x03, 1, 2, 3, 0, 0, 0, 0}, 0);
  CHECK(check::error_of([&] { model.frames_in(chunk); }).find("claims 65535 frames") != std::string::npos);
}
