#include "entropy/adaptive.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>

#include "core/bits.h"
#include "entropy/bit_io.h"

namespace tersor::entropy::adaptive {
namespace {

constexpr const char* kWhat = "adaptive stream";
constexpr uint8_t kStream = 6, kVersion = 1;  // core/ids.def
enum Kind : uint8_t { kRaw = 0, kOneLane = 1, kFourLanes = 2 };
constexpr size_t kBlockSymbols = size_t(1) << 16;
constexpr size_t kFourLanesFrom = 1024;  // nibbles: below, 12 bytes of states are more than they are worth
constexpr size_t kMostNibblesAtOnce = 4;
constexpr size_t kMostHead = 4 + 10;
constexpr int kPrecision = 15;
constexpr uint32_t kTotal = 1u << kPrecision, kLeastState = 1u << 16;
constexpr uint16_t kDitherStep = 40503;  // 2^16 / golden ratio

// gcc and clang make SSE2, NEON or plain code of these.
using Short8 = int16_t __attribute__((vector_size(16)));
using Word8 = uint16_t __attribute__((vector_size(16)));

// start[i]: of symbol i among 2^15 slots, ascending; start[0] is 0.
struct alignas(32) Row {
  int16_t start[16];
};

struct Lanes {  // of a row
  Short8 low, high;
};
constexpr Lanes kNumbers = {{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}};

// Ones in the lanes above each symbol.
constexpr std::array<Row, 16> kAbove = [] {
  std::array<Row, 16> rows{};
  for (int symbol = 0; symbol < 16; ++symbol)
    for (int i = 0; i < 16; ++i) rows[size_t(symbol)].start[i] = int16_t(i > symbol ? -1 : 0);
  return rows;
}();

Short8 load8(const int16_t* at) {
  Short8 lanes;
  std::memcpy(&lanes, at, sizeof lanes);
  return lanes;
}

// The number of lanes that are not set, less one: set ones are the upper ones.
inline uint32_t symbol_below(Short8 low, Short8 high) {
#if defined(__SSE2__)
  const int above = _mm_movemask_epi8(_mm_packs_epi16(__m128i(low), __m128i(high)));
  return uint32_t(std::countr_zero(uint32_t(above) | 1u << 16)) - 1;
#else
  const Short8 both = low + high;  // -1 for every lane set
  int set = 0;
  for (int i = 0; i < 8; ++i) set += both[i];
  return uint32_t(15 + set);
#endif
}

struct Part {  // of the slots: a symbol's
  uint16_t start, frequency;
};

Part part_of(const Row& row, uint32_t symbol) {
  const uint32_t start = uint16_t(row.start[symbol]), next = uint16_t(row.start[(symbol + 1) & 15]);
  return {uint16_t(start), uint16_t((next - start) & (kTotal - 1))};  // behind the last the next is 0, or 2^15
}

// Rows of probabilities and how they follow the nibbles. A row's steps are of 1/8, 1/16, ... as its age grows, down to
// 2^-rate. Each symbol keeps at least 2^(rate - 4) slots.
class Rows {
 public:
  Rows(size_t rows, int rate) : rows_(rows), ages_(rows, 8), rate_(rate) {
    for (Row& row : rows_)
      for (int i = 0; i < 16; ++i) row.start[i] = int16_t(i * (kTotal / 16));
  }

 private:
  template <bool kOneRow>
  friend class Follower;
  std::vector<Row> rows_;
  std::vector<uint16_t> ages_;  // 8..2^rate
  int rate_;
  Word8 dither_{};
};

// Works on rows with all that is not a row in registers, and with an only row there as well: from a store to the next
// load of it is the longest step of a nibble. keep() gives back what it holds.
template <bool kOneRow>
class Follower {
 public:
  explicit Follower(Rows& of)
      : of_(of), rows_(of.rows_.data()), ages_(of.ages_.data()), rate_(of.rate_), dither_(of.dither_) {
    const int16_t least = int16_t(1 << (rate_ - 4));
    least_ = {kNumbers.low * least, kNumbers.high * least};
    reach_ = int16_t(kTotal - 16u * uint32_t(least)) - Short8{};
    if (kOneRow) low_ = load8(rows_->start), high_ = load8(rows_->start + 8), age_ = *ages_;
  }
  void keep() {
    of_.dither_ = dither_;
    if (kOneRow) store(*rows_, low_, high_), *ages_ = uint16_t(age_);
  }

  // The part of a nibble that is coded in a row, which then moves toward it.
  Part code(size_t number, uint32_t nibble) {
    const Row& above = kAbove[nibble];
    take(number);
    const Part part = part_of(kOneRow ? seen_ : rows_[number], nibble);
    move(number, load8(above.start), load8(above.start + 8));
    return part;
  }

  // The nibble that has the slot, and its part.
  uint32_t find(size_t number, uint32_t slot, Part& part) {
    take(number);
    const Short8 above_low = low_ > int16_t(slot), above_high = high_ > int16_t(slot);
    const uint32_t nibble = symbol_below(above_low, above_high);
    part = part_of(kOneRow ? seen_ : rows_[number], nibble);
    move(number, above_low, above_high);
    return nibble;
  }

 private:
  static void store(Row& row, Short8 low, Short8 high) {
    std::memcpy(row.start, &low, sizeof low);
    std::memcpy(row.start + 8, &high, sizeof high);
  }
  void take(size_t number) {
    if (kOneRow)
      store(seen_, low_, high_);
    else
      low_ = load8(rows_[number].start), high_ = load8(rows_[number].start + 8), age_ = ages_[number];
  }
  // Toward 1 at the symbol: lanes above it to the end of the slots, the others to their beginning. What is shifted out
  // is rounded by a sequence that visits all fractions alike, so that probabilities below 2^-rate can be learned. No
  // lane overflows: start[i] >= i * least and 16 * least = 2^rate are why.
  __attribute__((always_inline)) void move(size_t number, Short8 above_low, Short8 above_high) {
    const int shift = 31 ^ __builtin_clz(age_);  // floor(log2(age))
    age_ += 1 - (age_ >> rate_);
    dither_ += kDitherStep;
    const Short8 part = Short8(dither_ >> (16 - shift));
    low_ += (part - low_ + least_.low + (above_low & reach_)) >> shift;
    high_ += (part - high_ + least_.high + (above_high & reach_)) >> shift;
    if (!kOneRow) store(rows_[number], low_, high_), ages_[number] = uint16_t(age_);
  }

  Rows& of_;
  Row* rows_;
  uint16_t* ages_;
  int rate_;
  Word8 dither_;
  Lanes least_;  // i * 2^(rate - 4)
  Short8 reach_, low_, high_;
  uint32_t age_;
  Row seen_;
};

// Which rows a symbol's nibbles take.
template <int kBits, int kOrder>
struct Layout {
  static constexpr size_t kNibbles = kBits / 4;
  static constexpr size_t kRows = (kBits == 4 ? 1 : 17) * (kOrder == 0 ? 1 : kBits == 4 ? 16 : 256);

  // nibble(row) codes one; returns the symbol of those it gave back.
  template <class F>
  __attribute__((always_inline)) static uint8_t symbol(uint8_t before, const F& nibble) {
    const size_t context = kOrder == 0 ? 0 : before;
    if constexpr (kBits == 4) return uint8_t(nibble(context, 0));
    const uint32_t high = nibble(context * 17, 0);
    return uint8_t(high << 4 | nibble(context * 17 + 1 + high, 1));
  }
};

size_t raw_bytes(size_t symbols, int bits) { return bits == 8 ? symbols : (symbols + 1) / 2; }

// f.operator()<bits, order>() of the model.
template <class F>
decltype(auto) with_layout(Model model, const F& f) {
  if (model.bits == 4) return model.order == 0 ? f.template operator()<4, 0>() : f.template operator()<4, 1>();
  return model.order == 0 ? f.template operator()<8, 0>() : f.template operator()<8, 1>();
}

// ---- encoding: the model runs forward, the states backward ----------------------------------------------------------

// Words go below `end`, the last first. Returns where they begin.
template <int kLanes>
uint16_t* encode_parts(std::span<const Part> parts, std::array<uint32_t, kLanes>& states, uint16_t* end) {
  const auto put = [&end](uint32_t& state, Part part) {
    const uint32_t frequency = part.frequency;
    const bool full = state >= frequency << (32 - kPrecision);
    end[-1] = uint16_t(state);  // without a branch: whether a word is due is a guess
    end -= full;
    const uint32_t x = full ? state >> 16 : state;
    state = (x / frequency << kPrecision) + x % frequency + part.start;
  };
  size_t i = parts.size();
  while (i % kLanes) --i, put(states[i % kLanes], parts[i]);
  auto held = states;  // never indexed by a variable: in registers
  while (i > 0) {
    i -= kLanes;
    for (int lane = kLanes - 1; lane >= 0; --lane) put(held[size_t(lane)], parts[i + size_t(lane)]);
  }
  states = held;
  return end;
}

template <int kLanes>
void write_coded(std::span<const Part> parts, std::span<uint16_t> room, std::vector<uint8_t>& out) {
  std::array<uint32_t, kLanes> states;
  states.fill(kLeastState);
  uint16_t* const end = room.data() + room.size();
  const uint16_t* const begin = encode_parts<kLanes>(parts, states, end);
  out.push_back(kLanes == 1 ? kOneLane : kFourLanes);
  put_varint(out, uint64_t(end - begin));
  const auto append = [&out](const void* from, size_t bytes) {
    const auto* const at = static_cast<const uint8_t*>(from);
    out.insert(out.end(), at, at + bytes);
  };
  append(states.data(), sizeof states);
  append(begin, size_t(end - begin) * sizeof *begin);
}

void write_raw(std::span<const uint8_t> symbols, int bits, std::vector<uint8_t>& out) {
  out.push_back(kRaw);
  if (bits == 8) return void(out.insert(out.end(), symbols.begin(), symbols.end()));
  for (size_t i = 0; i < symbols.size(); i += 2)
    out.push_back(uint8_t(symbols[i] | (i + 1 < symbols.size() ? symbols[i + 1] << 4 : 0)));
}

template <int kBits, int kOrder>
void encode_blocks(std::span<const uint8_t> symbols, int rate, std::vector<uint8_t>& out) {
  using Nibbles = Layout<kBits, kOrder>;
  Rows rows(Nibbles::kRows, rate);
  const size_t most = std::min(symbols.size(), kBlockSymbols) * Nibbles::kNibbles;
  std::vector<Part> parts(most);
  std::vector<uint16_t> words(most + 1);  // one more, for a word that is not due
  uint8_t before = 0;
  while (!symbols.empty()) {
    const auto block = symbols.first(std::min(symbols.size(), kBlockSymbols));
    symbols = symbols.subspan(block.size());
    const Rows untouched = rows;
    Follower<Nibbles::kRows == 1> follower(rows);
    size_t at = 0;
    for (const uint8_t symbol : block)
      before = Nibbles::symbol(before, [&](size_t row, size_t place) {
        const uint32_t nibble = kBits == 4 ? symbol : place == 0 ? symbol >> 4 : symbol & 15;
        parts[at++] = follower.code(row, nibble);
        return nibble;
      });
    follower.keep();
    const size_t begin = out.size();
    const std::span<const Part> coded(parts.data(), at);
    if (at < kFourLanesFrom)
      write_coded<1>(coded, words, out);
    else
      write_coded<4>(coded, words, out);
    if (out.size() - begin <= raw_bytes(block.size(), kBits)) continue;
    out.resize(begin);
    write_raw(block, kBits, out);
    rows = untouched;
  }
}

// ---- decoding -------------------------------------------------------------------------------------------------------

// Whether the words and states were those of so many symbols. words: kMostNibblesAtOnce more than `count`, all 0.
template <int kBits, int kOrder, int kLanes>
bool decode_coded(Rows& model, uint8_t& last, std::array<uint64_t, kLanes> states, const uint16_t* words, size_t count,
                  std::span<uint8_t> out) {
  using Nibbles = Layout<kBits, kOrder>;
  constexpr size_t kGroup = kLanes <= Nibbles::kNibbles ? 1 : kLanes / Nibbles::kNibbles;  // symbols
  static_assert(kGroup * Nibbles::kNibbles <= kMostNibblesAtOnce);
  Follower<Nibbles::kRows == 1> follower(model);
  const uint16_t* next = words;
  uint8_t before = last;
  const auto decode = [&](std::array<uint64_t, kLanes>& x, size_t symbol) {
    return Nibbles::symbol(before, [&](size_t row, size_t place) {
      uint64_t& state = x[(symbol * Nibbles::kNibbles + place) % kLanes];
      Part part;
      const uint32_t slot = uint32_t(state) % kTotal;
      const uint32_t nibble = follower.find(row, slot, part);
      const uint64_t moved = part.frequency * (state >> kPrecision) + slot - part.start;
      const uint64_t due = moved < kLeastState;  // a guess, so no branch
      state = moved + (((moved << 16 | *next) - moved) & (0 - due));
      next += due;
      return nibble;
    });
  };
  auto held = states;
  size_t i = 0;
  for (; i + kGroup <= out.size() && size_t(next - words) <= count; i += kGroup)
    for (size_t k = 0; k < kGroup; ++k) out[i + k] = before = decode(held, k);
  states = held;
  for (; i < out.size() && size_t(next - words) <= count; ++i) out[i] = before = decode(states, i % kGroup);
  last = before;
  follower.keep();
  return i == out.size() && size_t(next - words) == count &&
         std::ranges::count(states, uint64_t(kLeastState)) == std::ptrdiff_t(kLanes);
}

template <int kBits, int kOrder, int kLanes>
void read_coded(Rows& rows, uint8_t& before, std::span<const uint8_t>& data, std::vector<uint16_t>& words,
                std::span<uint8_t> out) {
  const uint64_t count = take_varint(data, kWhat);
  TERSOR_REQUIRE(count <= out.size() * (kBits / 4), Code::bad_data, kWhat, ": ", count, " words for ", out.size(),
                 " symbols of ", kBits, " bits");
  ByteReader reader(data, kWhat);
  std::array<uint64_t, kLanes> states;  // of 32 bits; in 64 gcc gives each a register of its own
  for (uint64_t& state : states) {
    state = reader.take<uint32_t>();
    TERSOR_REQUIRE(state >= kLeastState, Code::bad_data, kWhat, ": a state of ", state, ", at least 2^16 is needed");
  }
  const auto bytes = reader.take(2 * count);
  data = reader.take(reader.left());
  words.resize(size_t(count) + kMostNibblesAtOnce);  // so that no step looks whether there is a word
  if (count > 0) std::memcpy(words.data(), bytes.data(), bytes.size());
  std::fill(words.end() - kMostNibblesAtOnce, words.end(), uint16_t(0));
  const bool sound = decode_coded<kBits, kOrder, kLanes>(rows, before, states, words.data(), size_t(count), out);
  TERSOR_REQUIRE(sound, Code::bad_data, kWhat, ": a block's words and states do not end where its symbols do");
}

void read_raw(std::span<const uint8_t>& data, int bits, std::span<uint8_t> out) {
  ByteReader reader(data, kWhat);
  const auto raw = reader.take(raw_bytes(out.size(), bits));
  data = reader.take(reader.left());
  if (bits == 8) return void(std::copy(raw.begin(), raw.end(), out.begin()));
  TERSOR_REQUIRE(out.size() % 2 == 0 || raw.back() < 16, Code::bad_data, kWhat, ": a nibble too many");
  for (size_t i = 0; i < out.size(); ++i) out[i] = raw[i / 2] >> (i % 2 * 4) & 15;
}

template <int kBits, int kOrder>
void decode_blocks(std::span<const uint8_t> data, int rate, std::span<uint8_t> out) {
  Rows rows(Layout<kBits, kOrder>::kRows, rate);
  std::vector<uint16_t> words;
  uint8_t before = 0;
  while (!out.empty()) {
    const auto block = out.first(std::min(out.size(), kBlockSymbols));
    out = out.subspan(block.size());
    const uint8_t kind = ByteReader(data, kWhat).take<uint8_t>();
    data = data.subspan(1);
    TERSOR_REQUIRE(kind <= kFourLanes, Code::bad_data, kWhat, ": a block of kind ", int(kind), ", 0..2 are known");
    if (kind == kRaw)
      read_raw(data, kBits, block), before = block.back();
    else if (kind == kOneLane)
      read_coded<kBits, kOrder, 1>(rows, before, data, words, block);
    else
      read_coded<kBits, kOrder, 4>(rows, before, data, words, block);
  }
  TERSOR_REQUIRE(data.empty(), Code::bad_data, kWhat, ": ", data.size(), " bytes too many");
}

struct Head {
  Model model;
  uint64_t symbols;
  std::span<const uint8_t> rest;
};

Head read_head(std::span<const uint8_t> data) {
  ByteReader reader(data, kWhat);
  take_stream(reader, kStream, kVersion, kWhat);
  const uint8_t flags = reader.take<uint8_t>(), rate = reader.take<uint8_t>();
  TERSOR_REQUIRE(flags < 4, Code::bad_data, kWhat, ": flags ", int(flags), ", 0..3 are known");
  TERSOR_REQUIRE(rate >= kLeastRate && rate <= kMostRate, Code::bad_data, kWhat, ": a rate of ", int(rate),
                 ", 4..9 are allowed");
  Head head{{flags & 1 ? 4 : 8, flags >> 1, rate}, 0, reader.take(reader.left())};
  head.symbols = take_varint(head.rest, kWhat);
  // A block has a kind and a byte at least: a claim beyond that is a lie, told before anything is allocated.
  TERSOR_REQUIRE(ceil_div(head.symbols, kBlockSymbols) <= head.rest.size() / 2, Code::bad_data, kWhat, ": ",
                 head.symbols, " symbols claimed by ", head.rest.size(), " bytes");
  return head;
}

}  // namespace

size_t encode_bound(size_t symbols) noexcept { return kMostHead + symbols + size_t(ceil_div(symbols, kBlockSymbols)); }

std::vector<uint8_t> encode(std::span<const uint8_t> symbols, Model model) {
  TERSOR_REQUIRE(model.bits == 4 || model.bits == 8, Code::bad_call, "symbols of ", model.bits,
                 " bits, 4 or 8 are allowed");
  TERSOR_REQUIRE(model.order == 0 || model.order == 1, Code::bad_call, "a model of order ", model.order,
                 ", 0 or 1 are allowed");
  TERSOR_REQUIRE(model.rate >= kLeastRate && model.rate <= kMostRate, Code::bad_call, "a rate of ", model.rate,
                 ", 4..9 are allowed");
  uint8_t seen = 0;
  for (const uint8_t symbol : symbols) seen |= symbol;
  TERSOR_REQUIRE(model.bits == 8 || seen < 16, Code::bad_call, "a symbol of 16 or above where symbols have 4 bits");
  std::vector<uint8_t> out = {kStream, kVersion, uint8_t((model.bits == 4) | model.order << 1), uint8_t(model.rate)};
  put_varint(out, symbols.size());
  with_layout(model, [&]<int kBits, int kOrder>() { encode_blocks<kBits, kOrder>(symbols, model.rate, out); });
  return out;
}

uint64_t decoded_size(std::span<const uint8_t> data) { return read_head(data).symbols; }

void decode(std::span<const uint8_t> data, std::span<uint8_t> out) {
  const Head head = read_head(data);
  TERSOR_REQUIRE(head.symbols == out.size(), Code::bad_call, "the stream holds ", head.symbols, " symbols, the buffer ",
                 out.size());
  with_layout(head.model,
              [&]<int kBits, int kOrder>() { decode_blocks<kBits, kOrder>(head.rest, head.model.rate, out); });
}

}  // namespace tersor::entropy::adaptive
