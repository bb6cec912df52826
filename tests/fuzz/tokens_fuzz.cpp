// libFuzzer target: whatever bytes come, a tokens stream, a model or a chunk ends in an Error or in tokens, and what we
// code comes back. The last byte chooses what the bytes are; checksums are mended, so that what lies behind them is
// reached.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "core/crc32c.h"
#include "entropy/tokens.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

using Bytes = std::vector<uint8_t>;
using Tokens = std::vector<uint16_t>;

constexpr uint64_t kMostTokens = uint64_t(4) << 20;  // a few honest bytes may stand for many: that is no finding

template <class F>
void or_error(const F& f) {
  try {
    f();
  } catch (const Error&) {
  }
}

void read_stream(std::span<const uint8_t> data, const tokens::Model* model) {
  or_error([&] {
    const tokens::Stream stream(data, model, false);
    const uint64_t count = stream.frames() * stream.model().books().size();
    if (count > kMostTokens) return;
    Tokens out(static_cast<size_t>(count));
    stream.decode(out);
    const auto books = stream.model().books();
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i] >= books[i % books.size()].size) std::abort();
  });
}

// content, as a chunk of the model with a good checksum.
void read_chunk(std::span<const uint8_t> content, const tokens::Model& model) {
  Bytes chunk(content.begin(), content.end());
  const uint32_t crc = crc32c(content, crc32c(std::array<uint8_t, 8>{}));
  chunk.resize(chunk.size() + sizeof crc);
  store_le(chunk.data() + content.size(), crc);
  or_error([&] {
    const size_t frames = model.frames_in(chunk);
    Tokens out(frames * model.books().size());
    model.decode_chunk(chunk, 0, out);
  });
}

// Half of the bytes are a model, the others a chunk of it.
void read_model(std::span<const uint8_t> bytes) {
  or_error([&] {
    const tokens::Model model = tokens::Model::parse(bytes.first(bytes.size() / 2));
    const auto again = tokens::Model::parse(model.bytes());
    if (again.id() != model.id()) std::abort();
    read_chunk(bytes.subspan(bytes.size() / 2), model);
  });
}

void code_and_want_back(std::span<const uint8_t> bytes) {
  if (bytes.size() < 3) return;
  bytes = bytes.first(std::min<size_t>(bytes.size(), 600));  // a fit takes its time
  const size_t width = 1 + bytes[0] % 4, chunk_frames = 1 + bytes[1];
  const uint32_t scale = bytes[2] % 16 ? 1 : 20;  // 5120 tokens have a low bit
  std::vector<uint32_t> sizes(width, 256 * scale);
  Tokens all;
  for (size_t i = 3; i + width <= bytes.size(); i += width)
    for (size_t b = 0; b < width; ++b) all.push_back(uint16_t(bytes[i + b] * scale));
  const std::vector<uint64_t> clips = {all.size() / width};
  for (const bool prior : {false, true}) {
    const tokens::Model model = tokens::fit(all, clips, sizes, chunk_frames, prior);
    const Bytes data = tokens::encode(all, model, !prior);
    const tokens::Stream stream(data, &model, true);
    Tokens back(all.size());
    if (!stream.decode(back).empty() || back != all) std::abort();
    fuzz::damaged(data, bytes[0] * 2654435761u, [&](auto bad) { read_stream(bad, &model); });
    const Bytes packed = tokens::pack(model);
    fuzz::damaged({packed.begin() + 3, packed.end() - 4}, bytes[1] * 2654435761u,
                  [&](auto bad) { or_error([&] { read_chunk(bytes, tokens::Model::parse(bad)); }); });
    read_chunk(bytes, model);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const fuzz::Copy copy(data, size - 1);
  const auto bytes = copy.bytes();
  switch (data[size - 1] % 3) {
    case 0: read_stream(bytes, nullptr); break;
    case 1: read_model(bytes); break;
    default: code_and_want_back(bytes);
  }
  return 0;
}
