#include "entropy/table_set.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/bits.h"
#include "core/error.h"
#include "entropy/bit_io.h"
#include "entropy/table.h"

namespace tersor::entropy {
namespace {

constexpr const char* kWhat = "table set";
constexpr uint8_t kStream = 4, kVersion = 1;       // core/ids.def
constexpr uint64_t kMostMass = uint64_t(1) << 47;  // times slots and a half it fits 64 bits
constexpr int kLeastBucketBits = 4, kMostBucketBits = 12;
constexpr size_t kMostBuckets = size_t(1) << 24;
constexpr uint32_t kSearchedSlots = kTableSlots / 64;  // in symbols that are narrower than a bucket

void check_shape(size_t tables, int precision, int fraction_bits, Code code) {
  TERSOR_REQUIRE(precision >= kLeastPrecision && precision <= kMostPrecision, code, kWhat, ": precision ", precision,
                 ", 12..16 is needed");
  TERSOR_REQUIRE(fraction_bits >= 0 && fraction_bits <= kMostFractionBits, code, kWhat, ": ", fraction_bits,
                 " fraction bits, 0..", kMostFractionBits, " are allowed");
  TERSOR_REQUIRE(tables >= 1 && tables <= kMostTables << fraction_bits && tables % (size_t(1) << fraction_bits) == 0,
                 code, kWhat, ": ", tables, " tables, 1..", kMostTables, " times 2^", fraction_bits, " are needed");
}

// Spreads `slots` over the masses that get any, the escape's last. 0 where a symbol is left to the escape.
std::vector<uint32_t> round_masses(const Masses& table, uint32_t slots) {
  uint64_t total = table.outside;
  TERSOR_REQUIRE(total <= kMostMass, Code::bad_call, kWhat, ": masses sum to over 2^47");
  for (const uint64_t mass : table.mass) {
    TERSOR_REQUIRE(mass <= kMostMass && (total += mass) <= kMostMass, Code::bad_call, kWhat,
                   ": masses sum to over 2^47");
  }
  const size_t symbols = table.mass.size();
  std::vector<uint32_t> kept;
  for (size_t s = 0; s < symbols; ++s)
    if (table.mass[s] != 0 && table.mass[s] * slots >= ceil_div(total, 4)) kept.push_back(uint32_t(s));
  TERSOR_REQUIRE(!kept.empty(), Code::bad_call, kWhat, ": no symbol of a table is worth a quarter of its 1/", slots);
  if (kept.size() + 1 > slots) {  // the greatest, the first of equals; the escape needs a slot, too
    const auto behind = kept.begin() + (slots - 1);
    std::nth_element(kept.begin(), behind, kept.end(), [&](uint32_t a, uint32_t b) {
      return table.mass[a] != table.mass[b] ? table.mass[a] > table.mass[b] : a < b;
    });
    kept.erase(behind, kept.end());
  }
  const auto rounded = [&](uint64_t mass) {
    return std::max<uint32_t>(1, uint32_t((mass * slots + total / 2) / total));
  };
  std::vector<uint32_t> frequencies(symbols + 1);
  uint64_t outside = total;
  for (const uint32_t s : kept) frequencies[s] = rounded(table.mass[s]), outside -= table.mass[s];
  frequencies[symbols] = rounded(outside);
  const auto sum = std::accumulate(frequencies.begin(), frequencies.end(), int64_t(0));
  // What is missing or too much is shared out in proportion; nobody loses the last slot.
  const int64_t missing = int64_t(slots) - sum;
  if (missing == 0) return frequencies;
  const bool grow = missing > 0;
  const auto weight = [&](uint32_t f) { return grow ? f : f - (f != 0); };
  uint64_t whole = 0, before = 0;
  for (const uint32_t f : frequencies) whole += weight(f);
  const uint64_t step = uint64_t(grow ? missing : -missing);
  for (uint32_t& f : frequencies) {
    const uint64_t after = before + weight(f);
    const auto share = uint32_t(step * after / whole - step * before / whole);
    f = grow ? f + share : f - share;
    before = after;
  }
  return frequencies;
}

}  // namespace

SymbolEntry symbol_entry(uint32_t start, uint32_t frequency) noexcept {
  // 2^-50 less than the inverse: more than all roundings on the way to a quotient below 2^47 can add up to.
  return {frequency ? (1.0 - 0x1p-50) / frequency : 0.0, frequency, start};
}

int TableSet::escape_order(uint32_t count) noexcept { return std::max(0, int(std::bit_width(count)) - 4); }

TableSet TableSet::from_masses(std::span<const Masses> tables, int precision, int fraction_bits) {
  return from_masses(tables.size(), [&](size_t i) { return tables[i]; }, precision, fraction_bits);
}

TableSet TableSet::from_masses(size_t tables, const std::function<Masses(size_t)>& masses_of, int precision,
                               int fraction_bits) {
  check_shape(tables, precision, fraction_bits, Code::bad_call);
  TableSet set(precision, fraction_bits);
  for (size_t i = 0; i < tables; ++i) {
    const Masses table = masses_of(i);
    TERSOR_REQUIRE(table.mass.size() <= kMostTableSymbols, Code::bad_call, kWhat, ": a table of ", table.mass.size(),
                   " symbols, at most ", kMostTableSymbols, " are allowed");
    std::vector<uint32_t> frequencies = round_masses(table, uint32_t(1) << precision);
    for (uint32_t& f : frequencies) f <<= kSlotBits - precision;
    set.append_trimmed(table.low, frequencies);
  }
  return set;
}

TableSet TableSet::from_frequencies(std::vector<Frequencies> tables, int precision, int fraction_bits) {
  check_shape(tables.size(), precision, fraction_bits, Code::bad_call);
  TableSet set(precision, fraction_bits);
  for (auto& [low, frequencies] : tables) {
    TERSOR_REQUIRE(frequencies.size() >= 2 && frequencies.size() <= kMostTableSymbols + 1, Code::bad_call, kWhat,
                   ": a table of ", frequencies.size(), " frequencies, 2..", kMostTableSymbols + 1, " are needed");
    const uint64_t sum = std::accumulate(frequencies.begin(), frequencies.end(), uint64_t(0));
    TERSOR_REQUIRE(sum == uint64_t(1) << precision, Code::bad_call, kWhat, ": frequencies sum to ", sum, ", not to 2^",
                   precision);
    for (uint32_t& f : frequencies) f <<= kSlotBits - precision;
    if (frequencies.back() == 0) {
      const auto top = std::max_element(frequencies.begin(), frequencies.end());
      --*top, ++frequencies.back();
    }
    set.append_trimmed(low, frequencies);
  }
  return set;
}

TableSet TableSet::from_cdfs(std::span<const Cdf> tables, int precision) {
  check_shape(tables.size(), precision, 0, Code::bad_call);
  std::vector<Frequencies> taken;
  taken.reserve(tables.size());
  for (const auto& [low, cdf] : tables) {
    TERSOR_REQUIRE(cdf.size() >= 3, Code::bad_call, kWhat, ": cdf ", taken.size(), " has ", cdf.size(),
                   " values, 3 are needed for a symbol and the escape");
    TERSOR_REQUIRE(cdf.front() == 0 && cdf.back() == 1 << precision && std::ranges::is_sorted(cdf), Code::bad_call,
                   kWhat, ": cdf ", taken.size(), " does not rise from 0 to ", 1 << precision, ": it goes from ",
                   cdf.front(), " to ", cdf.back());
    std::vector<uint32_t> frequencies(cdf.size() - 1);
    for (size_t s = 0; s < frequencies.size(); ++s) frequencies[s] = uint32_t(cdf[s + 1] - cdf[s]);
    taken.push_back({low, std::move(frequencies)});
  }
  return from_frequencies(std::move(taken), precision);
}

void TableSet::append_trimmed(int32_t low, std::span<uint32_t> frequencies) {
  size_t first = 0, end = frequencies.size() - 1;
  while (first < end && frequencies[first] == 0) ++first;
  TERSOR_REQUIRE(first < end, Code::bad_call, kWhat, ": a table without a symbol but its escape");
  while (frequencies[end - 1] == 0) --end;
  frequencies[end] = frequencies.back();
  TERSOR_REQUIRE(int64_t(low) + int64_t(end) <= INT32_MAX, Code::bad_call, kWhat, ": a table from ", low, " on has ",
                 end, " symbols and ends above 2^31");
  append(low + int32_t(first), frequencies.subspan(first, end + 1 - first), Code::bad_call);
}

void TableSet::append(int32_t low, std::span<const uint32_t> frequencies, Code code) {
  const auto count = uint32_t(frequencies.size() - 1);
  TERSOR_REQUIRE(entries_.size() + frequencies.size() <= kMostSetSymbols, code, kWhat, ": over ", kMostSetSymbols,
                 " symbols in all tables");
  const auto first = uint32_t(entries_.size());
  uint32_t start = 0, holes = 0;
  uint32_t by_width[kSlotBits + 1] = {};  // slots of all symbols whose frequency has so many bits
  entries_.resize(first + frequencies.size());
  for (size_t s = 0; s < frequencies.size(); ++s) {
    const uint32_t f = frequencies[s];
    entries_[first + s] = symbol_entry(start, f);
    start += f, holes += f == 0;
    by_width[std::bit_width(f)] += f;
  }
  TERSOR_ASSERT(start == kTableSlots && frequencies[0] && frequencies[count]);
  TERSOR_REQUIRE((slotless_ += holes) <= kMostSlotless, code, kWhat, ": over ", kMostSlotless,
                 " symbols without a slot between others that have one");
  rows_.push_back({first, low, count, holes ? 0 : count});
  // The widest buckets in which few slots have to be searched for: those of symbols narrower than a bucket.
  int log = kSlotBits - kLeastBucketBits;
  uint32_t searched = std::accumulate(by_width, by_width + log + 1, 0u);
  for (; log > kSlotBits - kMostBucketBits && searched > kSearchedSlots; --log) searched -= by_width[log];
  const size_t bucket = buckets_.size(), many = size_t(1) << (kSlotBits - log);
  TERSOR_REQUIRE(bucket + many <= kMostBuckets, code, kWhat, ": its tables need over ", kMostBuckets,
                 " buckets: fewer tables or narrower ones are needed");
  places_.push_back(uint64_t(bucket) | uint64_t(log) << 24 | uint64_t(uint32_t(low)) << 32);
  buckets_.resize(bucket + many);
  const SymbolEntry* entry = &entries_[first];
  uint64_t* to = &buckets_[bucket];
  for (uint32_t s = 0; s <= count; ++s) {  // the buckets whose first slot is this symbol's
    const uint64_t one = s < count ? entry[s].frequency : 0, two = s + 1 < count ? entry[s + 1].frequency : 0;
    const uint64_t whole = entry[s].start | one << 16 | two << 32 | uint64_t(s) << 48;
    const auto end = size_t(ceil_div(entry[s].start + entry[s].frequency, uint64_t(1) << log));
    to = std::fill_n(to, size_t(&buckets_[bucket] + end - to), whole);
  }
}

void TableSet::serialize(std::vector<uint8_t>& out) const {
  for (const uint8_t byte : {kStream, kVersion, uint8_t(precision_), uint8_t(fraction_bits_)}) out.push_back(byte);
  put_varint(out, rows_.size());
  for (const TableRow& row : rows_) {
    put_varint(out, uint64_t(uint32_t(row.low) << 1 ^ uint32_t(row.low >> 31)));
    std::vector<uint32_t> frequencies(row.count + 1);
    // At its own precision, unless a slot of 2^16 went to the escape.
    uint32_t all = 0;
    for (uint32_t s = 0; s <= row.count; ++s) all |= frequencies[s] = entries_[row.entry + s].frequency;
    const int spare = std::min(kSlotBits - precision_, std::countr_zero(all));
    for (uint32_t& f : frequencies) f >>= spare;
    Table::from_frequencies(std::move(frequencies), kSlotBits - spare, true).serialize(out);
  }
}

TableSet TableSet::parse(std::span<const uint8_t> data) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  const uint8_t precision = reader.take<uint8_t>(), fraction_bits = reader.take<uint8_t>();
  std::span<const uint8_t> rest = reader.take(reader.left());
  const uint64_t tables = take_varint(rest, kWhat);
  TERSOR_REQUIRE(tables <= rest.size(), Code::bad_data, kWhat, ": ", tables, " tables claimed by ", rest.size(),
                 " bytes");
  check_shape(size_t(tables), precision, fraction_bits, Code::bad_data);
  TableSet set(precision, fraction_bits);
  for (uint64_t i = 0; i < tables; ++i) {
    const uint64_t code = take_varint(rest, kWhat);
    TERSOR_REQUIRE(code <= UINT32_MAX, Code::bad_data, kWhat, ": a first symbol of ", code >> 1,
                   ", 32 bits are allowed");
    const auto low = int32_t(uint32_t(code >> 1) ^ (0u - uint32_t(code & 1)));
    const Table table = Table::parse(rest);
    const auto given = table.frequencies();
    TERSOR_REQUIRE(table.has_escape() && table.first() == 0 && !table.single() && given.back() > 0 &&
                       given[given.size() - 2] > 0 && table.precision() >= precision,
                   Code::bad_data, kWhat, ": table ", i, " has no escape or does not begin and end with a symbol");
    TERSOR_REQUIRE(int64_t(low) + int64_t(given.size()) - 1 <= INT32_MAX, Code::bad_data, kWhat, ": table ", i,
                   " ends above 2^31");
    std::vector<uint32_t> frequencies(given.begin(), given.end());
    for (uint32_t& f : frequencies) f <<= kSlotBits - table.precision();
    set.append(low, frequencies, Code::bad_data);
  }
  TERSOR_REQUIRE(rest.empty(), Code::bad_data, kWhat, ": ", rest.size(), " bytes too many");
  return set;
}

}  // namespace tersor::entropy
