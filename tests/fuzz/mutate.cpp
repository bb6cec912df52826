// The fuzz targets' main() where there is no clang: mutates seeds under gcc's sanitizers, in the order its seed
// dictates. Takes libFuzzer's own arguments, those that tests/fuzz/run gives. Blind where libFuzzer sees coverage, so
// it is no substitute for it: it keeps a machine without clang from testing nothing.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

Bytes input;
std::string crash_prefix;

void keep_input() {
  const std::string path = crash_prefix + "crash-" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(input.data()), std::streamsize(input.size()));
  std::fprintf(stderr, "the input lies in %s\n", path.c_str());
}

void abort_on_alarm(int) {
  std::fprintf(stderr, "one input took longer than the -timeout\n");
  keep_input();
  _exit(70);
}

// One to four of: a bit, a byte, a 32-bit little-endian field set to a number decoders trip over, a cut, a repeat, a
// splice.
void mutate(Bytes& bytes, const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  static constexpr uint32_t kSharp[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
  const auto below = [&](size_t limit) { return size_t(random() % limit); };
  for (size_t steps = 1 + below(4); steps-- > 0;) {
    if (bytes.empty()) bytes.push_back(uint8_t(random()));
    const size_t at = below(bytes.size());
    switch (below(6)) {
      case 0: bytes[at] ^= uint8_t(1u << below(8)); break;
      case 1: bytes[at] = uint8_t(random()); break;
      case 2: {
        const uint32_t value = kSharp[below(std::size(kSharp))];
        std::memcpy(bytes.data() + at, &value, std::min(sizeof value, bytes.size() - at));
        break;
      }
      case 3: bytes.resize(at); break;
      case 4: {
        const Bytes again(bytes.begin() + std::ptrdiff_t(at),
                          bytes.begin() + std::ptrdiff_t(std::min(bytes.size(), at + 1 + below(64))));
        bytes.insert(bytes.begin() + std::ptrdiff_t(below(bytes.size())), again.begin(), again.end());
        break;
      }
      case 5: {
        const Bytes& other = seeds[below(seeds.size())];
        if (other.empty()) break;
        bytes.resize(at);
        bytes.insert(bytes.end(), other.begin() + std::ptrdiff_t(below(other.size())), other.end());
        break;
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  long seconds = 30, seed = 1, timeout = 10;
  size_t longest = 1 << 20;
  std::vector<Bytes> seeds;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&](const char* name, auto& into) {
      const std::string prefix = std::string("-") + name + "=";
      if (!argument.starts_with(prefix)) return;
      if constexpr (std::is_same_v<std::remove_reference_t<decltype(into)>, std::string>) {
        into = argument.substr(prefix.size());
      } else {
        into = std::remove_reference_t<decltype(into)>(std::stol(argument.substr(prefix.size())));
      }
    };
    value("max_total_time", seconds);
    value("seed", seed);
    value("timeout", timeout);
    value("max_len", longest);
    value("artifact_prefix", crash_prefix);
    if (argument.starts_with("-")) continue;
    std::vector<std::filesystem::path> files;  // sorted: a folder lists its files in any order
    for (const auto& entry : std::filesystem::directory_iterator(argument)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& path : files) {
      std::ifstream file(path, std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  if (seeds.empty()) seeds.emplace_back();
  std::signal(SIGALRM, abort_on_alarm);
  __sanitizer_set_death_callback(keep_input);

  std::mt19937_64 random{uint64_t(seed)};
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  uint64_t runs = 0;
  for (; runs < seeds.size() || Clock::now() < end; ++runs) {
    input = seeds[runs % seeds.size()];
    if (runs >= seeds.size()) mutate(input, seeds, random);
    if (input.size() > longest) input.resize(longest);
    alarm(unsigned(timeout));
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  alarm(0);
  std::printf("Done %llu runs in %ld second(s)\n", static_cast<unsigned long long>(runs), seconds);
}
