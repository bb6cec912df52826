// libFuzzer target: whatever bytes come, opening a .tsr and reading all of it ends in an Error or in bytes, and the
// safetensors parser in a file or in none. Seeds are the golden files.
#include <algorithm>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "container/framing.h"
#include "core/bits.h"
#include "core/crc32c.h"
#include "core/error.h"

using namespace tersor;

namespace {

constexpr uint64_t kMostRead = uint64_t(2) << 20;  // a few honest bytes may stand for many zeros: that is no finding

void read_everything(std::span<const uint8_t> bytes) {
  try {
    const auto file = checkpoint::TensorFile::view(bytes);
    for (size_t i = 0; i < file.entries().size(); ++i) {
      const auto& entry = file.entries()[i];
      std::vector<uint8_t> out(size_t(std::min(entry.raw_bytes, kMostRead)));
      try {
        file.read_range(i, 0, out, 1);
        file.read_range(i, entry.raw_bytes / 2, std::span(out).first(out.size() / 4), 1);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
}

// Makes the CRCs right, which a fuzzer cannot: so it gets behind them.
void repair(std::vector<uint8_t>& file) {
  using namespace container;
  if (file.size() < kHeaderBytes + kTrailerBytes) return;
  std::copy(kMagic.begin(), kMagic.end(), file.begin());
  uint8_t* const trailer = file.data() + file.size() - kTrailerBytes;
  std::copy(kEndMagic.begin(), kEndMagic.end(), trailer + kTrailerCrcAt + 4);
  const uint64_t room = file.size() - kHeaderBytes - kTrailerBytes;
  const uint64_t length = std::min(load_le<uint64_t>(trailer + 8), room);
  const uint64_t offset = file.size() - kTrailerBytes - length;
  store_le(trailer, offset);
  store_le(trailer + 8, length);
  store_le(trailer + 16, crc32c(std::span(file).subspan(size_t(offset), size_t(length))));
  store_le(trailer + kTrailerCrcAt, crc32c({trailer, kTrailerCrcAt}, crc32c(std::span(file).first(kHeaderBytes))));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  checkpoint::parse_safetensors(bytes, size);
  read_everything(bytes);
  std::vector<uint8_t> file(data, data + size);
  repair(file);
  read_everything(file);
  return 0;
}
