#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "container/hand_made.h"
#include "container/reader.h"
#include "container/writer.h"

using namespace tersor;
using namespace tersor::container;
using check::HandMadeEntry;
using check::HandMadeFile;

namespace {

const std::vector<uint8_t> kFive = {1, 2, 3, 4, 5};

HandMadeFile one_tensor() {
  HandMadeFile file;
  file.chunks = kFive;
  file.entries = {HandMadeEntry("a", kFive)};
  return file;
}

std::string error_of(const HandMadeFile& file) {
  const auto bytes = file.bytes();
  return check::error_of([&] { Reader reader{bytes}; });
}
bool says(const HandMadeFile& file, const char* part) {
  const std::string error = error_of(file);
  if (error.find(part) == std::string::npos) std::printf("found \"%s\", \"%s\" needed\n", error.c_str(), part);
  return error.find(part) != std::string::npos;
}
template <class F>
HandMadeFile with(F change) {
  HandMadeFile file = one_tensor();
  change(file);
  return file;
}

}  // namespace

TEST_CASE("tsr: what is written is read, field for field") {
  Index index;
  index.origin = Origin::tensors;
  index.metadata = {{"", "empty key"}, {"format", "pt"}, {"ключ", std::string("a\0b", 3)}};
  Entry entry;
  entry.name = "layer.0/weight \"\n";
  entry.dtype = DType::BF16;
  entry.shape = {3, 0, 7};
  entry.hash = hash128({});
  index.entries.push_back(entry);
  entry.name = "b";
  entry.shape = {(1 << 19) + 1, 1};  // two chunks
  entry.raw_bytes = (1 << 20) + 2;
  entry.hash = {1, 2};
  entry.chunks = {{0, 5, crc32c(kFive)}, {0, 5, crc32c(kFive)}};
  index.entries.push_back(entry);
  entry.name = "c";
  entry.shape = {(1 << 19) + 1};
  entry.same_as = 1;
  entry.chunks.clear();
  index.entries.push_back(entry);
  index.hash = content_hash(index.origin, index.entries);

  MemorySink sink;
  Writer writer(sink);
  writer.append(kFive);
  writer.append(kFive);
  const uint64_t size = writer.finish(index);
  const auto file = sink.take();
  CHECK(file.size() == size);
  const Reader reader(file);
  CHECK(reader.version() == 1);
  CHECK(reader.index().origin == Origin::tensors);
  CHECK(reader.index().metadata == index.metadata);
  CHECK(reader.index().hash == index.hash);
  CHECK(reader.index().entries.size() == 3);
  CHECK(reader.index().bases.empty());
  for (size_t i = 0; i < 3; ++i) {
    const Entry &read = reader.index().entries[i], &written = index.entries[i];
    CHECK(read.name == written.name && read.kind == written.kind && read.dtype == written.dtype);
    CHECK(read.shape == written.shape && read.codec == written.codec && read.raw_bytes == written.raw_bytes);
    CHECK(read.hash == written.hash && read.same_as == written.same_as && read.chunks.size() == written.chunks.size());
  }
  CHECK(&reader.stored_entry(2) == &reader.index().entries[1]);
  const auto chunk = reader.chunk(reader.stored_entry(1), 1);
  CHECK(std::vector<uint8_t>(chunk.begin(), chunk.end()) == kFive);
  CHECK(chunk.data() == file.data() + 16 + 5);
}

TEST_CASE("tsr: a file made by hand from the page is read") {
  CHECK(error_of(one_tensor()).empty());
  // The page's example.
  HandMadeFile file;
  file.origin = 3;
  file.chunks = {0x61};
  file.entries = {HandMadeEntry("", file.chunks)};
  file.entries[0].kind = 2, file.entries[0].dtype = file.entries[0].rank = 0;
  file.entries[0].shape.clear();
  CHECK(file.bytes().size() == 125);
  CHECK(error_of(file).empty());
}

TEST_CASE("tsr: hostile files are refused, each for its own reason") {
  CHECK(says(with([](auto& f) { f.version = 2; }), "version 2"));
  CHECK(says(with([](auto& f) { f.required_features = 8; }), "requires feature 3"));
  CHECK(error_of(with([](auto& f) { f.optional_features = 0xffff; })).empty());
  CHECK(says(with([](auto& f) { f.origin = 9; }), "origin 9"));
  CHECK(says(with([](auto& f) { f.origin = 3; }), "origin file does not allow"));
  CHECK(says(with([](auto& f) { f.origin = 1; }), "origin safetensors does not allow"));
  CHECK(says(with([](auto& f) { f.more_entries = 1; }), "index"));
  CHECK(says(with([](auto& f) { f.more_entries = 0xfffffffe; }), "at most 16777216"));
  CHECK(says(with([](auto& f) { f.more_entries = 0xfffff0; }), "do not fit"));
  CHECK(says(with([](auto& f) { f.more_pairs = 0xffffffff; }), "at most 16777216"));
  CHECK(says(with([](auto& f) { f.more_pairs = 1; }), "left"));
  CHECK(says(with([](auto& f) { f.entries[0].kind = 3; }), "kind 3"));
  CHECK(says(with([](auto& f) { f.entries[0].dtype = 200; }), "dtype number 200"));
  CHECK(says(with([](auto& f) { f.entries[0].rank = 33; }), "33 dims"));
  CHECK(says(with([](auto& f) { f.entries[0].kind = 2; }), "plain bytes with dtype 2"));
  CHECK(says(with([](auto& f) { f.entries[0].name = "\xff"; }), "UTF-8"));
  CHECK(says(with([](auto& f) { f.entries[0].name.assign(65537, 'x'); }), "at most 65536"));
  CHECK(error_of(with([](auto& f) { f.entries[0].name.assign(65536, 'x'); })).empty());
  CHECK(says(with([](auto& f) { f.metadata = {{"b", ""}, {"a", ""}}; }), "out of order"));
  CHECK(says(with([](auto& f) { f.metadata = {{"a", ""}, {"a", ""}}; }), "twice"));
}

TEST_CASE("tsr: sizes, shapes and chunks that do not agree are refused") {
  CHECK(says(with([](auto& f) { f.entries[0].shape[0] = 6; }), "needs 6"));
  CHECK(says(with([](auto& f) { f.entries[0].shape[0] = uint64_t(-5); }), "says 5 bytes"));
  CHECK(says(with([](auto& f) {
               f.entries[0].rank = 2;
               f.entries[0].shape = {uint64_t(1) << 63, 2};
             }),
             "overflows"));
  CHECK(says(with([](auto& f) {
               f.entries[0].rank = 3;
               f.entries[0].shape = {uint64_t(1) << 63, 2, 0};
               f.entries[0].raw_bytes = 0;
             }),
             "overflows"));
  // A bomb: sixteen exabytes that no list of chunks could follow.
  CHECK(says(with([](auto& f) { f.entries[0].shape[0] = f.entries[0].raw_bytes = uint64_t(-1); }), "chunks"));
  CHECK(says(with([](auto& f) { f.entries[0].chunks[0].first = 0; }), "0 stored bytes"));
  CHECK(says(with([](auto& f) { f.entries[0].chunks[0].first = 6; }), "are left before the index"));
  CHECK(says(with([](auto& f) { f.entries[0].chunks[0].first = (1 << 21) + 1; }), "2097153 stored bytes"));
  CHECK(says(with([](auto& f) { f.entries[0].chunks[0].first = 4; }), "the index begins at"));
  CHECK(says(with([](auto& f) { f.chunks.push_back(0); }), "the index begins at"));
  CHECK(says(with([](auto& f) { f.entries[0].chunks.clear(); }), "chunks"));
  const auto add = [](uint32_t same_as, auto change) {
    return with([&](auto& f) {
      HandMadeEntry second("b", kFive);
      second.chunks.clear();
      second.same_as = same_as;
      change(second);
      f.entries.push_back(second);
    });
  };
  const auto nothing = [](HandMadeEntry&) {};
  CHECK(error_of(add(1, nothing)).empty());
  CHECK(says(add(2, nothing), "an earlier one"));
  CHECK(says(add(0xffffffff, nothing), "an earlier one"));
  CHECK(says(add(1, [](auto& e) { e.name = "a"; }), "two entries are tensor \"a\""));
  CHECK(says(add(1, [](auto& e) { e.hash.low ^= 1; }), "differs"));
  CHECK(says(add(1, [](auto& e) { e.dtype = 3; }), "differs"));
  CHECK(says(add(1, [](auto& e) { e.raw_bytes = e.shape[0] = 4; }), "differs"));
  auto chain = add(1, nothing);
  chain.entries.push_back(chain.entries[1]);
  chain.entries[2].name = "c";
  chain.entries[2].same_as = 2;
  CHECK(says(chain, "differs"));
}

TEST_CASE("tsr: unknown extensions are skipped or refused by name") {
  const auto extension = [](uint8_t required, uint64_t length) {
    return with([&](auto& f) {
      f.extensions = check::Bytes().put(uint32_t(1)).text("base_model").put(required).put(length).put(uint32_t(0));
    });
  };
  CHECK(error_of(extension(0, 4)).empty());
  CHECK(says(extension(1, 4), "requires the extension \"base_model\""));
  CHECK(says(extension(2, 4), "flag 2"));
  CHECK(says(extension(0, 3), "1 bytes too many"));
  CHECK(says(extension(0, uint64_t(-1)), "left"));
  CHECK(says(with([](auto& f) { f.extensions = check::Bytes().put(uint32_t(0xffffffff)); }), "left"));
}

TEST_CASE("tsr: bases are named by hash, and what names them wrongly is refused") {
  // Two hashes and the base of the one entry; `more` stands behind them.
  const auto against = [](uint8_t count, uint8_t base, uint8_t required = 1, int64_t more = 0, int times = 1) {
    return with([&](auto& f) {
      f.entries[0].codec = 3;
      f.extensions = check::Bytes().put(uint32_t(times));
      for (int i = 0; i < times; ++i) {
        f.extensions.text("base").put(required).put(uint64_t(34 + more)).put(count);
        f.extensions.put(Hash128{1, 2}.bytes()).put(Hash128{3, 4}.bytes()).put(base);
        for (int64_t j = 0; j < more; ++j) f.extensions.put(uint8_t(0));
      }
    });
  };
  CHECK(error_of(against(2, 1)).empty());
  const auto bytes = against(2, 1).bytes();
  const Reader reader{bytes};
  CHECK(reader.index().bases == std::vector<Hash128>({{1, 2}, {3, 4}}));
  CHECK(reader.index().entries[0].base == 1);
  CHECK(says(against(2, 2), "against base 2 of 2"));
  CHECK(says(against(0, 0), "0 bases"));
  CHECK(says(against(3, 0), "needed"));
  CHECK(says(against(1, 0), "bytes too many"));
  CHECK(says(against(2, 1, 0), "is optional"));
  CHECK(says(against(2, 1, 1, 1), "1 bytes too many"));
  CHECK(says(against(2, 1, 1, 0, 2), "two extensions"));
  CHECK(says(with([](auto& f) { f.entries[0].codec = 3; }), "names no base"));
}

TEST_CASE("tsr: every truncation, every flipped bit and trailing bytes are noticed") {
  const auto file = with([](auto& f) { f.metadata = {{"key", "value"}}; }).bytes();
  const auto fails = [](std::span<const uint8_t> bytes) {
    return !check::error_of([&] {
              const Reader reader(bytes);
              reader.chunk(reader.index().entries[0], 0);
            }).empty();
  };
  CHECK(!fails(file));
  for (size_t size = 0; size < file.size(); ++size)
    CHECK(fails(std::vector<uint8_t>(file.begin(), file.begin() + long(size))));
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    auto damaged = file;
    damaged[bit / 8] ^= uint8_t(1 << bit % 8);
    CHECK(fails(damaged));
  }
  for (const size_t more : {size_t(1), size_t(32), file.size()}) {
    auto longer = file;
    longer.insert(longer.end(), file.begin(), file.begin() + long(more));
    CHECK(fails(longer));
  }
}

TEST_CASE("tsr: the writer refuses what no reader would take") {
  const auto refuses = [](auto change, const char* part) {
    Index index;
    Entry entry;
    entry.name = "a";
    entry.shape = {0};
    index.entries = {entry};
    change(index);
    const std::string error = check::error_of([&] { index_bytes(index); });
    return error.find(part) != std::string::npos;
  };
  CHECK(!refuses([](Index&) {}, "e"));
  CHECK(refuses([](Index& i) { i.entries.push_back(i.entries[0]); }, "two entries"));
  CHECK(refuses([](Index& i) { i.entries[0].name = "\xc0\x80"; }, "UTF-8"));
  CHECK(refuses([](Index& i) { i.entries[0].name.assign(65537, 'x'); }, "at most 65536"));
  CHECK(refuses([](Index& i) { i.metadata["\xed\xa0\x80"] = ""; }, "UTF-8"));
  MemorySink sink;
  Writer writer(sink);
  writer.append(kFive);
  CHECK(check::error_of([&] { writer.finish({}); }).find("21 bytes were written") != std::string::npos);
}

TEST_CASE("tsr: UTF-8 is what the standard says") {
  for (const char* good : {"", "abc", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xe1\x80", "\xed\xa0\x80",
                          "\xf0\x8f\xbf\xbf", "\xf1\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc2z"})
    CHECK(!is_utf8(bad));
}

TEST_CASE("tsr: the content hash depends on names, dtypes, shapes and hashes, not on order and storage") {
  Entry a, b;
  a.name = "a", a.shape = {2, 3}, a.hash = {1, 2};
  b.name = "b", b.shape = {6}, b.hash = {3, 4}, b.dtype = DType::BF16;
  const Hash128 hash = content_hash(Origin::tensors, std::vector{a, b});
  Entry header;
  header.name = "header", header.kind = Kind::bytes;
  Entry coded = a;
  coded.chunks = {{16, 3, 4}}, coded.codec = 1;
  CHECK(content_hash(Origin::safetensors, std::vector{header, b, coded}) == hash);
  const auto differs = [&](auto change) {
    Entry changed = a;
    change(changed);
    return content_hash(Origin::tensors, std::vector{changed, b}) != hash;
  };
  CHECK(differs([](Entry& e) { e.name = "aa"; }));
  CHECK(differs([](Entry& e) { e.dtype = DType::I8; }));
  CHECK(differs([](Entry& e) { e.shape = {3, 2}; }));
  CHECK(differs([](Entry& e) { e.shape = {2, 3, 1}; }));
  CHECK(differs([](Entry& e) { e.hash.high ^= 1; }));
}

TEST_CASE("tsr: gaps belong to files that have them, and add up") {
  const auto made = [](uint32_t origin, uint64_t bytes, std::vector<uint32_t> gaps, uint8_t required = 1) {
    HandMadeFile file = one_tensor();
    file.origin = origin;
    const std::vector<uint8_t> between = {7, 8, 9};
    HandMadeEntry entry("gaps", between);
    entry.kind = 2, entry.dtype = entry.rank = 0;
    entry.shape.clear();
    file.chunks.insert(file.chunks.end(), between.begin(), between.end());
    file.entries.push_back(entry);
    file.extensions = check::Bytes().put(uint32_t(1)).text("gaps").put(required).put(bytes);
    for (const uint32_t gap : gaps) file.extensions.put(gap);
    return file;
  };
  for (const uint32_t origin : {5, 6, 7, 8}) {
    CHECK(error_of(made(origin, 4, {2})).empty());
    CHECK(error_of(made(origin, 4, {3})).empty());
    CHECK(says(made(origin, 4, {4}), "4 bytes before an entry, the gaps have 3 left"));
    CHECK(says(made(origin, 8, {1, 1}), "8 bytes in \"gaps\", 4 are needed"));
    CHECK(says(made(origin, 0, {}), "0 bytes in \"gaps\", 4 are needed"));
    CHECK(says(made(origin, 4, {2}, 0), "is optional, a required one is needed"));
    auto file = made(origin, 4, {2});
    file.extensions = check::Bytes().put(uint32_t(0));
    CHECK(says(file, "gaps for 2 entries"));
    file = made(origin, 4, {2});
    file.entries[1].name = "rest";
    CHECK(says(file, "a last entry of plain bytes named gaps"));
    file = with([&](auto& f) { f.origin = origin; });
    CHECK(says(file, "a last entry of plain bytes named gaps"));
    file.entries.clear(), file.chunks.clear();
    CHECK(says(file, "a last entry of plain bytes named gaps"));
  }
  CHECK(says(made(1, 4, {2}), "origin safetensors has no \"gaps\""));
}
