// Whatever is done to a file: an error, or the right bytes; never wrong bytes and never a crash.
#include <algorithm>
#include <cstdio>
#include <random>

#include "check.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/samples.h"
#include "container/hand_made.h"
#include "core/error.h"

using namespace tersor;
using namespace tersor::checkpoint;

namespace {

struct Original {
  explicit Original(const std::vector<TensorView>& views) : bytes(save_tensors(views, {{"k", "v"}}, {})) {
    const TensorFile file = TensorFile::view(bytes);
    for (size_t i = 0; i < file.entries().size(); ++i) {
      auto& tensor = tensors.emplace_back(size_t(file.entries()[i].raw_bytes));
      file.read(i, tensor, 1);
    }
  }
  // true: refused, or every tensor that could be read is right.
  bool survives(std::span<const uint8_t> damaged, size_t* refused) const {
    try {
      const TensorFile file = TensorFile::view(damaged);
      if (file.entries().size() != tensors.size()) return false;
      for (size_t i = 0; i < tensors.size(); ++i) {
        std::vector<uint8_t> out(size_t(file.entries()[i].raw_bytes));
        file.read(i, out, 1);
        if (out != tensors[i]) return false;
      }
      return true;
    } catch (const Error& error) {
      ++*refused;
      return error.code() == Code::bad_data && *error.what() != 0;
    }
  }
  std::vector<uint8_t> bytes;
  std::vector<std::vector<uint8_t>> tensors;
};

std::vector<Original> originals() {
  std::vector<Original> files;
  check::Tensors small;
  small.add("w", DType::BF16, {40, 30}, check::random_bf16(1200, 1));
  small.add("tied", DType::BF16, {1200}, check::random_bf16(1200, 1));
  small.add("b", DType::F32, {30}, check::random_bytes(120, 2));
  small.add("z", DType::F16, {600}, std::vector<uint8_t>(1200));
  small.add("e", DType::F16, {0}, {});
  files.emplace_back(small.views);
  check::Tensors bytes;
  bytes.add("i", DType::I64, {20}, std::vector<uint8_t>(160, 3));
  files.emplace_back(bytes.views);
  files.emplace_back(std::vector<TensorView>{});
  return files;
}

}  // namespace

TEST_CASE("damage: truncated at every byte") {
  for (const Original& original : originals()) {
    size_t refused = 0;
    for (size_t size = 0; size < original.bytes.size(); ++size) {
      const std::vector<uint8_t> shorter(original.bytes.begin(), original.bytes.begin() + long(size));
      CHECK(original.survives(shorter, &refused));
    }
    CHECK(refused == original.bytes.size());
  }
}

TEST_CASE("damage: 12,000 random bit flips, and 3,000 runs of random bytes") {
  std::mt19937 random(1);
  for (const Original& original : originals()) {
    size_t refused = 0;
    for (int round = 0; round < 4000; ++round) {
      auto damaged = original.bytes;
      const size_t bit = random() % (8 * damaged.size());
      damaged[bit / 8] ^= uint8_t(1 << bit % 8);
      CHECK(original.survives(damaged, &refused));
    }
    CHECK(refused == 4000);
    for (int round = 0; round < 1000; ++round) {
      auto damaged = original.bytes;
      const size_t begin = random() % damaged.size(),
                   length = std::min<size_t>(1 + random() % 40, damaged.size() - begin);
      for (size_t i = begin; i < begin + length; ++i) damaged[i] = uint8_t(random() >> 24);
      CHECK(original.survives(damaged, &refused));
    }
  }
}

// Under a CRC that somebody made right again, damage reaches the codec: what comes out may be anything that has the
// right size, or an error, but never a crash. The hash, which verify_file checks, tells.
TEST_CASE("damage: chunks with a right CRC and wrong bytes never crash, and verify tells") {
  std::mt19937 random(2);
  const check::Folder folder;
  const auto raw = check::random_bf16(3000, 1);
  const auto file = compress_array({"", DType::BF16, {3000}, raw}, {});
  const size_t stored = size_t(TensorFile::view(file).stored_bytes(0));
  const std::vector<uint8_t> chunk(file.begin() + 16, file.begin() + 16 + long(stored));
  check::HandMadeFile made;
  made.origin = 4;
  made.entries = {check::HandMadeEntry("", raw)};
  made.entries[0].dtype = uint8_t(DType::BF16);
  made.entries[0].shape = {3000};
  made.entries[0].codec = 2;
  size_t wrong = 0;
  for (int round = 0; round < 5000; ++round) {
    made.chunks = chunk;
    const size_t flips = 1 + random() % 3;
    for (size_t i = 0; i < flips; ++i) {
      // The first bytes decide most.
      const size_t at = random() % (round % 2 ? made.chunks.size() : std::min<size_t>(64, made.chunks.size()));
      made.chunks[at] ^= uint8_t(1 << random() % 8);
    }
    if (round % 5 == 0) made.chunks.resize(1 + random() % made.chunks.size());
    made.entries[0].chunks = {{uint32_t(made.chunks.size()), crc32c(made.chunks)}};
    const auto bytes = made.bytes();
    std::vector<uint8_t> out(raw.size());
    try {
      TensorFile::view(bytes).read(0, out, 1);
    } catch (const Error& error) {
      CHECK(error.code() == Code::bad_data);
      continue;
    }
    if (out == raw) continue;
    if (++wrong > 20) continue;
    check::write_file(folder / "wrong.tsr", bytes);
    CHECK(check::error_of([&] { verify_file(folder / "wrong.tsr", {}); }).find("hash") != std::string::npos);
  }
  CHECK(wrong > 0);
}

TEST_CASE("damage: codecs that nobody knows leave the other tensors readable") {
  const std::vector<uint8_t> five = {1, 2, 3, 4, 5};
  check::HandMadeFile file;
  file.chunks = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5};
  file.entries = {check::HandMadeEntry("known", five), check::HandMadeEntry("unknown", five)};
  file.entries[1].codec = 77;
  const auto bytes = file.bytes();
  const TensorFile tensors = TensorFile::view(bytes);
  std::vector<uint8_t> out(5);
  tensors.read(0, out, 1);
  CHECK(out == five);
  const std::string error = check::error_of([&] { tensors.read(1, out, 1); });
  CHECK(error.find("\"unknown\"") != std::string::npos && error.find("codec 77") != std::string::npos);
}

TEST_CASE("damage: verify notices a kept header that describes other tensors, and one that is too large") {
  const check::Folder folder;
  check::Tensors tensors;
  tensors.add("a", DType::U8, {5}, {1, 2, 3, 4, 5});
  const auto model = check::safetensors_of(tensors.views, {});
  const std::vector<uint8_t> header(model.begin(), model.end() - 5);
  const auto make = [&](auto change) {
    check::HandMadeFile file;
    file.origin = 1;
    file.chunks = model;
    check::HandMadeEntry kept("header", header);
    kept.kind = 2, kept.dtype = kept.rank = 0;
    kept.shape.clear();
    file.entries = {kept, check::HandMadeEntry("a", std::span(model).last(5))};
    change(file);
    check::write_file(folder / "f.tsr", file.bytes());
    return check::error_of([&] { verify_file(folder / "f.tsr", {}); });
  };
  const auto says = [](const std::string& error, const char* part) { return error.find(part) != std::string::npos; };
  CHECK(says(make([](auto&) {}), "the content hash"));  // hand-made files have none: all else was right
  CHECK(says(make([](auto& file) { file.entries[1].name.assign(1, 'b'); }), "does not describe"));
  CHECK(says(make([](auto& file) { file.entries[1].dtype = 3; }), "does not describe"));
  CHECK(says(make([](auto& file) { file.metadata = {{"k", "v"}}; }), "does not describe"));
  CHECK(says(make([](auto& file) { file.entries[1].hash.low ^= 1; }), "tensor \"a\" has hash"));
  CHECK(says(make([](auto& file) {
               file.entries[0].raw_bytes = uint64_t(200) << 20;
               file.entries[0].chunks.assign(200, {1, 0});
               file.chunks.assign(205, 0);
             }),
             "at most 100000008"));
}
