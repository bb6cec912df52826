#include "lossless/series.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>

#include "core/arena.h"
#include "entropy/bit_io.h"
#include "lossless/bin_choice.h"

namespace tersor::lossless {
namespace {

using entropy::put_varint;
using entropy::take_varint;
using transform::kMostBins;
using transform::ValueBins;
constexpr const char* kWhat = "lossless series";
constexpr size_t kMostStride = size_t(1) << 20;

template <class U>
uint64_t zigzag(U value) noexcept {
  const int64_t number = std::make_signed_t<U>(value);
  return uint64_t(number) << 1 ^ uint64_t(number >> 63);
}

template <class U>
U take_zigzag(std::span<const uint8_t>& data) {
  const uint64_t coded = take_varint(data, kWhat);
  const U value = U(coded >> 1 ^ (0 - (coded & 1)));
  TERSOR_REQUIRE(zigzag(value) == coded, Code::bad_data, kWhat, ": ", coded >> 1, " is outside of ", 8 * sizeof(U),
                 " bits");
  return value;
}

template <class U>
uint64_t magnitude(U value) noexcept {
  const int64_t number = std::make_signed_t<U>(value);
  return number < 0 ? 0 - uint64_t(number) : uint64_t(number);
}

// Division without a remainder, by multiplying with the inverse of the odd part: dividers are slow.
class ExactDivider {
 public:
  explicit ExactDivider(uint64_t divisor) noexcept
      : shift_(std::countr_zero(divisor)), most_(~uint64_t(0) / divisor), inverse_(divisor >> shift_) {
    const uint64_t odd = inverse_;
    for (int i = 0; i < 5; ++i) inverse_ *= 2 - odd * inverse_;  // each step doubles the bits that are right
  }
  uint64_t quotient(uint64_t value) const noexcept { return std::rotr(value * inverse_, shift_); }
  bool divides(uint64_t value) const noexcept { return quotient(value) <= most_; }

 private:
  int shift_;
  uint64_t most_, inverse_;
};

// The largest number that divides all of them. Most often it is 1, which a few values show.
template <class U>
uint64_t common_divisor(std::span<const U> values) noexcept {
  uint64_t divisor = 0;
  for (size_t i = 0; i < values.size() && divisor != 1; i += 1 + values.size() / 256)
    divisor = std::gcd(divisor, magnitude(values[i]));
  for (size_t i = 0; i < values.size() && divisor != 1;) {
    if (divisor == 0) {
      divisor = magnitude(values[i++]);
      continue;
    }
    const ExactDivider divider(divisor);
    while (i < values.size() && divider.divides(magnitude(values[i]))) ++i;
    if (i < values.size()) divisor = std::gcd(divisor, magnitude(values[i]));
  }
  return std::max<uint64_t>(divisor, 1);
}

template <class U>
void divide(std::span<U> values, uint64_t divisor) noexcept {
  const ExactDivider divider(divisor);
  for (U& value : values) {
    const uint64_t size = divider.quotient(magnitude(value));
    value = U(std::make_signed_t<U>(value) < 0 ? 0 - size : size);
  }
}

template <class U>
std::pair<U, U> range_of(std::span<const U> values) noexcept {
  using S = std::make_signed_t<U>;
  S least = S(values[0]), most = S(values[0]);
  for (const U value : values) least = std::min(least, S(value)), most = std::max(most, S(value));
  return {U(least), U(most)};
}

// Single values, not runs: what repeats within a run would look like a law. Their distances vary, lest they meet a
// period.
template <class U>
std::span<U> sample_of(std::span<const U> values, std::array<U, kMostSampled>& sample) noexcept {
  if (values.size() <= kMostSampled) {
    std::copy(values.begin(), values.end(), sample.begin());
    return std::span(sample).first(values.size());
  }
  const size_t step = values.size() / kMostSampled;
  for (size_t i = 0; i < kMostSampled; ++i) sample[i] = values[i * step + (i * 0x9E3779B1u >> 16) % step];
  return sample;
}

template <class U>
void choose_plan_bins(SeriesPlan<U>& plan) noexcept {
  const auto [least, most] = range_of<U>(plan.differences);
  std::array<U, kMostSampled> sample;
  plan.cost = choose_bins<U>(sample_of<U>(plan.differences, sample), plan.differences.size(), least, most, plan.bins);
  plan.widest = U(most - plan.bins.first[0]);
}

// Without strides. The values stay where they are unless they have a divisor.
template <class U>
void plan_plain(SeriesPlan<U>& plan, std::span<const U> values, std::span<U> to) noexcept {
  plan.differences = values;
  // A few values tell whether a divisor is likely.
  uint64_t divisor = 0;
  for (size_t i = 1; i < values.size() && divisor != 1; i += 1 + values.size() / 256)
    divisor = std::gcd(divisor, magnitude(U(values[i] - values[0])));
  if (divisor != 1) {
    for (size_t i = 0; i < values.size(); ++i) to[i] = U(values[i] - values[0]);
    plan.divisor = common_divisor<U>(to);
    if (plan.divisor > 1) {
      divide(to, plan.divisor);
      plan.start = values[0], plan.differences = to;
    }
  }
  choose_plan_bins(plan);
}

template <class U>
void plan_strides(SeriesPlan<U>& plan, std::span<const U> values, std::span<U> to, std::span<U> between) noexcept {
  // The values before the first count as the first.
  plan.start = values[0];
  plan.differences = to;
  const std::span<U> once = plan.strides[1] ? between : to;
  transform::subtract_stride(values, plan.strides[0], once.data());
  for (U& value : once.first(std::min(plan.strides[0], values.size()))) value = U(value - plan.start);
  if (plan.strides[1]) transform::subtract_stride<U>(once, plan.strides[1], to.data());
  plan.divisor = common_divisor<U>(to);
  if (plan.divisor > 1) divide(to, plan.divisor);
  choose_plan_bins(plan);
}

}  // namespace

template <class U>
SeriesPlan<U> plan_series(std::span<const U> values, const SeriesOptions& options, std::span<U> scratch) {
  const size_t n = values.size();
  TERSOR_ASSERT(n >= 1 && scratch.size() >= 3 * n);
  SeriesPlan<U> plain, along;
  plan_plain(plain, values, scratch.first(n));
  const StrideChoice choice = choose_strides(values, options.farthest, plain.cost);
  // Bins follow a law by up to some tenths of a bit more closely than the estimate of strides does.
  constexpr uint64_t kSlack = 20000;
  if (!choice.strides[0] || choice.cost > plain.cost + kSlack) return plain;
  along.strides = choice.strides;
  plan_strides(along, values, scratch.subspan(n, n), scratch.subspan(2 * n, n));
  return along.cost < plain.cost ? along : plain;
}

template <class U>
void encode_series(const SeriesPlan<U>& plan, const SeriesOptions& options, ByteWriter& out) {
  const std::span<const U> values = plan.differences;
  const ValueBins<U>& bins = plan.bins;
  const size_t strides = (plan.strides[0] != 0) + (plan.strides[1] != 0);
  out.put(uint8_t(strides));
  for (size_t i = 0; i < strides; ++i) put_varint(out, plan.strides[i]);
  put_varint(out, zigzag(plan.start));
  put_varint(out, plan.divisor);
  put_varint(out, bins.count);
  put_varint(out, zigzag(bins.first[0]));
  for (size_t i = 0, run = 1; i < bins.count; i += run) {
    for (run = 1; i + run < bins.count && bins.bits[i + run] == bins.bits[i]; ++run) {
    }
    out.put(uint8_t(bins.bits[i] | (run > 1 ? 128 : 0)));
    if (run > 1) out.put(uint8_t(run - 2));
  }
  ScratchFrame frame;
  const auto names = frame.bytes(values.size());
  const auto cells = frame.take<uint16_t>(transform::BinFinder<U>::cells_for(values.size()));
  if (bins.count > 1) {
    transform::BinFinder<U>(bins, plan.widest, cells).find(values, names.data());
    const PlaneOptions plane{options.segment, options.precision, 0, 1, options.quick};
    encode_plane(names, bins.count <= 32 ? 32 : 256, plane, out);
  } else {
    std::memset(names.data(), 0, names.size());
  }
  uint64_t bits = 0;
  for (const uint8_t name : names) bits += bins.bits[name];
  const size_t bytes = size_t((bits + 7) / 8);
  put_varint(out, bytes);
  if (bytes > out.left()) return void(out.take(bytes));
  if (bytes == 0) return;
  const auto places = frame.bytes(bytes + 8);
  transform::put_places(bins, values, names.data(), places.data());
  out.append(places.first(bytes));
}

template <class U>
void decode_series(std::span<const uint8_t>& data, std::span<U> values) {
  constexpr unsigned kWidth = 8 * sizeof(U);
  ByteReader reader(data, kWhat);
  const uint8_t strides = reader.take<uint8_t>();
  TERSOR_REQUIRE(strides <= kMostStrides, Code::bad_data, kWhat, ": ", int(strides), " strides, at most 2 are known");
  std::span<const uint8_t> rest = reader.take(reader.left());
  uint64_t stride[kMostStrides] = {};
  for (int i = 0; i < strides; ++i) {
    stride[i] = take_varint(rest, kWhat);
    TERSOR_REQUIRE(stride[i] >= 1 && stride[i] <= kMostStride, Code::bad_data, kWhat, ": a stride of ", stride[i],
                   ", 1..", kMostStride, " are allowed");
  }
  const U start = take_zigzag<U>(rest);
  const uint64_t divisor = take_varint(rest, kWhat);
  TERSOR_REQUIRE(divisor >= 1 && divisor <= U(~U(0)), Code::bad_data, kWhat, ": a divisor of ", divisor);
  const auto bins = std::make_unique<ValueBins<U>>();
  bins->count = size_t(take_varint(rest, kWhat));
  TERSOR_REQUIRE(bins->count >= 1 && bins->count <= kMostBins, Code::bad_data, kWhat, ": ", bins->count,
                 " bins, 1..256 are allowed");
  U first = take_zigzag<U>(rest);
  ByteReader widths(rest, kWhat);
  for (size_t i = 0; i < bins->count;) {
    const uint8_t coded = widths.take<uint8_t>();
    const size_t run = coded & 128 ? size_t(widths.take<uint8_t>()) + 2 : 1;
    const unsigned bits = coded & 127;
    TERSOR_REQUIRE(bits <= kWidth && run <= bins->count - i, Code::bad_data, kWhat, ": ", run, " bins of ", bits,
                   " bits, ", bins->count - i, " of at most ", kWidth, " are left");
    for (const size_t end = i + run; i < end; ++i) {
      bins->first[i] = first, bins->bits[i] = uint8_t(bits);
      first = U(first + (bits < kWidth ? U(U(1) << bits) : U(0)));
    }
  }
  rest = widths.take(widths.left());
  std::optional<PlaneDecoder> plane;
  if (bins->count > 1) plane.emplace(rest, values.size(), bins->count <= 32 ? 32 : 256);
  const uint64_t bytes = take_varint(rest, kWhat);
  ByteReader tail(rest, kWhat);
  transform::PlaceReader places{tail.take(bytes)};
  data = tail.take(tail.left());
  ScratchFrame frame;
  const auto scratch = frame.bytes(kTile);
  if (!plane) std::memset(scratch.data(), 0, std::min(kTile, values.size()));
  // The start is what the first values differ from; without strides all do.
  const auto add_start = [&](size_t begin, size_t end) noexcept {
    if (start && strides) end = std::min<size_t>(end, stride[0]);
    for (size_t i = begin; start && i < end; ++i) values[i] = U(values[i] + start);
  };
  for (size_t at = 0; at < values.size(); at += kTile) {
    const std::span<U> tile = values.subspan(at, std::min(kTile, values.size() - at));
    const uint8_t* const names = plane ? plane->next(tile.size(), scratch.data()) : scratch.data();
    if (bins->count < kMostBins && plane) {
      const uint8_t last = *std::max_element(names, names + tile.size());
      TERSOR_REQUIRE(last < bins->count, Code::bad_data, kWhat, ": bin ", int(last), " of ", bins->count);
    }
    TERSOR_REQUIRE(transform::take_values<U>(*bins, names, places, tile), Code::bad_data, kWhat, ": ", bytes,
                   " bytes of places are too few");
    if (divisor > 1)
      for (U& value : tile) value = U(uint64_t(value) * divisor);  // two 16-bit words would overflow an int
    if (strides < 2) add_start(at, at + tile.size());
    if (strides) transform::add_stride(values.data(), at, at + tile.size(), size_t(stride[strides - 1]));
  }
  // Sums along the first stride need all those along the second.
  if (strides == 2) {
    add_start(0, values.size());
    transform::add_stride(values.data(), 0, values.size(), size_t(stride[0]));
  }
  if (plane) plane->finish();
  TERSOR_REQUIRE((places.bit + 7) / 8 == bytes, Code::bad_data, kWhat, ": ", bytes, " bytes of places, ",
                 (places.bit + 7) / 8, " are needed");
}

#define TERSOR_FOR(U)                                                                            \
  template SeriesPlan<U> plan_series<U>(std::span<const U>, const SeriesOptions&, std::span<U>); \
  template void encode_series<U>(const SeriesPlan<U>&, const SeriesOptions&, ByteWriter&);       \
  template void decode_series<U>(std::span<const uint8_t>&, std::span<U>);
TERSOR_FOR(uint8_t)
TERSOR_FOR(uint16_t)
TERSOR_FOR(uint32_t)
TERSOR_FOR(uint64_t)

}  // namespace tersor::lossless
