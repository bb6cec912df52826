#include "transform/sparse_map.h"

#include <bit>
#include <cstring>

#include "core/isa.h"

namespace tersor::transform {
namespace {

template <class U>
constexpr Variant<FillSparse<U>> kFillSparse[] = {{Isa::scalar, fill_sparse_scalar},
                                                  TERSOR_X86({Isa::avx512vbmi, fill_sparse_avx512vbmi}, )};

}  // namespace

size_t count_map(std::span<const uint8_t> map) noexcept {
  size_t count = 0, i = 0;
  for (; i + 8 <= map.size(); i += 8) {
    uint64_t bits;
    std::memcpy(&bits, map.data() + i, 8);
    count += size_t(std::popcount(bits));
  }
  for (; i < map.size(); ++i) count += size_t(std::popcount(map[i]));
  return count;
}

template <class U>
void fill_sparse(const uint8_t* map, const U* others, std::span<U> values) noexcept {
  pick(kFillSparse<U>)(map, others, values);
}

#define TERSOR_FOR(U) template void fill_sparse<U>(const uint8_t*, const U*, std::span<U>) noexcept;
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
