#include "entropy/rans_tables.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace tersor::entropy {
namespace {

// How slots map to symbols in an alias layout, before it is packed for either direction.
struct AliasMap {
  int buckets;
  uint32_t width;
  uint32_t frequency[256], start[256], own[256], alias[256], offset[256];
};

AliasMap map_of(const Table& table) {
  TERSOR_REQUIRE(!table.has_escape() && table.last() < 256, Code::bad_call,
                 "this coder takes tables of up to 256 symbols without an escape");
  TERSOR_REQUIRE(!table.single(), Code::bad_call, "a table of one symbol needs no coder");
  AliasMap m{};
  const size_t base = table.last() - table.first() < 32 ? table.first() : 0;
  m.buckets = table.last() - table.first() < 32 ? 32 : 256;
  m.width = kSlots / uint32_t(m.buckets);
  uint32_t rest[256], used[256], sum = 0;
  uint16_t small[256], large[256];
  int smalls = 0, larges = 0;
  for (uint32_t s = 0; s < uint32_t(m.buckets); ++s) {
    const size_t symbol = base + s;
    rest[s] = m.frequency[s] =
        symbol <= table.last() ? table.frequencies()[symbol] << (kMostPrecision - table.precision()) : 0;
    m.start[s] = sum, sum += m.frequency[s];
    m.own[s] = m.width, m.alias[s] = s, m.offset[s] = 0;
    if (rest[s] < m.width)
      small[smalls++] = uint16_t(s);
    else
      large[larges++] = uint16_t(s);
  }
  while (smalls > 0) {  // the sums are exact, so the large ones cannot run out first
    const uint32_t s = small[--smalls], l = large[larges - 1];
    m.own[s] = rest[s], m.alias[s] = l, rest[l] -= m.width - rest[s];
    if (rest[l] < m.width) --larges, small[smalls++] = uint16_t(l);
  }
  std::copy(m.own, m.own + m.buckets, used);
  for (uint32_t b = 0; b < uint32_t(m.buckets); ++b) {
    if (m.own[b] == m.width) continue;
    m.offset[b] = (used[m.alias[b]] - m.own[b]) & 0xffff;
    used[m.alias[b]] += m.width - m.own[b];
  }
  return m;
}

// See EncodeTables::stepped; false where there are too many cuts.
bool lay_steps(const AliasMap& m, EncodeTables& out) {
  uint32_t at = 0, piece_start[65];
  int pieces = 0;
  const auto lay = [&](uint32_t slot, uint32_t count) {
    if (count == 0) return;
    piece_start[pieces] = at;
    out.shift[pieces++] = uint16_t(slot - at);
    at += count;
  };
  for (uint32_t s = 0; s < 32; ++s) {
    if (m.frequency[s] < m.width) {  // a full bucket may have lent slots and have others elsewhere
      out.place_frequency[s] = m.frequency[s] | (s * m.width) << 16;
      continue;
    }
    out.place_frequency[s] = m.frequency[s] | (at & 0xffff) << 16;
    lay(s * m.width, m.own[s]);
    for (uint32_t b = 0; b < 32; ++b)  // ranks of a symbol: its own slots, then what it has elsewhere, upwards
      if (m.alias[b] == s && m.own[b] < m.width) lay(b * m.width + m.own[b], m.width - m.own[b]);
  }
  piece_start[pieces] = kSlots;
  int piece = 0;
  for (uint32_t k = 0; k < 64; ++k) {
    while (piece + 1 < pieces && piece_start[piece + 1] <= k * 1024) ++piece;
    out.piece[k] = uint16_t(piece);
    for (int i = 0; i < 3; ++i) {
      const uint32_t next = piece + i + 1 < pieces ? piece_start[piece + i + 1] : kSlots;
      out.cut[i][k] = uint16_t(next < (k + 1) * 1024 ? next - 1 : 65535);
    }
    if (piece + 4 < pieces && piece_start[piece + 4] < (k + 1) * 1024) return false;
  }
  return true;
}

uint64_t side_of(uint32_t frequency, int32_t rank_less_slot, uint32_t symbol) {
  return uint64_t(uint32_t(rank_less_slot)) << 32 | frequency << 16 | uint8_t(symbol);
}

// Shares below 1/64 take 1024 slots; the others divide what is left, which may push more of them to 1024.
void share_slots(std::span<const uint64_t> shares, std::vector<uint32_t>& frequencies) {
  constexpr uint32_t kLeast = DirectAlphabet::kLeastFrequency;
  frequencies.assign(shares.size(), 0);
  uint64_t free = kSlots, sharing = std::accumulate(shares.begin(), shares.end(), uint64_t(0));
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < shares.size(); ++i) {
      if (frequencies[i] || shares[i] * free >= kLeast * sharing) continue;
      frequencies[i] = kLeast, free -= kLeast, sharing -= shares[i], changed = true;
    }
  }
  uint64_t given = 0;
  size_t largest = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    if (frequencies[i] == 0) frequencies[i] = uint32_t(shares[i] * free / sharing);
    given += frequencies[i];
    if (shares[i] > shares[largest]) largest = i;
  }
  frequencies[largest] += uint32_t(kSlots - given);
}

float rounded_down_twice(uint32_t frequency) {
  return frequency ? std::bit_cast<float>(std::bit_cast<uint32_t>(1.0f / float(frequency)) - 2) : 0.0f;
}

}  // namespace

void prepare_decode(const Table& table, DecodeTables& out) {
  const AliasMap m = map_of(table);
  const bool small = m.buckets == 32;
  out.layout = small ? Layout::alias32 : Layout::alias256;
  out.base = small ? uint8_t(table.first()) : 0;
  out.named = false;
  for (int b = 0; b < m.buckets; ++b) {
    const uint32_t own = std::min(m.own[b], m.width - 1), alias = m.alias[b], offset = m.offset[b];
    const uint32_t f = m.frequency[b], first = uint32_t(b) * m.width;
    out.until[b] = first + own;
    out.side[2 * b + 1] = side_of(f, -int32_t(first), out.base + uint32_t(b));
    out.side[2 * b] =
        side_of(m.frequency[alias], int32_t((own + offset) & 0xffff) - int32_t(first + own), out.base + alias);
    if (small) {
      out.own[b] = uint16_t(own), out.alias[b] = uint16_t(alias), out.offset[b] = uint16_t(offset),
      out.frequency[b] = uint16_t(f);
      continue;
    }
    out.own_alias256[b] = uint16_t(own << 8 | alias);
    out.offset256[b] = uint16_t(offset), out.frequency256[b] = uint16_t(f);
    out.entry256[b] = own << 8 | alias | offset << 16 | uint64_t(f | m.frequency[alias] << 16) << 32;
    out.plane[0][b] = uint8_t(own), out.plane[1][b] = uint8_t(alias);
    out.plane[2][b] = uint8_t(offset), out.plane[3][b] = uint8_t(offset >> 8);
    out.plane[4][b] = uint8_t(f), out.plane[5][b] = uint8_t(f >> 8);
  }
}

void prepare_decode(const Table& table, std::span<const uint8_t, 32> symbol_of, DecodeTables& out) {
  TERSOR_ASSERT(table.last() < 32);
  prepare_decode(table, out);
  out.named = true;
  for (int b = 0; b < 32; ++b) {
    out.symbol_of[b] = symbol_of[size_t(out.base + b) & 31];
    for (int i = 0; i < 2; ++i) {
      uint64_t& side = out.side[2 * b + i];
      side = (side & ~uint64_t(255)) | symbol_of[side & 31];
    }
  }
}

void prepare_encode(const Table& table, EncodeTables& out, std::span<uint16_t> slot_of) {
  TERSOR_ASSERT(slot_of.size() >= slot_entries(table));
  const AliasMap m = map_of(table);
  const bool small = m.buckets == 32;
  out.layout = small ? Layout::alias32 : Layout::alias256;
  out.base = small ? uint8_t(table.first()) : 0;
  out.slot_of = slot_of.data();
  for (int s = 0; s < m.buckets; ++s) {
    out.frequency_start[s] = m.frequency[s] | (m.start[s] & 0xffff) << 16;
    out.reciprocal[s] = rounded_down_twice(m.frequency[s]);
  }
  const int q = out.quantum_bits = kMostPrecision - table.precision();
  // From and to, in quanta: a run of ranks takes a run of slots.
  const auto place = [&](uint32_t at, uint32_t slot, uint32_t count) {
    uint16_t* const to = slot_of.data() + at;
    for (uint32_t i = 0; i < count; ++i) to[i] = uint16_t(slot + (i << q));
  };
  for (int b = 0; b < m.buckets; ++b) {
    const uint32_t slot = uint32_t(b) * m.width, lent = m.width - m.own[b];
    place(m.start[b] >> q, slot, m.own[b] >> q);
    place((m.start[m.alias[b]] + ((m.own[b] + m.offset[b]) & 0xffff)) >> q, slot + m.own[b], lent >> q);
  }
  out.stepped = small && lay_steps(m, out);
}

bool choose_direct(std::span<const uint64_t> counts, bool escapes, DirectAlphabet& out, int slack) {
  TERSOR_ASSERT(counts.size() == 256);
  uint64_t total = 0;
  std::vector<uint16_t> order;
  for (uint16_t s = 0; s < 256; ++s)
    if (counts[s]) order.push_back(s), total += counts[s];
  if (order.size() < 2 || total >= uint64_t(1) << 32) return false;
  std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) { return counts[a] > counts[b]; });
  // An escaped symbol pays the escape and then its own share of the escaped, in 2^-16 bit.
  const auto own_price = [&](uint64_t count, uint64_t whole) {
    return count * cost_q16(uint32_t(count), uint32_t(whole));
  };
  uint64_t escaped = total, apart = 0, best_cost = ~uint64_t(0);
  for (const uint16_t s : order) apart += own_price(counts[s], total);
  std::vector<uint64_t> shares;
  std::vector<uint32_t> frequencies, best_frequencies;
  for (size_t m = 1; m <= std::min<size_t>(31, order.size()); ++m) {
    const uint64_t count = counts[order[m - 1]];
    apart -= own_price(count, total), escaped -= count;
    shares.push_back(count);
    const bool escape = escapes || escaped > 0;
    if (escape) shares.push_back(std::max<uint64_t>(escaped, 1));
    share_slots(shares, frequencies);
    uint64_t cost = escaped ? apart - own_price(escaped, total) : 0;  // among the escaped
    for (size_t i = 0; i < shares.size(); ++i)
      cost += (i < m ? counts[order[i]] : escaped) * cost_q16(frequencies[i], kSlots);
    if (escape) shares.pop_back();
    if (frequencies.size() < 2 || (slack ? cost - cost / 1024 * uint64_t(slack) > best_cost : cost >= best_cost))
      continue;
    best_cost = std::min(best_cost, cost), best_frequencies = frequencies;
    out.direct = int(m), out.escape = escape;
  }
  if (best_frequencies.empty()) return false;
  // Names ascend with their symbols.
  std::vector<int> rank(size_t(out.direct));
  std::iota(rank.begin(), rank.end(), 0);
  std::sort(rank.begin(), rank.end(), [&](int a, int b) { return order[size_t(a)] < order[size_t(b)]; });
  frequencies.clear();
  for (int name = 0; name < out.direct; ++name) {
    out.symbol[size_t(name)] = uint8_t(order[size_t(rank[size_t(name)])]);
    frequencies.push_back(best_frequencies[size_t(rank[size_t(name)])]);
  }
  if (out.escape) frequencies.push_back(best_frequencies.back());
  out.table = Table::from_frequencies(std::move(frequencies), kMostPrecision);
  return true;
}

void prepare_decode(const DirectAlphabet& alphabet, DecodeTables& out) {
  out.layout = Layout::contiguous;
  out.base = 0, out.named = false;
  std::fill(std::begin(out.frequency), std::end(out.frequency), uint16_t(0));
  std::fill(std::begin(out.start), std::end(out.start), uint16_t(0));
  const auto frequencies = alphabet.table.frequencies();
  uint32_t start = 0;
  for (int s = 0; s < alphabet.names(); ++s) {
    TERSOR_REQUIRE(frequencies[size_t(s)] >= DirectAlphabet::kLeastFrequency && frequencies[size_t(s)] < kSlots,
                   Code::bad_data, "contiguous table: a frequency of ", frequencies[size_t(s)],
                   ", 1024..65535 is needed");
    const uint32_t end = start + frequencies[size_t(s)];
    out.frequency[s] = uint16_t(frequencies[size_t(s)]), out.start[s] = uint16_t(start);
    for (uint32_t b = (start + 1023) / 1024; b * 1024 < end; ++b) {  // buckets whose first slot is this symbol's
      const uint32_t threshold = std::min(end - b * 1024, 1024u);    // 1024: no slot reaches it
      out.bucket[b] = uint16_t(threshold << 5 | uint32_t(s));
      out.until[b] = b * 1024 + threshold;
      out.side[2 * b + 1] = side_of(frequencies[size_t(s)], -int32_t(start), uint32_t(s));
      if (threshold < 1024) out.side[2 * b] = side_of(frequencies[size_t(s) + 1], -int32_t(end), uint32_t(s) + 1);
    }
    start = end;
  }
}

void prepare_encode(const DirectAlphabet& alphabet, EncodeTables& out) {
  out.layout = Layout::contiguous;
  out.base = 0;
  out.slot_of = nullptr, out.quantum_bits = 0, out.stepped = false;
  uint32_t start = 0;
  for (int s = 0; s < 32; ++s) {
    const uint32_t f = s < alphabet.names() ? alphabet.table.frequencies()[size_t(s)] : 0;
    out.frequency_start[s] = f | (start & 0xffff) << 16;
    out.reciprocal[s] = rounded_down_twice(f);
    start += f;
  }
}

}  // namespace tersor::entropy
