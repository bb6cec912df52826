#include "checkpoint/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <thread>

#include "check.h"
#include "checkpoint/samples.h"
#include "core/error.h"

using namespace tersor;
using namespace tersor::checkpoint;
using check::Folder;

namespace {

Options with_threads(int threads, int level = lossless::kDefaultLevel) {
  Options options;
  options.threads = threads;
  options.level = level;
  return options;
}

bool comes_back(const Folder& folder, const std::vector<uint8_t>& bytes, const char* origin) {
  const std::string in = folder / "in", tsr = folder / "in.tsr", out = folder / "out";
  check::write_file(in, bytes);
  Options options = with_threads(2);
  options.force = true;
  const Summary made = compress_file(in, tsr, options);
  const Summary verified = verify_file(tsr, options);
  const Summary restored = decompress_file(tsr, out, options);
  const auto stored = check::read_file(tsr);
  CHECK(made.origin == origin && verified.origin == origin && restored.origin == origin);
  CHECK(made.raw_bytes == bytes.size() && restored.raw_bytes == bytes.size() && verified.raw_bytes == bytes.size());
  CHECK(made.stored_bytes == stored.size() && verified.stored_bytes == stored.size());
  CHECK(made.hash == verified.hash && made.hash == restored.hash);
  CHECK(folder.count() == 3);
  return check::read_file(out) == bytes;
}

std::map<std::string, std::vector<uint8_t>> all_of(const TensorFile& file, int threads) {
  std::map<std::string, std::vector<uint8_t>> tensors;
  for (size_t i = 0; i < file.entries().size(); ++i) {
    std::vector<uint8_t> bytes(size_t(file.entries()[i].raw_bytes));
    file.read(i, bytes, threads);
    tensors[file.entries()[i].name] = std::move(bytes);
  }
  return tensors;
}

}  // namespace

TEST_CASE("checkpoint: any file comes back byte for byte") {
  const Folder folder;
  CHECK(comes_back(folder, {}, "file"));
  CHECK(comes_back(folder, {0}, "file"));
  for (const size_t size : {size_t(1000), size_t(1) << 20, (size_t(1) << 20) + 1, size_t(5'000'001)})
    CHECK(comes_back(folder, check::random_bytes(size, 1), "file"));
  for (const size_t size : {size_t(4095), size_t(4098), size_t(70'001), size_t(1) << 20}) {
    std::vector<uint8_t> text(size);  // a value that stands at the very end alone
    for (size_t i = 0; i < size; ++i) text[i] = uint8_t("checkpoint"[i * i % 7 % 10]);
    text.back() = '\\';
    CHECK(comes_back(folder, text, "file"));
  }
  CHECK(comes_back(folder, std::vector<uint8_t>(40 << 20), "file"));  // more than a batch
  const auto tensors = check::odd_tensors();
  auto model = check::safetensors_of(tensors.views, {{"format", "pt"}});
  CHECK(comes_back(folder, model, "safetensors"));
  model.push_back(0);  // no .safetensors any more
  CHECK(comes_back(folder, model, "file"));
  CHECK(comes_back(folder, check::safetensors_of({}, {}), "safetensors"));
  // White space that no writer of ours makes.
  const std::string loose = "{ \"a\" : {\"dtype\":\"U8\", \"shape\":[1], \"data_offsets\":[0,1]} }  ";
  std::vector<uint8_t> bytes(8 + loose.size() + 1, 7);
  const uint64_t length = loose.size();
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, loose.data(), loose.size());
  CHECK(comes_back(folder, bytes, "safetensors"));
}

TEST_CASE("checkpoint: saved tensors are read back, whole and in ranges, from 1..5 threads at once") {
  const auto tensors = check::odd_tensors();
  const Metadata metadata = {{"step", "12"}, {"\u00fc", ""}};
  const auto bytes = save_tensors(tensors.views, metadata, with_threads(2));
  const TensorFile file = TensorFile::view(bytes);
  CHECK(file.origin() == "tensors" && file.version() == 1 && file.metadata() == metadata);
  CHECK(file.entries().size() == tensors.views.size());
  const auto read = all_of(file, 2);
  for (const TensorView& view : tensors.views) {
    const auto found = read.find(view.name);
    CHECK(found != read.end() &&
          std::equal(view.data.begin(), view.data.end(), found->second.begin(), found->second.end()));
  }
  std::vector<std::thread> readers;
  for (int threads = 1; threads <= 5; ++threads)
    readers.emplace_back([&, threads] { CHECK(all_of(file, threads) == read); });
  for (auto& reader : readers) reader.join();

  std::vector<TensorFile::Request> requests;
  std::vector<std::vector<uint8_t>> parts;
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const auto& whole = read.at(file.entries()[i].name);
    for (const auto& [begin, end] : {std::pair(0.0, 1.0), {0.3, 0.7}, {0.999, 1.0}, {0.5, 0.5}}) {
      const auto from = size_t(begin * double(whole.size())), to = size_t(end * double(whole.size()));
      std::vector<uint8_t> part(to - from);
      file.read_range(i, from, part, 2);
      CHECK(std::equal(part.begin(), part.end(), whole.begin() + long(from)));
      parts.emplace_back(to - from);
      requests.push_back({i, from, {}});
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) requests[i].out = parts[i];
  file.read_all(requests, 3);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto& whole = read.at(file.entries()[requests[i].entry].name);
    CHECK(std::equal(parts[i].begin(), parts[i].end(), whole.begin() + long(requests[i].begin)));
  }
  std::vector<uint8_t> out(3);
  CHECK(!check::error_of([&] { file.read(0, out, 1); }).empty());
  CHECK(!check::error_of([&] { file.read(file.entries().size(), out, 1); }).empty());
  CHECK(!check::error_of([&] { file.read_range(0, uint64_t(-2), out, 1); }).empty());
  CHECK(!check::error_of([&] { file.read_range(0, file.entries()[0].raw_bytes - 2, out, 1); }).empty());
}

TEST_CASE("checkpoint: same bytes from every door, order of tensors and number of threads; levels keep the hash") {
  const Folder folder;
  const auto tensors = check::odd_tensors(3000);
  const auto first = save_tensors(tensors.views, {}, with_threads(1));
  auto reversed = tensors.views;
  std::reverse(reversed.begin(), reversed.end());
  for (const int threads : {2, 3, 7}) CHECK(save_tensors(reversed, {}, with_threads(threads)) == first);
  const std::string tsr = folder / "saved.tsr";
  const Summary saved = save_tensors(tsr, tensors.views, {}, with_threads(2));
  CHECK(check::read_file(tsr) == first);
  CHECK(saved.stored_bytes == first.size());
  for (int level = lossless::kLeastLevel; level <= lossless::kMostLevel; ++level)
    CHECK(TensorFile::view(save_tensors(tensors.views, {}, with_threads(2, level))).hash() == saved.hash);

  // As a .safetensors the same tensors are the same content, and decompressing writes it.
  auto sorted = tensors.views;
  sort_as_safetensors(sorted);
  const auto model = check::safetensors_of(sorted, {});
  const std::string restored = restored_name(tsr), again = folder / "again.tsr";
  CHECK(restored == folder / "saved.safetensors");
  decompress_file(tsr, restored, {});
  CHECK(check::read_file(restored) == model);
  CHECK(compress_file(restored, again, with_threads(1)).hash == saved.hash);
  CHECK(restored_name(again) == folder / "again");
  const auto bytes = check::read_file(again);
  Options options = with_threads(5);
  options.force = true;
  compress_file(restored, again, options);
  CHECK(check::read_file(again) == bytes);
}

TEST_CASE("checkpoint: tied tensors are stored once, almost tied ones are not") {
  const auto tensors = check::odd_tensors(0);
  const auto bytes = save_tensors(tensors.views, {}, {});
  const TensorFile file = TensorFile::view(bytes);
  std::map<std::string, size_t> number;
  for (size_t i = 0; i < file.entries().size(); ++i) number[file.entries()[i].name] = i;
  const auto tie = [&](const char* name) { return file.entries()[number.at(name)].same_as; };
  CHECK(tie("tied") == number.at("large") && !tie("large") && !tie("almost tied"));
  CHECK(tie("zeros") == number.at("more zeros"));
  CHECK(!tie("empty"));
  CHECK(file.stored_bytes(number.at("tied")) == 0);
  CHECK(file.stored_bytes(number.at("large")) > 0);
}

TEST_CASE("checkpoint: one array") {
  const auto data = check::random_bf16(1'000'000, 9);
  const auto bytes = compress_array({"", DType::BF16, {1000, 1000}, data}, {});
  const TensorFile file = TensorFile::view(bytes);
  CHECK(file.origin() == "array" && file.entries().size() == 1 && file.entries()[0].shape == Shape({1000, 1000}));
  std::vector<uint8_t> out(data.size());
  file.read(0, out, 2);
  CHECK(out == data);
  CHECK(compress_array({"", DType::BF16, {1000, 1000}, data}, with_threads(3)) == bytes);
  CHECK(!compress_array({"", DType::F32, {}, std::span(data).first(4)}, {}).empty());
  CHECK(!compress_array({"", DType::F32, {0}, {}}, {}).empty());
  CHECK(!check::error_of([&] { compress_array({"", DType::F32, {9}, data}, {}); }).empty());
}

TEST_CASE("checkpoint: what cannot be saved is refused before the work") {
  const std::vector<uint8_t> one(1);
  const auto refuses = [&](std::vector<TensorView> views, const Metadata& metadata, const Options& options,
                           const char* part) {
    return check::error_of([&] { save_tensors(views, metadata, options); }).find(part) != std::string::npos;
  };
  const TensorView good{"a", DType::U8, {1}, one};
  CHECK(refuses({good, good}, {}, {}, "two entries are tensor \"a\""));
  CHECK(refuses({{"__metadata__", DType::U8, {1}, one}}, {}, {}, "__metadata__"));
  CHECK(refuses({{"a", DType::U8, {2}, one}}, {}, {}, "needs 2"));
  CHECK(refuses({{"a", DType::U8, Shape(33, 1), one}}, {}, {}, "32 dims"));
  CHECK(refuses({{"\xff", DType::U8, {1}, one}}, {}, {}, "UTF-8"));
  CHECK(refuses({good}, {{"k", "\xff"}}, {}, "UTF-8"));
  CHECK(refuses({good}, {}, with_threads(1, 0), "level"));
  CHECK(refuses({good}, {}, with_threads(1, 10), "level"));
}

TEST_CASE("checkpoint: outputs appear whole or not at all, and only where nothing is") {
  const Folder folder;
  const std::string in = folder / "in", out = folder / "out";
  check::write_file(in, check::random_bytes(100'000, 1));
  ::chmod(in.c_str(), 0640);
  const auto error = [&](const std::string& from, const std::string& to, const Options& options) {
    return check::error_of([&] { compress_file(from, to, options); });
  };
  CHECK(error(folder / "none", out, {}).find("No such file") != std::string::npos);
  CHECK(error(folder / "", out, {}).find("is a folder") != std::string::npos);
  CHECK(error(in, folder / "", {}).find("is a folder") != std::string::npos);
  CHECK(error(in, folder / "none/out", {}).find("No such file") != std::string::npos);
  Options force;
  force.force = true;
  CHECK(error(in, in, force).find("is the input, too") != std::string::npos);
  ::link(in.c_str(), (folder / "link").c_str());
  CHECK(error(in, folder / "link", force).find("is the input, too") != std::string::npos);
  CHECK(folder.count() == 2);
  CHECK(error(in, out, {}).empty());
  struct stat status;
  CHECK(::stat(out.c_str(), &status) == 0 && (status.st_mode & 0777) == 0640);
  CHECK(error(in, out, {}).find("exists") != std::string::npos);
  CHECK(error(in, out, force).empty());
  CHECK(folder.count() == 3);
  // A link stays a link.
  const auto bytes = check::read_file(out);
  check::write_file(folder / "target", {});
  CHECK(::symlink("target", (folder / "symbolic").c_str()) == 0);
  CHECK(error(in, folder / "symbolic", force).empty());
  CHECK(std::filesystem::is_symlink(folder / "symbolic"));
  CHECK(check::read_file(folder / "target") == bytes);
  CHECK(folder.count() == 5);
}

TEST_CASE("checkpoint: progress counts up to the total; a refusal stops soon and leaves nothing") {
  struct Counter : Progress {
    uint64_t last = 0, stop_at = uint64_t(-1);
    bool sound = true;
    std::thread::id caller = std::this_thread::get_id();
    bool step(uint64_t done, uint64_t total) override {
      sound = sound && done >= last && done <= total && std::this_thread::get_id() == caller;
      last = done;
      return done < stop_at;
    }
  };
  const Folder folder;
  const std::string in = folder / "in", out = folder / "out";
  const auto tensors = check::odd_tensors();
  const auto bytes = check::safetensors_of(tensors.views, {});
  check::write_file(in, bytes);
  Counter counter;
  Options options = with_threads(2);
  options.progress = &counter;
  compress_file(in, out, options);
  CHECK(counter.sound && counter.last == bytes.size());
  for (const auto& work : {std::function<void()>([&] { verify_file(out, options); }),
                           std::function<void()>([&] { decompress_file(out, folder / "back", options); })}) {
    counter.last = 0;
    work();
    CHECK(counter.sound && counter.last == bytes.size());
  }
  CHECK(folder.count() == 3);
  counter.stop_at = 0;
  for (const auto& work : {std::function<void()>([&] { compress_file(in, folder / "a", options); }),
                           std::function<void()>([&] { decompress_file(out, folder / "b", options); }),
                           std::function<void()>([&] { verify_file(out, options); })}) {
    counter.last = 0;
    try {
      work();
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == Code::interrupted);
    }
  }
  CHECK(folder.count() == 3);
}
