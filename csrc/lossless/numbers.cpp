#include "lossless/numbers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "core/arena.h"
#include "entropy/bit_io.h"
#include "entropy/table.h"
#include "lossless/column_choice.h"
#include "lossless/records.h"
#include "lossless/scale_choice.h"
#include "lossless/series.h"
#include "lossless/stride_choice.h"

namespace tersor::lossless {
namespace {

using entropy::put_varint;
using transform::order_float;

// The cheapest of several ways: each is written behind the other, the smaller one stays.
class Cheapest {
 public:
  Cheapest(size_t rival, ScratchFrame& frame) : rival_(rival), best_(frame.bytes(rival)), trial_(frame.bytes(rival)) {}
  ByteWriter& trial() noexcept { return trial_; }
  // The trial is whole: it stays if it is smaller than all before.
  void settle() noexcept {
    if (!trial_.full() && trial_.size() < size()) std::swap(best_, trial_), found_ = true;
    trial_.clear();
  }
  size_t size() const noexcept { return found_ ? best_.size() : rival_; }
  bool found() const noexcept { return found_; }
  std::span<const uint8_t> written() const noexcept { return best_.written(); }

 private:
  size_t rival_;
  ByteWriter best_, trial_;
  bool found_ = false;
};

template <class U>
struct Counted {
  size_t places = 0, zeros = 0, changes = 0;
  U most = 0;  // as an unsigned number
};

// step 1 counts all, and the first value as a change.
template <class U>
Counted<U> count(std::span<const U> values, size_t step) noexcept {
  uint32_t places = 1, zeros = values[0] == 0, changes = 1;
  U most = values[0];
  for (size_t i = 1; i < values.size(); i += step, ++places) {
    zeros += values[i] == 0;
    changes += values[i] != values[i - 1];
    most = std::max(most, values[i]);
  }
  return {places, zeros, changes, most};
}

SeriesOptions series_options(const NumbersOptions& options) noexcept {
  SeriesOptions series;
  series.farthest = options.level < 3 ? 64 : options.level < 7 ? 2048 : 65536;
  series.segment = std::max<size_t>(16384, options.bytes.segment);
  series.quick = options.bytes.quick;
  return series;
}

// Distinct values, found as long as they are few (at most kMost, and half of all) and their hashes differ.
template <class U>
class Distinct {
 public:
  static constexpr size_t kMost = 65536;
  Distinct(std::span<const U> values, ScratchFrame& frame) : values_(values) {
    const size_t limit = std::min(kMost, values.size() / 2);
    if constexpr (sizeof(U) == 2) {
      number_words(limit, frame);
      return;
    }
    const int bits = std::bit_width(limit) + 1;
    const size_t slots = size_t(1) << bits;
    const auto keys = frame.take<U>(slots);
    const auto number = frame.take<uint32_t>(slots);  // 0: free, else one more than the number
    std::fill(number.begin(), number.end(), 0);
    numbers_ = frame.take<uint32_t>(values.size());
    distinct_ = frame.take<U>(limit + 1);
    size_t steps = 16 * values.size();  // values chosen so that all hashes are one would take for ever
    for (size_t i = 0; i < values.size(); ++i) {
      const U value = values[i];
      size_t slot = size_t(uint64_t(value) * 0x9E3779B97F4A7C15u >> (64 - bits));
      for (; number[slot] != 0 && keys[slot] != value; slot = (slot + 1) & (slots - 1))
        if (--steps == 0) return;
      if (number[slot] == 0) {
        if (count_ == limit) return;
        keys[slot] = value, distinct_[count_] = value, number[slot] = uint32_t(++count_);
      }
      numbers_[i] = number[slot] - 1;
    }
    few_ = true;
  }
  // Every word has a place of its own: no hashes.
  void number_words(size_t limit, ScratchFrame& frame) {
    const auto number = frame.take<uint32_t>(65536);
    std::fill(number.begin(), number.end(), 0);
    numbers_ = frame.take<uint32_t>(values_.size());
    distinct_ = frame.take<U>(limit + 1);
    for (size_t i = 0; i < values_.size(); ++i) {
      uint32_t& own = number[values_[i]];
      if (own == 0) {
        if (count_ == limit) return;
        distinct_[count_] = values_[i], own = uint32_t(++count_);
      }
      numbers_[i] = own - 1;
    }
    few_ = true;
  }
  bool few() const noexcept { return few_; }
  size_t count() const noexcept { return count_; }
  // The values in ascending order, and every place's rank in it.
  void rank(std::span<U> ascending, std::span<uint16_t> ranks, ScratchFrame& frame) const {
    constexpr U kSign = U(U(1) << (8 * sizeof(U) - 1));
    auto order = frame.take<uint32_t>(count_), to = frame.take<uint32_t>(count_);
    const auto rank_of = frame.take<uint32_t>(count_);
    for (size_t i = 0; i < count_; ++i) order[i] = uint32_t(i);
    for (size_t byte = 0; byte < sizeof(U); ++byte) {  // from the lowest on; bytes that all share are passed over
      const auto digit = [&](uint32_t i) noexcept { return size_t(U(distinct_[i] ^ kSign) >> (8 * byte) & 255); };
      std::array<uint32_t, 256> place{};
      for (size_t i = 0; i < count_; ++i) ++place[digit(uint32_t(i))];
      if (place[digit(0)] == count_) continue;
      uint32_t sum = 0;
      for (uint32_t& count : place) sum += count, count = sum - count;
      for (const uint32_t i : order) to[place[digit(i)]++] = i;
      std::swap(order, to);
    }
    for (size_t i = 0; i < count_; ++i) rank_of[order[i]] = uint32_t(i), ascending[i] = distinct_[order[i]];
    for (size_t i = 0; i < values_.size(); ++i) ranks[i] = uint16_t(rank_of[numbers_[i]]);
  }

 private:
  std::span<const U> values_;
  std::span<uint32_t> numbers_;
  std::span<U> distinct_;
  size_t count_ = 0;
  bool few_ = false;
};

// Whether a sample holds so many repeats, and its values are so far apart, that ranks may be better than the values.
template <class U>
bool wants_ranks(std::span<const U> values, uint64_t divisor) noexcept {
  using S = std::make_signed_t<U>;
  constexpr size_t kSample = 512;
  std::array<S, kSample> sample;
  const size_t step = std::max<size_t>(1, values.size() / kSample);
  size_t n = 0;
  for (size_t i = 0; i < values.size() && n < kSample; i += step) sample[n++] = S(values[i]);
  std::sort(sample.begin(), sample.begin() + long(n));
  // 512 draws of 4,000 values repeat 31 times, of 20,000 values 6 times.
  size_t repeats = 0;
  for (size_t i = 1; i < n; ++i) repeats += sample[i] == sample[i - 1];
  if (n < 64 || repeats < 6) return false;
  // A list of values that each occur once or twice costs what it saves.
  const uint64_t distinct = n * n / (2 * repeats);
  if (n < values.size() && distinct * 3 > values.size()) return false;
  const uint64_t range = U(U(sample[n - 1 - n / 20]) - U(sample[n / 20])) / divisor;
  return range > distinct + distinct / 2;
}

template <class U>
void encode_ranks(std::span<const U> values, uint64_t divisor, const NumbersOptions& options, ByteWriter& out) {
  ScratchFrame frame;
  const Distinct<U> distinct(values, frame);
  if (!distinct.few()) return void(out.take(out.left() + 1));
  const size_t n = values.size(), count = distinct.count();
  const auto ascending = frame.take<U>(count);
  const auto ranks = frame.take<uint16_t>(n);
  distinct.rank(ascending, ranks, frame);
  // Ranks are no better than values that leave few numbers between them out.
  if (count < 2 || U(ascending[count - 1] - ascending[0]) / divisor < count + count / 2)
    return void(out.take(out.left() + 1));
  out.put(uint8_t(kRanks)), out.put(uint8_t(sizeof(U))), out.put(uint8_t(options.floats));
  put_varint(out, count);
  SeriesOptions series = series_options(options);
  const auto scratch = frame.take<uint16_t>(3 * n);
  const auto value_scratch = frame.take<U>(3 * count);
  series.farthest = 2;
  encode_series<U>(plan_series<U>(ascending, series, value_scratch), series, out);
  series = series_options(options);
  encode_series<uint16_t>(plan_series<uint16_t>(ranks, series, scratch), series, out);
}

template <class U>
void encode_packed(std::span<const uint8_t> values, int bits, const NumbersOptions& options, ByteWriter& out) {
  ScratchFrame frame;
  const size_t held = size_t(8 / bits);
  const auto packed = frame.bytes(values.size() / held);
  for (size_t i = 0; i < packed.size(); ++i) {
    unsigned byte = 0;
    for (size_t k = 0; k < held; ++k) byte |= unsigned(values[i * held + k]) << (int(k) * bits);
    packed[i] = uint8_t(byte);
  }
  out.put(uint8_t(kPacked)), out.put(uint8_t(bits));
  encode_plane(packed, 256, options.bytes, out);
}

template <class U>
std::span<const uint8_t> bytes_of(std::span<const U> values) noexcept {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

template <class U>
void put_part(Element element, std::span<const U> values, const NumbersOptions& options, EncodePart* encode_part,
              ByteWriter& out) {
  ScratchFrame frame;
  const std::span<const uint8_t> raw = bytes_of(values);
  const auto coded = frame.bytes(raw.size() + 1);
  const size_t bytes = encode_part(element, raw, options.level, coded, options.depth - 1);
  put_varint(out, bytes);
  out.append(coded.first(bytes));
}

template <class U>
void encode_sparse(std::span<const U> values, size_t zeros, const NumbersOptions& options, EncodePart* encode_part,
                   ByteWriter& out) {
  ScratchFrame frame;
  const size_t n = values.size();
  const auto map = frame.bytes((n + 7) / 8);
  const auto others = frame.take<U>(n - zeros + 8);
  size_t count = 0;
  for (size_t i = 0; i < n; i += 8) {
    unsigned byte = 0;
    for (size_t k = i; k < std::min(n, i + 8); ++k) {
      byte |= unsigned(values[k] != 0) << (k - i);
      others[count] = values[k];
      count += values[k] != 0;
    }
    map[i / 8] = uint8_t(byte);
  }
  out.put(uint8_t(kSparse)), out.put(uint8_t(sizeof(U)));
  encode_plane(map, 256, options.bytes, out);
  put_part<U>(options.element, others.first(count), options, encode_part, out);
}

template <class U>
void encode_runs(std::span<const U> values, size_t runs, const NumbersOptions& options, EncodePart* encode_part,
                 ByteWriter& out) {
  ScratchFrame frame;
  const auto heads = frame.take<U>(runs);
  const auto lengths = frame.take<uint32_t>(runs), scratch = frame.take<uint32_t>(3 * runs);
  size_t run = 0, begin = 0;
  for (size_t i = 1; i <= values.size(); ++i)
    if (i == values.size() || values[i] != values[i - 1]) {
      heads[run] = values[begin], lengths[run++] = uint32_t(i - begin - 1);
      begin = i;
    }
  out.put(uint8_t(kRuns)), out.put(uint8_t(sizeof(U)));
  put_varint(out, runs);
  put_part<U>(options.element, heads, options, encode_part, out);
  const SeriesOptions series = series_options(options);
  encode_series<uint32_t>(plan_series<uint32_t>(lengths, series, scratch), series, out);
}

template <class U>
void encode_scaled(std::span<const U> words, const transform::FloatScale& scale, const NumbersOptions& options,
                   EncodePart* encode_part, ByteWriter& out) {
  ScratchFrame frame;
  const auto multiples = frame.take<U>(words.size()), corrections = frame.take<U>(words.size());
  transform::split_scaled(scale, words, multiples.data(), corrections.data());
  const Element integer = sizeof(U) == 8 ? Element::int64 : Element::int32;
  out.put(uint8_t(kScaled)), out.put(uint8_t(sizeof(U)));
  out.put(scale.mantissa), out.put(scale.exponent);
  put_part<U>(integer, multiples, options, encode_part, out);
  NumbersOptions quick = options;  // there is little in corrections
  if (options.level < 7) quick.level = 1;
  put_part<U>(integer, corrections, quick, encode_part, out);
}

template <class U>
void encode_planes(std::span<const U> values, const NumbersOptions& options, ByteWriter& out) {
  ScratchFrame frame;
  const auto plane = frame.bytes(values.size());
  out.put(uint8_t(kPlanes)), out.put(uint8_t(sizeof(U)));
  for (size_t byte = 0; byte < sizeof(U); ++byte) {
    for (size_t i = 0; i < values.size(); ++i) plane[i] = uint8_t(values[i] >> (8 * byte));
    encode_plane(plane, 256, options.bytes, out);
  }
}

// Bytes that one plane of all bytes, or planes of each of an element's bytes, will take, from a sample.
struct ByteEstimate {
  size_t bytes, planes;
};

template <class U>
ByteEstimate estimate_bytes(std::span<const U> values) noexcept {
  constexpr size_t kSample = 4096;
  uint32_t counts[sizeof(U) + 1][256] = {}, total = 0;
  const size_t step = std::max<size_t>(1, values.size() / kSample);
  for (size_t at = 0; at + step <= values.size(); at += step, ++total) {
    const U value = values[at + (total * 0x9E3779B1u >> 16) % step];  // not the same columns of all rows
    for (size_t byte = 0; byte < sizeof(U); ++byte) ++counts[byte][value >> (8 * byte) & 255];
  }
  for (size_t byte = 0; byte < sizeof(U); ++byte)
    for (size_t value = 0; value < 256; ++value) counts[sizeof(U)][value] += counts[byte][value];
  const auto cost_of = [&](const uint32_t* plane, uint32_t all) {
    uint64_t cost = 0, table = 0;
    for (size_t value = 0; value < 256; ++value)
      if (plane[value]) cost += plane[value] * uint64_t(entropy::cost_q16(plane[value], all)), ++table;
    return size_t((cost / total * values.size()) >> 19) + table;
  };
  size_t planes = 0;
  for (size_t byte = 0; byte < sizeof(U); ++byte) planes += cost_of(counts[byte], total);
  return {cost_of(counts[sizeof(U)], total * uint32_t(sizeof(U))), planes};
}

template <class U>
bool encode_words(std::span<const U> words, const NumbersOptions& options, size_t rival, EncodePart* encode_part,
                  ByteWriter& out) {
  ScratchFrame frame;
  const size_t n = words.size();
  Cheapest cheapest(rival, frame);
  // As the numbers that they are; planes, runs and zeros take the words themselves.
  std::span<const U> numbers = words;
  if (options.floats) {
    const auto ordered = frame.take<U>(n);
    for (size_t i = 0; i < n; ++i) ordered[i] = order_float(words[i]);
    numbers = ordered;
  }
  if (options.depth > 0) {
    const ColumnChoice choice = options.depth == kMostDepth - 1 ? find_columns(numbers) : ColumnChoice{};
    if (choice.columns) {  // each by itself
      const std::vector<Field> row(choice.columns, {sizeof(U), options.element});
      if (encode_records(Layout(row, 0), bytes_of(words), options.level, encode_part, options.depth - 1,
                         cheapest.trial()))
        cheapest.settle();
      else
        cheapest.trial().clear();
    }
    // A whole bit less is no chance, and each column has had all that comes below.
    if (cheapest.found() && choice.saving >> 16 && options.level < 7) {
      out.append(cheapest.written());
      return true;
    }
    if constexpr (sizeof(U) >= 4)
      if (options.floats)
        if (const auto scale = find_scale(bytes_of(words), sizeof(U))) {
          const size_t before = cheapest.size();
          encode_scaled(words, *scale, options, encode_part, cheapest.trial()), cheapest.settle();
          if (cheapest.size() < before) {  // the multiples have had all that comes below
            out.append(cheapest.written());
            return true;
          }
        }
  }
  // A few hundred tell whether counting all is worth it.
  Counted<U> counted = count(words, 1 + n / 509);
  const bool many_zeros = counted.zeros * 5 > counted.places * 2, few_runs = counted.changes * 8 < counted.places;
  const bool small = sizeof(U) == 1 && counted.most < 16;
  if (options.depth > 0 && (many_zeros || few_runs || small)) {
    counted = count(words, 1);
    if (counted.changes <= n / 10)
      encode_runs(words, counted.changes, options, encode_part, cheapest.trial()), cheapest.settle();
    if (sizeof(U) > 1 && counted.zeros >= n / 2 && counted.zeros < n)
      encode_sparse(words, counted.zeros, options, encode_part, cheapest.trial()), cheapest.settle();
    if constexpr (sizeof(U) == 1) {
      for (const int bits : {1, 2, 4})
        if (counted.most < 1u << bits && n % size_t(8 / bits) == 0) {
          encode_packed<U>(words, bits, options, cheapest.trial()), cheapest.settle();
          break;
        }
    }
  }
  // Packed values leave nothing for the ways below but rare patterns.
  if (sizeof(U) == 1 && cheapest.found() && counted.most < 4 && options.level < 7) {
    out.append(cheapest.written());
    return true;
  }
  const SeriesOptions series = series_options(options);
  const auto scratch = frame.take<U>(3 * n);
  const SeriesPlan<U> plan = plan_series<U>(numbers, series, scratch);
  if (sizeof(U) > 1 && wants_ranks(numbers, plan.divisor))
    encode_ranks(numbers, plan.divisor, options, cheapest.trial()), cheapest.settle();
  // Estimates tell apart what is large; small chunks are tried.
  constexpr size_t kSmall = 4096;
  // Bins of bytes have nothing over the bytes themselves, but a list.
  const bool no_bins = sizeof(U) == 1 && !plan.strides[0];
  const size_t bins = no_bins ? ~size_t(0) : size_t((plan.cost * n) >> 19);
  const ByteEstimate estimate = estimate_bytes(words);
  const auto promises = [&](size_t bytes, size_t rivals) {
    return n <= kSmall || (bytes < rivals && bytes < cheapest.size());
  };
  ByteWriter& trial = cheapest.trial();
  if (promises(estimate.bytes, sizeof(U) == 1 ? bins : std::min(bins, estimate.planes)))
    trial.put(uint8_t(kBytes)), encode_plane(bytes_of(words), 256, options.bytes, trial), cheapest.settle();
  if (sizeof(U) > 1 && promises(estimate.planes, std::min(bins, estimate.bytes)))
    encode_planes(words, options, trial), cheapest.settle();
  if (!no_bins && promises(bins, cheapest.size())) {
    trial.put(uint8_t(kSeries)), trial.put(uint8_t(sizeof(U))), trial.put(uint8_t(options.floats));
    encode_series(plan, series, trial);
    cheapest.settle();
  }
  out.append(cheapest.written());
  return cheapest.found();
}

template <class U>
bool encode_aligned(std::span<const uint8_t> raw, const NumbersOptions& options, size_t rival, EncodePart* encode_part,
                    ByteWriter& out) {
  const size_t n = raw.size() / sizeof(U);
  if (reinterpret_cast<uintptr_t>(raw.data()) % sizeof(U) == 0)
    return encode_words<U>({reinterpret_cast<const U*>(raw.data()), n}, options, rival, encode_part, out);
  ScratchFrame frame;
  const auto words = frame.take<U>(n);
  std::memcpy(words.data(), raw.data(), raw.size());
  return encode_words<U>(words, options, rival, encode_part, out);
}

}  // namespace

bool has_pattern(std::span<const uint8_t> raw, size_t width) noexcept {
  constexpr size_t kRuns = 8, kRun = 32;
  std::array<uint64_t, kRuns * kRun> sample{};
  const size_t n = raw.size() / width;
  if (n < 2 * sample.size()) return true;
  const size_t step = n / kRuns, top = 8 * width - 1;
  size_t zeros = 0, equal = 0;
  const auto at = [&](size_t place) noexcept {
    uint64_t word = 0;
    std::memcpy(&word, raw.data() + place * width, width);
    // Magnitudes of both signs in order, so that near numbers are near.
    return word >> top ? (uint64_t(1) << top) - (word & ((uint64_t(1) << top) - 1)) : word | uint64_t(1) << top;
  };
  for (size_t run = 0; run < kRuns; ++run)
    for (size_t i = 0; i < kRun; ++i) {
      sample[run * kRun + i] = at(run * step + i);
      zeros += sample[run * kRun + i] == uint64_t(1) << top;
    }
  const auto bits = [](uint64_t one, uint64_t other) noexcept {
    return size_t(std::bit_width(one > other ? one - other : other - one));
  };
  // Bits of the difference to a stranger, and to the nearest neighbor of the same column of up to four.
  constexpr size_t kColumns = 4;
  size_t near[kColumns] = {}, far = 0, far_of_all = 0, negative = 0;
  for (size_t i = 0; i < sample.size(); ++i) {
    const size_t stranger = bits(sample[i], sample[(i + kRun * (kRuns / 2) + kRun / 2) % sample.size()]);
    far_of_all += stranger, negative += sample[i] >> top == 0;
    if (i % kRun < kColumns) continue;
    for (size_t column = 0; column < kColumns; ++column) near[column] += bits(sample[i], sample[i - 1 - column]);
    equal += sample[i] == sample[i - 1];
    far += stranger;
  }
  bool smooth = *std::min_element(near, near + kColumns) + kRuns * kRun < far;
  // And to that of the row after, in matrices whose columns differ in scale. Signs that are random hide it.
  const bool one_sign = std::min(negative, sample.size() - negative) * 16 < sample.size();
  for (const size_t row : kUsualRows) {
    if (smooth || !one_sign || row + kRun > step) break;
    size_t below = 0;
    for (size_t i = 0; i < sample.size(); ++i) below += bits(sample[i], at(i / kRun * step + i % kRun + row));
    smooth = below + sample.size() / 2 < far_of_all;
  }
  std::sort(sample.begin(), sample.end());
  const size_t distinct = size_t(std::unique(sample.begin(), sample.end()) - sample.begin());
  if (zeros * 2 > kRuns * kRun || equal * 2 > kRuns * kRun || smooth || distinct * 2 < kRuns * kRun) return true;
  return width >= 4 && find_scale(raw, width);
}

bool has_decimals(std::span<const uint8_t> raw, size_t width) noexcept {
  if (width < 4) return false;
  const auto scale = find_scale(raw, width);
  return scale && scale->mantissa != uint64_t(1) << 63;
}

bool encode_numbers(std::span<const uint8_t> raw, size_t width, const NumbersOptions& options, size_t rival,
                    EncodePart* encode_part, ByteWriter& out) {
  switch (width) {
    case 1: return encode_aligned<uint8_t>(raw, options, rival, encode_part, out);
    case 2: return encode_aligned<uint16_t>(raw, options, rival, encode_part, out);
    case 4: return encode_aligned<uint32_t>(raw, options, rival, encode_part, out);
    default: return encode_aligned<uint64_t>(raw, options, rival, encode_part, out);
  }
}

}  // namespace tersor::lossless
