// Models of tokens fitted to tokens: integer arithmetic alone, so a fit gives the same bytes on every machine.
#include <algorithm>
#include <bit>
#include <numeric>

#include "entropy/table.h"
#include "entropy/tokens.h"

namespace tersor::entropy::tokens {
namespace {

constexpr size_t kSmallTally = 65536;  // counted in place, not by sorting
constexpr int kCountBits = 16;         // fraction of smoothed counts
constexpr size_t kMostRounds = 12, kMostUnits = 8;

uint64_t log2_q16(uint64_t value) noexcept {  // value >= 1
  const int shift = std::max(0, int(std::bit_width(value)) - 32);
  return (uint64_t(shift) << 16) + cost_q16(1, uint32_t(value >> shift));
}

// The bits, in units of 2^-16, of a string with these counts under its own frequencies.
uint64_t entropy_q16(std::span<const uint64_t> counts) {
  uint64_t total = 0, own = 0;
  for (const uint64_t count : counts)
    if (count) total += count, own += count * log2_q16(count);
  return total ? total * log2_q16(total) - own : 0;
}

// What a fit reads: frames, and which of them start a chunk.
struct Sample {
  std::span<const uint16_t> tokens;
  std::span<const Book> books;
  std::vector<bool> starts;
  const uint16_t* row(size_t t) const noexcept { return tokens.data() + t * books.size(); }
  bool repeats(size_t t, size_t b) const noexcept {
    return !starts[t] && row(t)[b] == row(t)[ptrdiff_t(b) - ptrdiff_t(books.size())];
  }
};

struct Entry {
  uint32_t context, symbol;
  uint64_t count;
};

// How often each symbol of book b, of tokens that do not repeat, follows each context: a symbol of the source's token,
// and one more where there is none. Ascending.
std::vector<Entry> tally(const Sample& sample, size_t b, Source source) {
  const size_t width = sample.books.size();
  const uint32_t symbols = sample.books[b].symbols();
  const size_t from = source == Source::book ? b - 1 : b;
  const int low = sample.books[b].low_bits(), from_low = sample.books[from].low_bits();
  const uint32_t nowhere = source == Source::one ? 0 : sample.books[from].symbols();
  std::vector<uint32_t> keys;
  std::vector<uint64_t> counts(size_t(nowhere + 1) * symbols <= kSmallTally ? (nowhere + 1) * symbols : 0);
  for (size_t t = 0; t < sample.starts.size(); ++t) {
    if (sample.repeats(t, b)) continue;
    const uint16_t* row = sample.row(t);
    uint32_t context = nowhere;
    if (source == Source::book) context = row[from] >> from_low;
    if (source == Source::frame && !sample.starts[t]) context = (row - width)[from] >> from_low;
    const uint32_t key = context * symbols + (row[b] >> low);
    counts.empty() ? keys.push_back(key) : void(++counts[key]);
  }
  std::vector<Entry> entries;
  for (uint32_t key = 0; key < counts.size(); ++key)
    if (counts[key]) entries.push_back({key / symbols, key % symbols, counts[key]});
  std::ranges::sort(keys);
  for (size_t i = 0, next; i < keys.size(); i = next) {
    for (next = i; next < keys.size() && keys[next] == keys[i];) ++next;
    entries.push_back({keys[i] / symbols, keys[i] % symbols, next - i});
  }
  return entries;
}

// Counts by class and symbol.
struct Classes {
  size_t count;
  std::vector<uint8_t> class_of;  // by context
  std::vector<uint64_t> sums;     // [count][symbols]
};

Classes classes_of(std::span<const Entry> entries, size_t count, std::vector<uint8_t> class_of, uint32_t symbols) {
  Classes classes{count, std::move(class_of), std::vector<uint64_t>(count * symbols)};
  for (const Entry& entry : entries)
    classes.sums[classes.class_of[entry.context] * symbols + entry.symbol] += entry.count;
  return classes;
}

// What is known of symbols before their class is: their counts, as if each had come once more, scaled to twice as many
// tokens as there are symbols. Every class has seen them before its own. In units of 2^-kCountBits.
struct Prior {
  explicit Prior(std::span<const Entry> entries, uint32_t symbols) : counts(symbols), total(symbols) {
    for (const Entry& entry : entries) counts[entry.symbol] += entry.count, total += entry.count;
  }
  // left_out: without one of the symbol's tokens.
  uint64_t share(size_t s, bool left_out = false) const noexcept {
    return 1 + uint64_t(static_cast<unsigned __int128>(whole()) * (counts[s] + 1 - left_out) / (total - left_out));
  }
  uint64_t whole() const noexcept { return 2 * uint64_t(counts.size()) << kCountBits; }
  std::vector<uint64_t> counts;
  uint64_t total;
};

// Puts contexts of like distributions into one class: each in turn moves to the class that codes its symbols with least
// bits, in which its own counts have no vote, until none moves (an exchange as of Martin, Liermann and Ney, 1998).
Classes cluster(std::span<const Entry> entries, size_t count, uint32_t contexts, uint32_t symbols) {
  const Prior prior(entries, symbols);
  struct Context {
    uint32_t name;
    uint64_t total;
    std::span<const Entry> entries;
  };
  std::vector<Context> order;
  for (size_t i = 0, next; i < entries.size(); i = next) {
    uint64_t total = 0;
    for (next = i; next < entries.size() && entries[next].context == entries[i].context;)
      total += entries[next++].count;
    order.push_back({entries[i].context, total, entries.subspan(i, next - i)});
  }
  std::ranges::stable_sort(order, [](const Context& a, const Context& b) { return a.total > b.total; });
  std::vector<uint8_t> class_of(contexts);
  std::vector<uint64_t> sums(count * symbols), totals(count), logs(count * symbols), total_logs(count);
  const uint64_t whole = prior.whole() + symbols;  // of the shares, which are rounded up
  std::vector<uint64_t> shares(symbols);
  for (uint32_t s = 0; s < symbols; ++s) shares[s] = prior.share(s);
  const auto refresh = [&](size_t c, uint32_t s) {
    logs[c * symbols + s] = log2_q16((sums[c * symbols + s] << kCountBits) + shares[s]);
  };
  const auto move = [&](const Context& context, size_t c, bool in) {
    for (const Entry& entry : context.entries) {
      sums[c * symbols + entry.symbol] += in ? entry.count : -entry.count;
      refresh(c, entry.symbol);
    }
    totals[c] += in ? context.total : -context.total;
    total_logs[c] = log2_q16((totals[c] << kCountBits) + whole);
  };
  for (size_t c = 0; c < count; ++c) {
    for (uint32_t s = 0; s < symbols; ++s) refresh(c, s);
    total_logs[c] = log2_q16(whole);
  }
  bool moved = true;
  for (size_t round = 0; round < kMostRounds && moved; ++round) {
    moved = false;
    for (size_t i = 0; i < order.size(); ++i) {
      const Context& context = order[i];
      const size_t from = class_of[context.name];
      if (round > 0) move(context, from, false);
      size_t best = 0;
      uint64_t least = ~uint64_t(0);
      for (size_t c = 0; c < count; ++c) {
        uint64_t cost = context.total * total_logs[c];
        for (const Entry& entry : context.entries) cost -= entry.count * logs[c * symbols + entry.symbol];
        if (round == 0 && i < count) cost = c != i;  // the most frequent ones found the classes
        if (cost < least) least = cost, best = c;
      }
      moved |= round == 0 || best != from;
      class_of[context.name] = uint8_t(best);
      move(context, best, true);
    }
  }
  class_of.back() = 0;  // where there is no token to have a class
  return classes_of(entries, count, std::move(class_of), symbols);
}

// The octave nearest to weight / 64 as a ratio: coarser levels, which cost less themselves.
size_t nearest_octave(uint64_t weight_q6) noexcept {
  const uint64_t capped = std::min(weight_q6, uint64_t(weight_of(kLevels - 2)) << 6);
  const int halves = int(std::bit_width(2 * capped * capped)) - 13;
  return halves < 2 ? 1 : size_t(halves) / 2 * 2;
}

// log2 of the levels' weights, in units of 2^-16; that of 0 is not asked for.
const std::array<uint64_t, kLevels> kWeightLogs = [] {
  std::array<uint64_t, kLevels> logs{};
  for (size_t level = 1; level < kLevels; ++level) logs[level] = log2_q16(weight_of(level));
  return logs;
}();

struct Levels {
  std::vector<uint8_t> levels;
  uint64_t cost;  // in units of 2^-16 bit
};

// Weights for tokens yet to come. The cost is that of the tokens, each by what the others say, so that tables which
// know too few of them do not look good.
Levels prior_levels(const Classes& classes, std::span<const Entry> entries, uint32_t symbols) {
  const Prior prior(entries, symbols);
  const bool one = classes.count == 1;
  Levels found{std::vector<uint8_t>(classes.sums.size()), 0};
  std::vector<uint64_t> weights(symbols);
  for (size_t at = 0; at < classes.sums.size(); at += symbols) {
    uint64_t most = 0, total = 0;
    for (size_t s = 0; s < symbols; ++s) {
      const uint64_t count = classes.sums[at + s];
      weights[s] = (one ? 0 : count << kCountBits) + prior.share(s);
      most = std::max(most, weights[s]), total += count;
      if (count) found.cost -= count * log2_q16((one ? 0 : (count - 1) << kCountBits) + prior.share(s, true));
    }
    if (total) found.cost += total * log2_q16((one ? 0 : (total - 1) << kCountBits) + prior.whole());
    for (size_t s = 0; s < symbols; ++s)
      found.levels[at + s] = uint8_t(
          nearest_level(uint64_t(static_cast<unsigned __int128>(weights[s]) * weight_of(kLevels - 1) * 64 / most)));
  }
  return found;
}

// Weights for these tokens alone: the unit and the step of the levels with which tokens and levels cost least. Most
// symbols share their count with others, so it is counts that are tried, not symbols.
Levels own_levels(const Classes& classes, uint32_t symbols) {
  struct Group {
    uint64_t count, symbols;
  };
  std::vector<std::vector<Group>> groups(classes.count);
  std::vector<uint64_t> sorted;
  uint64_t most = 0;
  for (size_t c = 0; c < classes.count; ++c) {
    sorted.clear();
    for (const uint64_t count : std::span(classes.sums).subspan(c * symbols, symbols))
      if (count) sorted.push_back(count);
    std::ranges::sort(sorted);
    if (sorted.size() < symbols) groups[c].push_back({0, symbols - sorted.size()});
    if (!sorted.empty()) most = std::max(most, sorted.back());
    for (size_t i = 0, next; i < sorted.size(); i = next) {
      for (next = i; next < sorted.size() && sorted[next] == sorted[i];) ++next;
      groups[c].push_back({sorted[i], next - i});
    }
  }
  const uint64_t least_unit = 1 + most / weight_of(kLevels - 1);
  size_t best_unit = 1;
  bool best_octaves = true;
  const auto level_of = [&](uint64_t count, size_t unit, bool octaves) {
    if (count == 0) return size_t(0);
    const uint64_t weight_q6 = (count << 6) / (least_unit * weight_of(unit));
    return octaves ? nearest_octave(weight_q6) : nearest_level(weight_q6);
  };
  Levels found{std::vector<uint8_t>(classes.sums.size()), ~uint64_t(0)};
  const auto offer = [&](size_t unit, bool octaves) {
    uint64_t cost = 0;
    std::array<uint64_t, kLevels> histogram{};
    for (const auto& own : groups) {
      uint64_t weights = 0, total = 0;
      for (const Group& group : own) {
        const size_t level = level_of(group.count, unit, octaves);
        histogram[level] += group.symbols, weights += group.symbols * weight_of(level);
        total += group.symbols * group.count, cost -= group.symbols * group.count * kWeightLogs[level];
      }
      if (total) cost += total * log2_q16(weights);
    }
    cost += entropy_q16(histogram);
    if (cost < found.cost) found.cost = cost, best_unit = unit, best_octaves = octaves;
  };
  for (size_t unit = 1; unit <= kMostUnits; ++unit) offer(unit, true), offer(unit, false);
  for (size_t i = 0; i < classes.sums.size(); ++i)
    found.levels[i] = uint8_t(level_of(classes.sums[i], best_unit, best_octaves));
  for (size_t c = 0; c < classes.count; ++c)
    if (groups[c].back().count == 0) found.levels[c * symbols] = 1;  // a class that never comes: any table will do
  return found;
}

void fit_repeats(const Sample& sample, std::vector<Book>& books, bool prior) {
  const size_t width = books.size();
  std::vector<std::array<std::array<uint64_t, 2>, kRepeatContexts>> counts(width);
  std::vector<bool> was(width);
  for (size_t t = 0; t < sample.starts.size(); ++t) {
    if (sample.starts[t]) {
      was.assign(width, false);
      continue;
    }
    bool first = true, second = true;
    for (size_t b = 0; b < width; ++b) {
      const bool repeats = sample.repeats(t, b);
      ++counts[b][repeat_context(was[b], second, first)][repeats];
      second = first, first = was[b] = repeats;
    }
  }
  for (size_t b = 0; b < width; ++b)
    for (size_t i = 0; i < kRepeatContexts; ++i) {
      const auto [not_so, so] = counts[b][i];
      uint64_t least = ~uint64_t(0);
      for (size_t level = 0; level < kRepeatLevels; ++level) {
        const uint64_t cost =
            (so + prior) * cost_q16(kRepeat[level], 256) + (not_so + prior) * cost_q16(256u - kRepeat[level], 256);
        if (cost < least) least = cost, books[b].repeat[i] = uint8_t(level);
      }
    }
}

void fit_tables(const Sample& sample, size_t b, bool prior, Book& book) {
  const uint32_t symbols = book.symbols();
  uint64_t least = 0;
  const auto offer = [&](Source source, std::span<const Entry> entries, Classes classes) {
    Levels levels = prior ? prior_levels(classes, entries, symbols) : own_levels(classes, symbols);
    classes.class_of.pop_back();
    const uint64_t cost = levels.cost + (classes.class_of.size() * kClassBits << 16);
    if (cost >= least) return;
    least = cost;
    book.source = source, book.classes = classes.count;
    book.class_of = std::move(classes.class_of), book.levels = std::move(levels.levels);
  };
  // Each book has its share of the weights that a model may have.
  const auto is_room = [&](size_t classes) { return classes * symbols * sample.books.size() <= kMostWeights; };
  const auto all = tally(sample, b, Source::one);
  for (const Entry& entry : all) least += entry.count * log2_q16(symbols);
  offer(Source::one, all, classes_of(all, 1, {0}, symbols));
  for (const Source source : {Source::frame, Source::book}) {
    if (source == Source::book && b == 0) continue;
    const uint32_t contexts = sample.books[source == Source::book ? b - 1 : b].symbols();
    if (contexts > kMostClasses && !prior) continue;  // in one stream, learned classes would cost more than they save
    const auto entries = tally(sample, b, source);
    if (contexts <= kMostClasses) {
      if (!is_room(contexts)) continue;
      std::vector<uint8_t> own(contexts + 1);
      std::iota(own.begin(), own.end() - 1, uint8_t(0));
      offer(source, entries, classes_of(entries, contexts, std::move(own), symbols));
    } else {
      for (size_t count = 2; count <= kMostClasses && is_room(count); count *= 2)
        offer(source, entries, cluster(entries, count, contexts + 1, symbols));
    }
  }
}

}  // namespace

Model fit(std::span<const uint16_t> tokens, std::span<const uint64_t> clip_frames, std::span<const uint32_t> sizes,
          size_t chunk_frames, bool prior) {
  const size_t width = sizes.size();
  TERSOR_REQUIRE(width >= 1 && width <= kMostBooks, Code::bad_call, width, " books, 1..64 are allowed");
  TERSOR_REQUIRE(chunk_frames >= 1 && chunk_frames <= kMostChunkFrames, Code::bad_call, "chunks of ", chunk_frames,
                 " frames, 1..65535 are allowed");
  std::vector<Book> books(width);
  for (size_t b = 0; b < width; ++b) {
    TERSOR_REQUIRE(sizes[b] >= 2 && sizes[b] <= kMostSize, Code::bad_call, "a book of ", sizes[b],
                   " tokens, 2..65536 are allowed");
    books[b].size = sizes[b];
  }
  std::vector<bool> starts;
  for (const uint64_t frames : clip_frames)
    for (uint64_t t = 0; t < frames && starts.size() <= tokens.size(); ++t) starts.push_back(t % chunk_frames == 0);
  TERSOR_REQUIRE(starts.size() * width == tokens.size(), Code::bad_call, tokens.size(),
                 " tokens are not the frames of ", clip_frames.size(), " clips of ", width, " books");
  check_tokens(tokens, books);
  const Sample sample{tokens, books, std::move(starts)};
  std::vector<Book> fitted(books);
  fit_repeats(sample, fitted, prior);
  for (size_t b = 0; b < width; ++b) fit_tables(sample, b, prior, fitted[b]);
  return Model(std::move(fitted), chunk_frames);
}

}  // namespace tersor::entropy::tokens
