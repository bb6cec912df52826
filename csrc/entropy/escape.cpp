#include "entropy/escape.h"

#include "core/isa.h"

namespace tersor::entropy {

constexpr Variant<SplitEscapes> kSplitEscapes[] = {
    {Isa::scalar, split_escapes_scalar},
    TERSOR_X86({Isa::avx2, split_escapes_avx2}, {Isa::avx512, split_escapes_avx512}, )};
constexpr Variant<MergeEscapes> kMergeEscapes[] = {
    {Isa::scalar, merge_escapes_scalar},
    TERSOR_X86({Isa::avx2, merge_escapes_avx2}, {Isa::avx512, merge_escapes_avx512}, )};

NameWindow window_of(const NameMap& map) noexcept {
  int held = 0, most = 0, named = 0;
  unsigned first = 0;
  for (unsigned s = 0; s < 256; ++s) {
    named += map.name_of[s] != map.escape;
    held += (map.name_of[s] != map.escape) - (s >= 32 && map.name_of[s - 32] != map.escape);
    if (held > most) most = held, first = s >= 31 ? s - 31 : 0;
  }
  NameWindow window{{}, uint8_t(first), most == named, 4 * most >= 3 * named};
  for (unsigned i = 0; i < 32; ++i) window.name_of[i] = first + i < 256 ? map.name_of[first + i] : map.escape;
  return window;
}

size_t split_escapes(const NameMap& map, std::span<const uint8_t> symbols, uint8_t* names, uint8_t* escaped) noexcept {
  return pick(kSplitEscapes)(map, window_of(map), symbols.data(), symbols.size(), names, escaped);
}

bool merge_escapes(const NameMap& map, std::span<uint8_t> names, std::span<const uint8_t>& escaped) noexcept {
  const uint8_t* at = escaped.data();
  const bool enough = pick(kMergeEscapes)(map, names.data(), names.size(), at, escaped.data() + escaped.size());
  escaped = escaped.subspan(size_t(at - escaped.data()));
  return enough;
}

}  // namespace tersor::entropy
