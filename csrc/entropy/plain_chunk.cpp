#include "entropy/plain_chunk.h"

#include <algorithm>
#include <cstring>

#include "core/bits.h"
#include "entropy/bit_io.h"

namespace tersor::entropy {

bool is_constant(std::span<const uint8_t> symbols) noexcept {
  return symbols.size() < 2 || std::memcmp(symbols.data(), symbols.data() + 1, symbols.size() - 1) == 0;
}

bool decode_plain(uint8_t kind, std::span<const uint8_t> data, std::span<uint8_t> out, const char* what) {
  if (kind != kRawChunk && kind != kConstantChunk) return false;
  const size_t needed = kind == kRawChunk ? out.size() : 1;
  TERSOR_REQUIRE(data.size() == needed, Code::bad_data, what, ": ", data.size(), " bytes of kind ", int(kind), ", ",
                 needed, " are needed");
  if (kind == kRawChunk)
    std::copy(data.begin(), data.end(), out.begin());
  else
    std::fill(out.begin(), out.end(), data[0]);
  return true;
}

std::vector<uint64_t> take_chunk_ends(std::span<const uint8_t>& data, size_t chunks, const char* what) {
  std::vector<uint64_t> end(chunks + 1);
  for (size_t i = 0; i < chunks; ++i) end[i + 1] = checked_add(end[i], take_varint(data, what), "chunk lengths");
  TERSOR_REQUIRE(end[chunks] == data.size(), Code::bad_data, what, ": chunks of ", end[chunks], " bytes, ", data.size(),
                 " are there");
  return end;
}

}  // namespace tersor::entropy
