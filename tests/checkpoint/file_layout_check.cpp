#include "checkpoint/file_layout.h"

#include <algorithm>
#include <random>

#include "check.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hand_made_files.h"
#include "checkpoint/samples.h"
#include "core/error.h"

using namespace tersor;
using namespace tersor::checkpoint;
using check::bytes_of_text;
using check::gguf_of;
using check::npy_of;
using check::torch_zip;
using check::ZipFile;
using container::Kind;
using container::Origin;
using lossless::Element;
using Raw = std::vector<uint8_t>;

namespace {

const Raw kRaw = check::random_bf16(12, 1);  // 24 bytes

// What the layout says, a word for each thing: origin, and name, dtype and shape of every part.
std::string told(const Raw& bytes) {
  const FileLayout layout = file_layout(bytes);
  std::string text(container::origin_name(layout.origin));
  for (const FilePart& part : layout.parts) {
    text.append(" | ").append(part.name).append(" ");
    text.append(part.kind == Kind::tensor ? dtype_name(part.dtype) : "bytes");
    if (part.kind == Kind::tensor) text.append(shape_text(part.shape));
    if (!part.record.empty()) text.append(" of ").append(std::to_string(part.record.size())).append(" fields");
  }
  return text;
}

bool comes_back(const check::Folder& folder, const Raw& bytes) {
  const std::string in = folder / "in", tsr = folder / "in.tsr", out = folder / "out";
  check::write_file(in, bytes);
  Options options;
  options.force = true;
  compress_file(in, tsr, options);
  verify_file(tsr, options);
  decompress_file(tsr, out, options);
  return check::read_file(out) == bytes;
}

// Files of every kind in little, with empty tensors where gaps meet.
std::vector<Raw> samples() {
  const Raw weights = check::random_bf16(600, 2), blocks = check::random_bytes(18 * 20, 3);
  return {npy_of("'<f4'", "(2, 3)", kRaw),
          ZipFile{{{"gaps.npy", npy_of("'>f4'", "(6,)", kRaw)}}}.bytes(),
          ZipFile{{{"a.npy", npy_of("'<i2'", "(12,)", kRaw), 0, 0, 7},
                   {"none.npy", npy_of("'<f8'", "(0, 3)", {})},
                   {"b.npy", npy_of("'>f4'", "(6,)", kRaw)}},
                  false,
                  "a comment"}
              .bytes(),
          ZipFile{{{"big.npy", npy_of("'<u2'", "(600,)", weights)}}, true}.bytes(),
          torch_zip(kRaw, kRaw).bytes(),
          gguf_of({{"f", {6}, 0, kRaw}, {"q", {32, 20}, 2, blocks}, {"w", {30, 20}, 30, weights}}),
          gguf_of({{"q", {64, 10}, 2, blocks}}, 64, 2)};
}

}  // namespace

TEST_CASE("file layout: arrays of NumPy") {
  CHECK(told(npy_of("'<f4'", "(2, 3)", kRaw)) == "npy |  F32[2, 3]");
  CHECK(told(npy_of("'<f4'", "(2, 3)", kRaw, "False", 2)) == "npy |  F32[2, 3]");
  CHECK(told(npy_of("'<f4'", "(2, 3)", kRaw, "False", 3)) == "npy |  F32[2, 3]");
  CHECK(told(npy_of("'|u1'", "(24,)", kRaw)) == "npy |  U8[24]");
  CHECK(told(npy_of("'<c8'", "(3,)", kRaw)) == "npy |  C64[3]");
  CHECK(told(npy_of("'|b1'", "()", Raw{1})) == "npy |  BOOL[]");
  CHECK(told(npy_of("'<f8'", "(0, 7)", {})) == "npy |  F64[0, 7]");
  CHECK(told(npy_of("'<f4'", "(2, 3)", kRaw, "True")) == "npy | array bytes");
  CHECK(told(npy_of("'<f4'", "(6,)", kRaw, "True")) == "npy |  F32[6]");
  CHECK(told(npy_of("'>f4'", "(2, 3)", kRaw)) == "npy | array bytes of 4 fields");
  CHECK(told(npy_of("'<M8[ns]'", "(3,)", kRaw)) == "npy | array bytes");
  CHECK(told(npy_of("'<U3'", "(2,)", kRaw)) == "npy | array bytes");
  CHECK(told(npy_of("'|V2'", "(12,)", kRaw)) == "npy | array bytes");
  CHECK(told(npy_of("'<f2'", "(12,)", kRaw)) == "npy |  F16[12]");
  CHECK(file_layout(npy_of("'|V2'", "(12,)", kRaw)).parts[0].element == Element::bf16);
  CHECK(file_layout(npy_of("'<f8'", "(3, 1)", kRaw, "True")).parts[0].element == Element::fp64);
}

TEST_CASE("file layout: what is no array is a file of bytes") {
  for (const Raw& file : {npy_of("'|O'", "(3,)", kRaw), npy_of("'<f4'", "(2, 4)", kRaw), npy_of("'<f4'", "(2 3)", kRaw),
                          npy_of("'<f4'", "(6)", kRaw), npy_of("'<f4'", "(06,)", kRaw), npy_of("'xU3'", "(2,)", kRaw),
                          npy_of("'<f4'", "(-6,)", kRaw), npy_of("'<f3'", "(8,)", kRaw), npy_of("'<f4'", "(6,)", {}),
                          npy_of("[('a', '<f4')]", "(6,)", kRaw), npy_of("'<f4'", "(6,)", kRaw, "Maybe"),
                          npy_of("'<f4'", "(18446744073709551616, 0)", {}), npy_of("'<f4'", "(6,)", kRaw, "False", 4),
                          npy_of("'<f4', 'descr': '<f4'", "(6,)", kRaw), Raw(), Raw{0x93, 'N', 'U', 'M', 'P', 'Y'},
                          npy_of("'<f4'", "(0, 4294967296, 4294967296, 4294967296)", {})})
    CHECK(told(file) == "file |  bytes");
}

TEST_CASE("file layout: archives of NumPy") {
  const ZipFile::Member a{"a.npy", npy_of("'<f4'", "(6,)", kRaw), 0, 0, 9}, text{"readme", bytes_of_text("hello")};
  const ZipFile::Member deflated{"b.npy", kRaw, 8}, encrypted{"c.npy", kRaw, 0, 1};
  CHECK(told(ZipFile{{a, text, deflated, encrypted}}.bytes()) == "npz | a F32[6]");
  CHECK(told(ZipFile{{a}, true, "over 4 GiB"}.bytes()) == "npz | a F32[6]");
  CHECK(told(ZipFile{{deflated, text}}.bytes()) == "file |  bytes");
  CHECK(told(ZipFile{{a, a}}.bytes()) == "file |  bytes");  // two of one name
  const ZipFile::Member large{"large", Raw(70'000, 7)};
  CHECK(told(ZipFile{{text, large, a}}.bytes()) == "npz | bytes from 0 bytes | a F32[6]");
  auto bytes = ZipFile{{a}}.bytes();
  bytes.push_back(0);  // something follows
  CHECK(told(bytes) == "file |  bytes");
  // The members of the second of two are those that NumPy reads, and their places are not what its directory says.
  for (const bool wide : {false, true}) {
    auto two = ZipFile{{a}, wide}.bytes();
    const auto second = ZipFile{{a}, wide}.bytes();
    two.insert(two.end(), second.begin(), second.end());
    CHECK(told(two) == "file |  bytes");
  }
  const ZipFile::Member gaps{"gaps.npy", npy_of("'>f4'", "(6,)", kRaw)};
  CHECK(told(ZipFile{{gaps}}.bytes()) == "npz | gaps, the array bytes of 4 fields");
}

TEST_CASE("file layout: state dicts of PyTorch") {
  CHECK(told(torch_zip(kRaw, kRaw).bytes()) == "torch | a.w F32[2, 3] | data/1 F32[6]");
  const Raw twelve(12, 1), forty(48, 1);
  CHECK(told(torch_zip(twelve, twelve, "BFloat16Storage").bytes()) == "torch | a.w BF16[2, 3] | data/1 BF16[6]");
  CHECK(told(torch_zip(kRaw, forty).bytes()) == "torch | a.w F32[2, 3] | data/1 F32[12]");
  CHECK(told(torch_zip(forty, kRaw).bytes()) == "torch | data/0 F32[12] | data/1 F32[6]");
  CHECK(told(torch_zip(forty, kRaw, "QInt8Storage").bytes()) == "torch | data/0 bytes | data/1 bytes");
  auto zip = torch_zip(kRaw, kRaw);
  zip.members[1].data = bytes_of_text("big");
  CHECK(told(zip.bytes()) == "torch | a.w bytes | data/1 bytes");
  zip = torch_zip(kRaw, kRaw);
  zip.members[0].data.resize(zip.members[0].data.size() / 2);  // what came before its early end holds
  CHECK(told(zip.bytes()) == "torch | data/0 F32[6] | data/1 bytes");
  zip.members.push_back({"other/data.pkl", {}});
  CHECK(told(zip.bytes()) == "file |  bytes");
  zip.members.pop_back();
  zip.members[0].data = bytes_of_text("cos\nsystem\n(X\x04\x00\x00\x00true\x85R.");  // is not carried out
  CHECK(told(zip.bytes()) == "torch | data/0 bytes | data/1 bytes");
}

TEST_CASE("file layout: GGUF") {
  const Raw q4(18 * 6), q6(210 * 2), f16(24);
  CHECK(told(gguf_of({{"a", {64, 3}, 2, q4}, {"b", {256, 2}, 14, q6}, {"c", {12}, 1, f16}})) ==
        "gguf | a U8[3, 36] of 2 fields | b U8[2, 210] of 4 fields | c F16[12]");
  CHECK(told(gguf_of({{"a", {12}, 1, f16}}, 64, 2)) == "gguf | a F16[12]");
  CHECK(told(gguf_of({{"a", {12}, 1, f16}, {"b", {12}, 777, f16}})) == "gguf | a F16[12]");  // an unknown type
  CHECK(told(gguf_of({})) == "gguf");
  for (const Raw& file :
       {gguf_of({{"a", {65, 3}, 2, q4}}), gguf_of({{"a", {64, 4}, 2, q4}}), gguf_of({{"a", {}, 2, q4}}),
        gguf_of({{"a", {12}, 1, f16}}, 0 + 1, 4), gguf_of({{"a", {12}, 1, f16}, {"a", {12}, 1, f16}}),
        gguf_of({{"a", {uint64_t(1) << 63, 4}, 2, q4}}), gguf_of({{"\xff", {12}, 1, f16}})})
    CHECK(told(file) == "file |  bytes");
}

TEST_CASE("file layout: every kind of file comes back byte for byte") {
  const check::Folder folder;
  for (const Raw& file : samples()) CHECK(comes_back(folder, file));
  // Several chunks, records that straddle them, and bytes between that are many.
  const Raw blocks = check::random_bytes(18 * 200'000, 5), weights = check::random_bf16(700'000, 6);
  CHECK(comes_back(folder, gguf_of({{"q", {32, 200'000}, 2, blocks}, {"w", {700'000}, 30, weights}})));
  CHECK(comes_back(folder, ZipFile{{{"x", check::random_bytes(3'000'000, 7)},
                                    {"a.npy", npy_of("'<f2'", "(700000,)", weights)},
                                    {"b.npy", npy_of("'<f2'", "(700000,)", weights)}}}
                               .bytes()));
}

TEST_CASE("file layout: any number of threads gives the same bytes") {
  const check::Folder folder;
  const Raw weights = check::random_bf16(700'000, 6);
  check::write_file(folder / "in", gguf_of({{"w", {700'000}, 30, weights}, {"f", {6}, 0, kRaw}}));
  Raw want;
  for (const int threads : {1, 2, 7}) {
    Options options;
    options.threads = threads, options.force = true;
    compress_file(folder / "in", folder / "tsr", options);
    const Raw made = check::read_file(folder / "tsr");
    if (want.empty()) want = made;
    CHECK(made == want);
    decompress_file(folder / "tsr", folder / "out", options);
    CHECK(check::read_file(folder / "out") == check::read_file(folder / "in"));
  }
}

TEST_CASE("file layout: damaged gaps cost their bytes and nothing else") {
  const check::Folder folder;
  const Raw file = npy_of("'<f4'", "(6,)", kRaw);
  check::write_file(folder / "in", file);
  Options options;
  compress_file(folder / "in", folder / "tsr", options);
  Raw made = check::read_file(folder / "tsr");
  const auto tsr = TensorFile::open(folder / "tsr");
  CHECK(tsr.entries().size() == 2 && tsr.entries()[1].title() == "the file's gaps");
  made[size_t(tsr.entries()[1].chunks[0].offset) + 3] ^= 1;
  check::write_file(folder / "tsr", made);
  const auto error = check::error_of([&] { decompress_file(folder / "tsr", folder / "out", options); });
  CHECK(error.find("the file's gaps: chunk 0") != std::string::npos);
  options.keep_going = true;
  const Summary summary = decompress_file(folder / "tsr", folder / "out", options);
  const Raw out = check::read_file(folder / "out");
  CHECK(summary.damaged.size() == 1 && out.size() == file.size());
  CHECK(std::equal(kRaw.begin(), kRaw.end(), out.end() - long(kRaw.size())));
  CHECK(std::all_of(out.begin(), out.end() - long(kRaw.size()), [](uint8_t byte) { return byte == 0; }));
}

TEST_CASE("file layout: whatever the bytes, parts are in order and inside") {
  std::mt19937 random(4);
  const auto check_parts = [](const Raw& bytes) {
    uint64_t at = 0;
    for (const FilePart& part : file_layout(bytes).parts) {
      CHECK(part.begin >= at && part.end >= part.begin && part.end <= bytes.size());
      CHECK(part.kind == Kind::bytes || bytes_of(part.dtype, part.shape) == part.end - part.begin);
      at = part.end;
    }
  };
  for (const Raw& file : samples()) {
    for (size_t cut = 0; cut < std::min<size_t>(file.size(), 1500); ++cut)
      check_parts(Raw(file.begin(), file.begin() + long(cut)));
    for (int i = 0; i < 3000; ++i) {
      Raw bad = file;
      for (uint32_t flips = 1 + random() % 3; flips > 0; --flips)
        bad[random() % bad.size()] ^= uint8_t(1 << random() % 8);
      check_parts(bad);
    }
  }
}
