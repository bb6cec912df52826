#include "container/writer.h"

#include <algorithm>

#include "container/framing.h"
#include "core/bits.h"
#include "core/crc32c.h"

namespace tersor::container {
namespace {

std::array<uint8_t, kHeaderBytes> header_bytes() {
  std::array<uint8_t, kHeaderBytes> header{};
  std::copy(kMagic.begin(), kMagic.end(), header.begin());
  store_le(header.data() + 8, kVersion);
  return header;
}

}  // namespace

Writer::Writer(Sink& sink) : sink_(sink) { put(header_bytes()); }

void Writer::append(std::span<const uint8_t> stored) { put(stored); }

void Writer::keep(size_t stored) {
  sink_.keep(stored);
  written_ += stored;
}

void Writer::put(std::span<const uint8_t> bytes) {
  sink_.write(bytes);
  written_ += bytes.size();
}

uint64_t Writer::finish(const Index& index) {
  uint64_t chunks_end = kHeaderBytes;
  for (const Entry& entry : index.entries) chunks_end += entry.stored_bytes();
  TERSOR_REQUIRE(chunks_end == written_, Code::bad_call, "the index lists chunks up to byte ", chunks_end, ", ",
                 written_, " bytes were written");
  const auto bytes = index_bytes(index);
  const auto header = header_bytes();
  std::array<uint8_t, kTrailerBytes> trailer;
  store_le(trailer.data(), written_);
  store_le(trailer.data() + 8, uint64_t(bytes.size()));
  store_le(trailer.data() + 16, crc32c(bytes));
  store_le(trailer.data() + kTrailerCrcAt, crc32c(std::span(trailer).first(kTrailerCrcAt), crc32c(header)));
  std::copy(kEndMagic.begin(), kEndMagic.end(), trailer.begin() + kTrailerCrcAt + 4);
  put(bytes);
  put(trailer);
  return written_;
}

}  // namespace tersor::container
