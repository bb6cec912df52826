#include "transform/value_bins.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/isa.h"

namespace tersor::transform {
namespace {

constexpr int kMostAtOnce = 56;  // bits that one load of 64 can give behind up to 7 others

template <class U>
constexpr Variant<TakeEights<U>> kTakeEights[] = {
    {Isa::scalar, take_eights_scalar},
    TERSOR_X86({Isa::avx2, take_eights_avx2}, {Isa::avx512vbmi, take_eights_avx512vbmi}, )};
template <>
constexpr Variant<TakeEights<uint8_t>> kTakeEights<uint8_t>[] = {{Isa::scalar, take_eights_scalar},
                                                                 TERSOR_X86({Isa::avx2, take_eights_avx2}, )};
template <class U>
constexpr Variant<AddStride<U>> kAddStride[] = {
    {Isa::scalar, add_stride_scalar},
    TERSOR_X86({Isa::avx2, add_stride_avx2}, {Isa::avx512vbmi, add_stride_avx512vbmi}, )};

}  // namespace

template <class U>
BinFinder<U>::BinFinder(const ValueBins<U>& bins, U widest, std::span<uint16_t> cells) noexcept
    : bins_(bins), cells_(cells) {
  shift_ = std::max(0, int(std::bit_width(widest)) - (int(std::bit_width(cells.size())) - 1));
  size_t bin = 0;
  const auto offset = [&](size_t i) noexcept { return U(bins.first[i] - bins.first[0]); };
  const size_t used = size_t(widest >> shift_) + 1;
  for (size_t cell = 0; cell < used; ++cell) {
    const U from = U(U(cell) << shift_), to = U(from + U((U(1) << shift_) - 1));
    while (bin + 1 < bins.count && offset(bin + 1) <= from) ++bin;
    size_t end = bin;
    while (end + 1 < bins.count && offset(end + 1) <= to) ++end;
    cells_[cell] = uint16_t(bin | size_t(std::bit_width(end - bin)) << 8);
    bin = end;
  }
}

template <class U>
void BinFinder<U>::find(std::span<const U> values, uint8_t* names) const noexcept {
  const U low = bins_.first[0];
  for (size_t i = 0; i < values.size(); ++i) {
    const U offset = U(values[i] - low);
    const unsigned cell = cells_[size_t(offset >> shift_)];
    size_t bin = cell & 255;
    for (size_t step = (size_t(1) << (cell >> 8)) >> 1; step > 0; step >>= 1)
      if (bin + step < bins_.count && U(bins_.first[bin + step] - low) <= offset) bin += step;
    names[i] = uint8_t(bin);
  }
}

template <class U>
void put_places(const ValueBins<U>& bins, std::span<const U> values, const uint8_t* names, uint8_t* to) noexcept {
  uint64_t held = 0;
  unsigned count = 0;
  const auto put = [&](uint64_t value, unsigned width) noexcept {  // width <= kMostAtOnce
    held |= value << count;
    count += width;
    std::memcpy(to, &held, 8);
    to += count / 8;
    held >>= count & ~7u, count &= 7;
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t place = U(values[i] - bins.first[names[i]]);
    const unsigned width = bins.bits[names[i]];
    if (sizeof(U) == 8 && width > unsigned(kMostAtOnce)) {
      put(place & 0xffffffff, 32), put(place >> 32, width - 32);
    } else {
      put(place, width);
    }
  }
}

template <class U>
bool take_values(const ValueBins<U>& bins, const uint8_t* names, PlaceReader& places, std::span<U> values) noexcept {
  const uint8_t widest = *std::max_element(bins.bits, bins.bits + bins.count);
  size_t done = 0;
  if (widest == 0) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = bins.first[names[i]];
    return true;
  }
  const size_t bits = places.bytes.size() * 8;
  constexpr size_t kSpare = kEightsSpare<U>;
  if (bits >= kSpare)
    done =
        pick(kTakeEights<U>)(bins, names, values.size(), places.bytes.data(), bits - kSpare, places.bit, values.data());
  for (; done < values.size(); ++done) {
    const unsigned width = bins.bits[names[done]];
    if (width > bits - places.bit) return false;
    uint64_t place = 0;
    for (unsigned have = 0; have < width;) {
      const unsigned from = unsigned(places.bit % 8), part = std::min(8 - from, width - have);
      place |= uint64_t(places.bytes[places.bit / 8] >> from & ((1u << part) - 1)) << have;
      have += part, places.bit += part;
    }
    values[done] = U(bins.first[names[done]] + U(place));
  }
  return true;
}

template <class U>
void subtract_stride(std::span<const U> from, size_t stride, U* to) noexcept {
  const size_t head = std::min(stride, from.size());
  std::copy_n(from.data(), head, to);
  for (size_t i = head; i < from.size(); ++i) to[i] = U(from[i] - from[i - stride]);
}

template <class U>
void add_stride(U* values, size_t begin, size_t end, size_t stride) noexcept {
  pick(kAddStride<U>)(values, begin, end, stride);
}

#define TERSOR_FOR(U)                                                                                      \
  template class BinFinder<U>;                                                                             \
  template void put_places<U>(const ValueBins<U>&, std::span<const U>, const uint8_t*, uint8_t*) noexcept; \
  template bool take_values<U>(const ValueBins<U>&, const uint8_t*, PlaceReader&, std::span<U>) noexcept;  \
  template void subtract_stride<U>(std::span<const U>, size_t, U*) noexcept;                               \
  template void add_stride<U>(U*, size_t, size_t, size_t) noexcept;
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::transform
