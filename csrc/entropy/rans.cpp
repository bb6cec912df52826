#include "entropy/rans.h"

#include <algorithm>

#include "core/arena.h"
#include "core/bits.h"
#include "core/isa.h"
#include "entropy/bit_io.h"

namespace tersor::entropy {
namespace {

constexpr Variant<DecodeRows> kDecodeRows[] = {
    {Isa::scalar, decode_rows_scalar},
    TERSOR_X86({Isa::avx2, decode_rows_avx2}, {Isa::avx512, decode_rows_avx512},
               {Isa::avx512vbmi, decode_rows_avx512vbmi}, )};
constexpr Variant<EncodeRows> kEncodeRows[] = {
    {Isa::scalar, encode_rows_scalar}, TERSOR_X86({Isa::avx2, encode_rows_avx2}, {Isa::avx512, encode_rows_avx512}, )};

constexpr LaneControls make_lane_controls() {
  LaneControls controls{};
  for (int bits = 0; bits < 256; ++bits)
    for (int lane = 0, word = 0; lane < 8; ++lane) {
      controls.expand[bits][2 * lane] = uint8_t(2 * word);
      controls.expand[bits][2 * lane + 1] = uint8_t(2 * word + 1);
      controls.fill[255 - bits][2 * lane] = uint8_t(2 * word);
      controls.fill[255 - bits][2 * lane + 1] = uint8_t(2 * word + 1);
      if (!(bits >> lane & 1)) continue;
      controls.compress[bits][2 * word] = uint8_t(2 * lane);
      controls.compress[bits][2 * word + 1] = uint8_t(2 * lane + 1);
      ++word;
    }
  return controls;
}

// A state costs about one byte more than it carries, so lanes are given by length: twice as many to blocks that stand
// beside larger parts.
int groups_for(size_t symbols, Lanes lanes) noexcept {
  const bool many = lanes == Lanes::many;
  if (symbols < 4096) return 0;
  if (symbols < (many ? 32 : 80) << 10) return 1;
  if (symbols < (many ? 64 : 128) << 10) return 2;
  return lanes == Lanes::half || symbols < (many ? 128 : 256) << 10 ? 4 : 8;
}

int narrow_lanes_for(size_t symbols) noexcept { return symbols == 0 ? 0 : symbols < 512 ? 1 : kMostNarrow; }

constexpr size_t kMostTailRows = 16;  // the tail is scalar work: at low entropy it would grow without gain

}  // namespace

constinit const LaneControls kLaneControls = make_lane_controls();

void encode_block(std::span<const Run> runs, const uint8_t* symbols, ByteWriter& out, Lanes lanes_wanted) {
  size_t n = 0;
  for (const Run& run : runs) n += run.symbols;
  ScratchFrame frame;
  const int groups = groups_for(n, lanes_wanted);
  const size_t lanes = size_t(groups) * kGroupLanes;
  const Run& last = runs.back();

  // The narrow coder takes the end of the block: what does not fill a row, then whole rows as long as its words fit
  // into the low halves of the wide coder's start states, which would carry nothing otherwise.
  size_t tail = groups ? n % lanes : n;
  const size_t most_tail = groups ? std::min(last.symbols, tail + kMostTailRows * lanes) : n;
  const auto narrow_words = frame.take<uint16_t>(most_tail + 1);
  NarrowStates narrow;
  int narrow_lanes = 0;
  uint16_t* narrow_end = nullptr;
  const auto encode_tail = [&](size_t count) {
    narrow_lanes = narrow_lanes_for(count);
    for (uint32_t& x : narrow.x) x = kSlots;
    return encode_narrow(*last.tables, narrow, narrow_lanes, 0, symbols + n - count, count, narrow_words.data());
  };
  narrow_end = encode_tail(tail);
  if (groups) {
    // One pass with all lanes finds how far the words go; the states do not depend on what follows.
    NarrowStates probe;
    for (uint32_t& x : probe.x) x = kSlots;
    const uint16_t* const full = narrow_words.data() + lanes;
    size_t coded = 0, fits = tail;
    uint16_t* at = narrow_words.data();
    for (size_t count = tail; count <= most_tail; count += lanes) {
      at = encode_narrow(*last.tables, probe, kMostNarrow, coded, symbols + n - count, count - coded, at);
      coded = count;
      if (at > full) break;
      fits = count;
    }
    tail = fits;
    narrow_end = encode_tail(tail);
  }

  const size_t rows = groups ? (n - tail) / lanes : 0;
  EncodeStates states;
  const size_t narrow_count = size_t(narrow_end - narrow_words.data());
  size_t region = 0;
  std::span<uint16_t> words;
  if (groups) {
    region = rows * kGroupLanes + 32;
    words = frame.take<uint16_t>(region * size_t(groups));
    for (size_t lane = 0; lane < lanes; ++lane)
      states.x[lane] = kSlots | (lane < narrow_count ? narrow_words[lane] : 0u);
    for (int g = 0; g < groups; ++g) states.words[g] = words.data() + size_t(g) * region;
    size_t end = n - tail;
    for (size_t r = runs.size(); r-- > 0;) {
      const size_t begin = r + 1 == runs.size() ? n - last.symbols : end - runs[r].symbols;
      pick(kEncodeRows)(*runs[r].tables, states, groups, (end - begin) / lanes, symbols + begin);
      end = begin;
    }
  }

  out.put(uint8_t(groups));
  put_varint(out, tail);
  put_varint(out, narrow_count);
  out.append(narrow.x, 4 * size_t(narrow_lanes));
  if (narrow_count > lanes) out.append(narrow_words.data() + lanes, 2 * (narrow_count - lanes));
  if (groups == 0) return;
  for (int g = 0; g < groups; ++g) put_varint(out, size_t(states.words[g] - (words.data() + size_t(g) * region)));
  uint16_t half[kMostLanes];
  for (size_t lane = 0; lane < lanes; ++lane) half[lane] = uint16_t(states.x[lane]);
  out.append(half, 2 * lanes);
  for (int g = 0; g < groups; ++g) {
    const uint16_t* begin = words.data() + size_t(g) * region;
    out.append(begin, 2 * size_t(states.words[g] - begin));
  }
  for (size_t lane = 0; lane < lanes; ++lane) half[lane] = uint16_t(states.x[lane] >> 16);
  out.append(half, 2 * lanes);
}

BlockDecoder::BlockDecoder(std::span<const uint8_t> block, uint64_t symbols) {
  static constexpr const char* kWhat = "rans block";
  TERSOR_REQUIRE(!block.empty(), Code::bad_data, kWhat, ": 0 bytes, at least 3 are needed");
  groups_ = block[0];
  TERSOR_REQUIRE(groups_ == 0 || groups_ == 1 || groups_ == 2 || groups_ == 4 || groups_ == 8, Code::bad_data, kWhat,
                 ": ", groups_, " lane groups, 0, 1, 2, 4 or 8 are allowed");
  block = block.subspan(1);
  const size_t lanes = size_t(groups_) * kGroupLanes;
  const uint64_t tail = take_varint(block, kWhat), words = take_varint(block, kWhat);
  TERSOR_REQUIRE(tail <= symbols && (groups_ ? (symbols - tail) % lanes == 0 : tail == symbols), Code::bad_data, kWhat,
                 ": a tail of ", tail, " does not leave whole rows of ", lanes, " in ", symbols, " symbols");
  TERSOR_REQUIRE(words <= tail, Code::bad_data, kWhat, ": ", words, " words for a tail of ", tail, " symbols");
  tail_ = size_t(tail), narrow_words_ = size_t(words);
  rows_ = groups_ ? size_t(symbols - tail) / lanes : 0;
  narrow_lanes_ = narrow_lanes_for(tail_);
  ByteReader reader(block, kWhat);
  for (int lane = 0; lane < narrow_lanes_; ++lane) {
    narrow_.x[lane] = reader.take<uint32_t>();
    TERSOR_REQUIRE(narrow_.x[lane] >= kSlots, Code::bad_data, kWhat, ": a state of ", narrow_.x[lane],
                   ", at least 65536 is needed");
  }
  extra_ = reader.take(narrow_words_ > lanes ? 2 * (narrow_words_ - lanes) : 0);
  if (groups_ == 0) {
    TERSOR_REQUIRE(reader.left() == 0, Code::bad_data, kWhat, ": ", reader.left(), " bytes too many");
    end_rows();
    return;
  }
  block = reader.take(reader.left());
  uint64_t counts[kMostGroups], sum = 0;
  for (int g = 0; g < groups_; ++g) {
    counts[g] = take_varint(block, kWhat);
    TERSOR_REQUIRE(counts[g] <= uint64_t(rows_) * kGroupLanes, Code::bad_data, kWhat, ": ", counts[g], " words for ",
                   rows_, " rows of 32");
    sum += counts[g];
  }
  TERSOR_REQUIRE(block.size() == 4 * lanes + 2 * sum, Code::bad_data, kWhat, ": ", block.size(),
                 " bytes of words and states, ", 4 * lanes + 2 * sum, " are needed");
  const uint8_t* const low = block.data();
  const uint8_t* at = low + 2 * lanes;
  floor_ = at;
  for (int g = 0; g < groups_; ++g) {
    begin_[g] = at;
    at += 2 * counts[g];
    states_.words[g] = at;
  }
  for (size_t lane = 0; lane < lanes; ++lane) {
    states_.low[lane] = load_le<uint16_t>(low + 2 * lane);
    states_.high[lane] = load_le<uint16_t>(at + 2 * lane);
    TERSOR_REQUIRE(states_.high[lane] != 0, Code::bad_data, kWhat, ": the state of lane ", lane, " is below 65536");
  }
  if (rows_ == 0) end_rows();
}

void BlockDecoder::end_rows() {
  const size_t lanes = size_t(groups_) * kGroupLanes, in_states = std::min(narrow_words_, lanes);
  for (int g = 0; g < groups_; ++g)
    TERSOR_REQUIRE(states_.words[g] == begin_[g], Code::bad_data, "rans block: group ", g, " ended ",
                   states_.words[g] - begin_[g], " bytes from its first word");
  for (size_t lane = 0; lane < lanes; ++lane)
    TERSOR_REQUIRE(states_.high[lane] == 1 && (lane < in_states || states_.low[lane] == 0), Code::bad_data,
                   "rans block: lane ", lane, " did not come back to its start");
  // Two bytes below the floor are read and not used.
  narrow_bytes_.resize(2);
  const auto* low = reinterpret_cast<const uint8_t*>(states_.low);
  narrow_bytes_.insert(narrow_bytes_.end(), low, low + 2 * in_states);
  narrow_bytes_.insert(narrow_bytes_.end(), extra_.begin(), extra_.end());
  narrow_floor_ = narrow_bytes_.data() + 2;
  narrow_at_ = narrow_bytes_.data() + narrow_bytes_.size();
}

void BlockDecoder::read(const DecodeTables& tables, std::span<uint8_t> out) {
  const size_t lanes = size_t(groups_) * kGroupLanes;
  if (rows_ > 0) {
    const size_t rows = std::min(rows_, out.size() / lanes);
    TERSOR_REQUIRE(pick(kDecodeRows)(tables, states_, groups_, floor_, rows, out.data()), Code::bad_data,
                   "rans block: more words are read than there are");
    out = out.subspan(rows * lanes);
    rows_ -= rows;
    if (rows_ == 0) end_rows();
  }
  TERSOR_REQUIRE(out.empty() || (rows_ == 0 && out.size() <= tail_), Code::bad_data, "rans block: ", out.size(),
                 " symbols more than it holds");
  if (out.empty()) return;
  narrow_at_ = decode_narrow(tables, narrow_, narrow_lanes_, tail_, out.data(), out.size(), narrow_at_, narrow_floor_);
  TERSOR_REQUIRE(narrow_at_, Code::bad_data, "rans block: more words are read than there are");
  tail_ -= out.size();
}

void BlockDecoder::finish() const {
  TERSOR_REQUIRE(rows_ == 0 && tail_ == 0, Code::bad_data,
                 "rans block: ", rows_ * size_t(groups_) * kGroupLanes + tail_, " symbols are left");
  TERSOR_REQUIRE(narrow_at_ == narrow_floor_, Code::bad_data, "rans block: ", narrow_at_ - narrow_floor_,
                 " bytes of words are left");
  for (int lane = 0; lane < narrow_lanes_; ++lane)
    TERSOR_REQUIRE(narrow_.x[lane] == kSlots, Code::bad_data, "rans block: narrow lane ", lane,
                   " did not come back to its start");
}

}  // namespace tersor::entropy
