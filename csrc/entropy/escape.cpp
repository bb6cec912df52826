#include "entropy/escape.h"

#include "core/isa.h"

namespace tersor::entropy {

constexpr Variant<SplitEscapes> kSplitEscapes[] = {
    {Isa::scalar, split_escapes_scalar},
    TERSOR_X86({Isa::avx2, split_escapes_avx2}, {Isa::avx512, split_escapes_avx512}, )};
constexpr Variant<MergeEscapes> kMergeEscapes[] = {
    {Isa::scalar, merge_escapes_scalar},
    TERSOR_X86({Isa::avx2, merge_escapes_avx2}, {Isa::avx512, merge_escapes_avx512}, )};

size_t split_escapes(const NameMap& map, std::span<const uint8_t> symbols, uint8_t* names, uint8_t* escaped) noexcept {
  return pick(kSplitEscapes)(map, symbols.data(), symbols.size(), names, escaped);
}

bool merge_escapes(const NameMap& map, std::span<uint8_t> names, std::span<const uint8_t>& escaped) noexcept {
  const uint8_t* at = escaped.data();
  const bool enough = pick(kMergeEscapes)(map, names.data(), names.size(), at, escaped.data() + escaped.size());
  escaped = escaped.subspan(size_t(at - escaped.data()));
  return enough;
}

}  // namespace tersor::entropy
