// libFuzzer target: whatever bytes come, looking for tensors in them ends in parts that lie in order inside of the
// file. Seeds are small files of every kind.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "checkpoint/file_layout.h"
#include "core/error.h"

using namespace tersor;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of its own size: what is read behind the last byte is behind the allocation.
  const auto bytes = std::make_unique<uint8_t[]>(size);
  std::copy(data, data + size, bytes.get());
  uint64_t at = 0;
  for (const auto& part : checkpoint::file_layout({bytes.get(), size}).parts) {
    if (part.begin < at || part.end < part.begin || part.end > size) std::abort();
    if (part.kind == container::Kind::tensor && bytes_of(part.dtype, part.shape) != part.end - part.begin) std::abort();
    at = part.end;
  }
  return 0;
}
