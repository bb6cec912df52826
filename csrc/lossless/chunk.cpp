#include "lossless/chunk.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "core/arena.h"
#include "core/bits.h"
#include "entropy/bit_io.h"
#include "lossless/numbers.h"
#include "lossless/plane.h"
#include "lossless/records.h"
#include "lossless/word_choice.h"
#include "transform/float_split.h"

namespace tersor::lossless {
namespace {

using transform::FloatSplit;
constexpr const char* kWhat = "lossless chunk";
enum Cut : uint8_t { kNames = 0, kKeys = 1 };  // how 16-bit words are cut

// What a level tries. Rates and speeds of each: docs/formats/lossless.md, from bench/results.
struct LevelRow {
  int extra_bits;  // mantissa bits modeled with the exponent
  bool all_cuts;   // try fewer bits too and keep the smallest
  PlaneOptions names, bytes;
};
constexpr LevelRow kLevels[] = {
    {0, false, {1 << 20, 13, 0, 8}, {1 << 20, 12, 500}},              // 1
    {0, false, {131072, 14, 0, 4}, {1 << 20, 13, 300}},               // 2
    {1, false, {1 << 20, 13, 0, 8}, {1 << 20, 13, 200}},              // 3
    {1, false, {65536, 14, 0, 8}, {1 << 18, 13, 200}},                // 4
    {1, false, {32768, 14, 0, 1}, {65536, 14, 100}},                  // 5
    {2, false, {65536, 14, 0, 1}, {65536, 14, 50}},                   // 6
    {2, false, {32768, 15, 0, 1, false}, {65536, 14, 20, 1, false}},  // 7
    {2, false, {16384, 15, 0, 1, false}, {32768, 14, 5, 1, false}},   // 8
    {2, true, {16384, 15, 0, 1, false}, {16384, 14, 0, 1, false}},    // 9
};

size_t bytes_of(Element element) noexcept {
  switch (element) {
    case Element::bf16:
    case Element::fp16:
    case Element::int16: return 2;
    case Element::fp32:
    case Element::int32: return 4;
    case Element::int64:
    case Element::fp64: return 8;
    default: return 1;
  }
}

// Words of raw bytes, which need not be aligned; they are only handed on, never read as words here.
template <class Word>
std::span<const Word> words_of(std::span<const uint8_t> raw) noexcept {
  return {reinterpret_cast<const Word*>(raw.data()), raw.size() / sizeof(Word)};
}

// The window of keys that holds most of a sample of the words, and the most frequent key outside.
// held_share: how many of 10,000 keys have a name of their own.
FloatSplit choose_split(std::span<const uint16_t> words, int extra_bits, int& held_share) {
  constexpr size_t kRun = 32, kMostSamples = 4096;
  const size_t keys = size_t(256) << extra_bits;
  uint32_t counts[1024] = {}, total = 0;
  // A run in each `sparsity`, at distances that vary: rows would be met at the same columns.
  const size_t sparsity = std::max<size_t>(1, words.size() / kMostSamples), step = sparsity * kRun;
  for (size_t period = 0, run = 0; period < words.size(); period += step, ++run) {
    const size_t at = std::min(period + (run * 0x9E3779B1u >> 16) % sparsity * kRun, words.size() - 1);
    for (size_t i = at; i < std::min(at + kRun, words.size()); ++i, ++total) {
      uint16_t word;
      std::memcpy(&word, words.data() + i, 2);
      ++counts[(word & 0x7fff) >> (7 - extra_bits)];
    }
  }
  uint32_t held = 0, best = 0;
  size_t window = 0;
  for (size_t key = 0; key < keys; ++key) {
    held += counts[key];
    if (key >= size_t(transform::kWindow)) held -= counts[key - transform::kWindow];
    if (held > best) best = held, window = key + 1 > size_t(transform::kWindow) ? key + 1 - transform::kWindow : 0;
  }
  FloatSplit split{extra_bits, uint16_t(window), FloatSplit::kNoKey};
  uint32_t most = 0;
  for (size_t key = 0; key < keys; ++key)
    if ((key < window || key >= window + transform::kWindow) && counts[key] > most)
      most = counts[key], split.special = uint16_t(key);
  held_share = int(uint64_t(best + most) * 10000 / total);
  return split;
}

void encode_names(std::span<const uint16_t> words, const FloatSplit& split, const LevelRow& level, ByteWriter& out) {
  ScratchFrame frame;
  const size_t n = words.size();
  const auto names = frame.bytes(n), rest = frame.bytes(n);
  const auto escaped = frame.take<uint16_t>(n + 32);
  const size_t escapes = split_words(split, words, names.data(), rest.data(), escaped.data());
  out.put(uint8_t(kNames)), out.put(uint8_t(split.extra_bits));
  out.put(split.window), out.put(split.special);
  encode_plane(names, 32, level.names, out);
  entropy::put_varint(out, escapes);
  if (escapes) {
    const auto low = frame.bytes(escapes), high = frame.bytes(escapes);
    for (size_t i = 0; i < escapes; ++i) low[i] = uint8_t(escaped[i]), high[i] = uint8_t(escaped[i] >> 8);
    encode_plane(low, 256, PlaneOptions{}, out);
    encode_plane(high, 256, PlaneOptions{}, out);
  }
  // The rest is coded where that helps, else packed without holes.
  const size_t packed = transform::packed_bytes(split.extra_bits, n);
  const ByteWriter before = out;
  out.put(uint8_t(1));
  if (encode_plane_below(rest, 256, level.bytes, packed, out)) return;
  out = before;
  out.put(uint8_t(0));
  const auto room = out.take(packed);
  if (!room.empty()) transform::pack_rest(split.extra_bits, rest, room.data());
}

void encode_keys(std::span<const uint16_t> words, const LevelRow& level, ByteWriter& out) {
  ScratchFrame frame;
  const auto keys = frame.bytes(words.size()), rest = frame.bytes(words.size());
  transform::split_keys(words, keys.data(), rest.data());
  out.put(uint8_t(kKeys));
  PlaneOptions options = level.names;
  options.stride = 1, options.least_saving = level.bytes.least_saving;
  encode_plane(keys, 256, options, out);
  encode_plane(rest, 256, level.bytes, out);
}

// 16-bit words: the upper halves of fp32 too. Escapes cost bits and time: a level that does not try everything takes
// the most detail that keeps them rare, else whole keys.
void encode_words(std::span<const uint16_t> words, bool wide_keys, const LevelRow& level, ByteWriter& out) {
  if (!level.all_cuts && !wide_keys) {
    for (int extra = level.extra_bits; extra >= 0; --extra) {
      int held = 0;
      const FloatSplit split = choose_split(words, extra, held);
      if (held >= (extra == 2 ? 9600 : 9900)) return encode_names(words, split, level, out);
    }
    return encode_keys(words, level, out);
  }
  ScratchFrame frame;
  const auto room = frame.bytes(out.left()), other = frame.bytes(out.left());
  ByteWriter best(room), trial(other);
  encode_keys(words, level, best);
  for (int extra = level.all_cuts ? level.extra_bits : 0; extra >= 0; --extra) {
    int held = 0;
    const FloatSplit split = choose_split(words, extra, held);
    if (!level.all_cuts && held < 9900) continue;
    encode_names(words, split, level, trial);
    if (!trial.full() && (best.full() || trial.size() < best.size())) std::swap(best, trial);
    trial.clear();
  }
  out.append(best.written());
  if (best.full()) out.take(out.left() + 1);  // no cut fits: neither will the chunk
}

// Reads words tile by tile.
class WordDecoder {
 public:
  WordDecoder(std::span<const uint8_t>& data, size_t words, ScratchFrame& frame) {
    ByteReader reader(data, kWhat);
    cut_ = reader.take<uint8_t>();
    TERSOR_REQUIRE(cut_ <= kKeys, Code::bad_data, kWhat, ": cut ", int(cut_), ", 0 and 1 are known");
    names_scratch_ = frame.bytes(kTile), rest_scratch_ = frame.bytes(kTile);
    if (cut_ == kKeys) {
      std::span<const uint8_t> rest = reader.take(reader.left());
      first_.emplace(rest, words, 256);
      rest_.emplace(rest, words, 256);
      data = rest;
      return;
    }
    split_.extra_bits = reader.take<uint8_t>();
    TERSOR_REQUIRE(split_.extra_bits <= transform::kMostExtraBits, Code::bad_data, kWhat, ": ", split_.extra_bits,
                   " extra bits, at most 2 are known");
    split_.window = reader.take<uint16_t>(), split_.special = reader.take<uint16_t>();
    std::span<const uint8_t> rest = reader.take(reader.left());
    first_.emplace(rest, words, 32);
    const uint64_t escapes = entropy::take_varint(rest, kWhat);
    TERSOR_REQUIRE(escapes <= words, Code::bad_data, kWhat, ": ", escapes, " escapes in ", words, " words");
    if (escapes) {
      const auto escaped = frame.take<uint16_t>(size_t(escapes));
      const auto low = frame.bytes(size_t(escapes)), high = frame.bytes(size_t(escapes));
      const uint8_t* bytes[2];
      for (int i = 0; i < 2; ++i) {
        PlaneDecoder plane(rest, size_t(escapes), 256);
        bytes[i] = plane.next(size_t(escapes), (i ? high : low).data());
        plane.finish();
      }
      for (size_t i = 0; i < escaped.size(); ++i) escaped[i] = uint16_t(bytes[0][i] | bytes[1][i] << 8);
      escaped_ = escaped;
    }
    ByteReader tail(rest, kWhat);
    const uint8_t coded = tail.take<uint8_t>();
    TERSOR_REQUIRE(coded <= 1, Code::bad_data, kWhat, ": the rest's kind is ", int(coded), ", 0 and 1 are known");
    if (coded) {
      rest = tail.take(tail.left());
      rest_.emplace(rest, words, 256);
      data = rest;
    } else {
      packed_ = tail.take(transform::packed_bytes(split_.extra_bits, words));
      data = tail.take(tail.left());
    }
  }

  // A tile of kTile words, or what is left.
  void next(std::span<uint16_t> words) {
    const uint8_t* first = first_->next(words.size(), names_scratch_.data());
    const uint8_t* rest;
    if (rest_) {
      rest = rest_->next(words.size(), rest_scratch_.data());
    } else if (split_.extra_bits == 0) {
      rest = packed_.data();
      packed_ = packed_.subspan(words.size());
    } else {
      transform::unpack_rest(split_.extra_bits, packed_.data(), rest_scratch_.first(words.size()));
      packed_ = packed_.subspan(transform::packed_bytes(split_.extra_bits, words.size()));
      rest = rest_scratch_.data();
    }
    if (cut_ == kKeys) return transform::merge_keys(first, rest, words);
    TERSOR_REQUIRE(transform::merge_words(split_, first, rest, words, escaped_), Code::bad_data, kWhat,
                   ": more escapes than are stored");
  }
  void finish() const {
    first_->finish();
    if (rest_) rest_->finish();
    TERSOR_REQUIRE(escaped_.empty(), Code::bad_data, kWhat, ": ", escaped_.size(), " escapes are left");
  }

 private:
  uint8_t cut_;
  FloatSplit split_{};
  std::optional<PlaneDecoder> first_, rest_;  // names or keys; the rest where it is a plane
  std::span<const uint8_t> packed_;
  std::span<const uint16_t> escaped_;
  std::span<uint8_t> names_scratch_, rest_scratch_;
};
static_assert(kTile % transform::kPackBlock == 0);

bool constant(std::span<const uint8_t> raw, size_t width) noexcept {
  return raw.size() % width == 0 && std::memcmp(raw.data(), raw.data() + width, raw.size() - width) == 0;
}

// Planes of bits or bytes, as the element has them.
void encode_planes(Element element, std::span<const uint8_t> raw, const LevelRow& row, ByteWriter& out) {
  if (element == Element::bf16 || element == Element::fp16) {
    out.put(uint8_t(kFloat16));
    encode_words(words_of<uint16_t>(raw), element == Element::fp16, row, out);
  } else if (element == Element::fp32) {
    ScratchFrame frame;
    const auto words = words_of<uint32_t>(raw);
    const auto upper = frame.take<uint16_t>(words.size());
    const auto byte1 = frame.bytes(words.size()), byte0 = frame.bytes(words.size());
    transform::split32(words, upper.data(), byte1.data(), byte0.data());
    out.put(uint8_t(kFloat32));
    encode_words(upper, false, row, out);
    encode_plane(byte1, 256, row.bytes, out);
    encode_plane(byte0, 256, row.bytes, out);
  } else {
    out.put(uint8_t(kBytes));
    encode_plane(raw, 256, row.bytes, out);
  }
}

// A chunk that may hold parts down to a depth, or a part itself.
size_t encode_any(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded, int depth) {
  const LevelRow& row = kLevels[level - 1];
  size_t width = bytes_of(element);
  if (raw.size() % width) element = Element::bytes, width = 1;
  ByteWriter out(coded.first(raw.size()));  // what does not fit there is stored
  const bool small_float = element == Element::bf16 || element == Element::fp16 || element == Element::fp32;
  if (raw.size() > width && constant(raw, width)) {
    while (width > 1 && constant(raw.first(width), width / 2)) width /= 2;
    out.put(uint8_t(kConstant)), out.put(uint8_t(width));
    out.append(raw.first(width));
  } else {
    const NumbersOptions options{level, row.bytes, element, small_float || element == Element::fp64, depth};
    const auto as_numbers = [&](size_t rival) {
      ScratchFrame frame;
      ByteWriter numbers(frame.bytes(rival));
      const bool cheaper = encode_numbers(raw, width, options, rival, encode_any, numbers);
      if (cheaper) out.clear(), out.append(numbers.written());
      return cheaper;
    };
    if (element == Element::bytes) {
      encode_planes(element, raw, row, out);
    } else if (!small_float) {
      if (!as_numbers(raw.size())) out.take(raw.size() + 1);
    } else if (!(depth > 0 && level < 7 && has_decimals(raw, width) && as_numbers(raw.size()))) {
      encode_planes(element, raw, row, out);
      if (depth > 0 && has_pattern(raw, width)) as_numbers(out.full() ? raw.size() : out.size());
    }
  }
  if (!out.full()) return out.size();
  coded[0] = kStored;
  std::memcpy(coded.data() + 1, raw.data(), raw.size());
  return raw.size() + 1;
}

}  // namespace

Element element_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::BF16: return Element::bf16;
    case DType::F16: return Element::fp16;
    case DType::F32:
    case DType::C64: return Element::fp32;
    case DType::BOOL:
    case DType::U8:
    case DType::I8: return Element::int8;
    case DType::U16:
    case DType::I16: return Element::int16;
    case DType::U32:
    case DType::I32: return Element::int32;
    case DType::U64:
    case DType::I64: return Element::int64;
    case DType::F64: return Element::fp64;
    default: return Element::bytes;
  }
}

size_t Layout::record_bytes() const noexcept {
  size_t sum = 0;
  for (const Field& field : record) sum += field.bytes;
  return sum;
}

size_t chunk_bound(size_t raw_bytes) noexcept { return raw_bytes + 1; }

namespace {

size_t encode_elements(Element element, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded) {
  return encode_any(element, raw, level, coded, kMostDepth - 1);
}

}  // namespace

size_t encode_chunk(const Layout& layout, std::span<const uint8_t> raw, int level, std::span<uint8_t> coded) {
  TERSOR_REQUIRE(level >= kLeastLevel && level <= kMostLevel, Code::bad_call, "level is in 1..9, not ", level);
  TERSOR_REQUIRE(!raw.empty() && raw.size() <= kChunkBytes, Code::bad_call, "a chunk has 1..", kChunkBytes,
                 " bytes, not ", raw.size());
  TERSOR_REQUIRE(coded.size() >= chunk_bound(raw.size()), Code::bad_call, "a buffer of ", coded.size(), " bytes for ",
                 chunk_bound(raw.size()));
  if (layout.record.empty() && layout.element == Element::bytes) {
    if (const auto words = choose_words(raw, encode_elements)) {
      if (words->begin == 0 && raw.size() % words->word.bytes == 0)
        return encode_elements(words->word.element, raw, level, coded);
      return encode_chunk(Layout({&words->word, 1}, words->word.bytes - words->begin), raw, level, coded);
    }
  }
  if (layout.record.empty()) return encode_elements(layout.element, raw, level, coded);
  TERSOR_REQUIRE(layout.record.size() <= kMostFields && layout.record_bytes() <= kMostRecordBytes, Code::bad_call,
                 "a record of ", layout.record.size(), " fields and ", layout.record_bytes(), " bytes, at most ",
                 kMostFields, " and ", kMostRecordBytes, " are allowed");
  for (const Field& field : layout.record)
    TERSOR_REQUIRE(field.bytes > 0, Code::bad_call, "a field of 0 bytes in a record");
  // Where the fields have nothing to themselves the bytes may.
  ByteWriter out(coded.first(raw.size()));
  if (encode_records(layout, raw, level, encode_any, kMostDepth - 1, out) && out.size() <= raw.size() - raw.size() / 64)
    return out.size();
  ScratchFrame frame;
  const auto plain = frame.bytes(chunk_bound(raw.size()));
  const size_t bytes = encode_elements(Element::bytes, raw, level, plain);
  if (!out.full() && out.size() > 0 && out.size() <= bytes) return out.size();
  std::memcpy(coded.data(), plain.data(), bytes);
  return bytes;
}

namespace {

// depth: of parts that the chunk may hold.
void decode_any(std::span<const uint8_t> coded, std::span<uint8_t> raw, int depth) {
  ByteReader reader(coded, kWhat);
  const uint8_t method = reader.take<uint8_t>();
  std::span<const uint8_t> data = reader.take(reader.left());
  ScratchFrame frame;
  const auto whole_words = [&](size_t width) {
    TERSOR_REQUIRE(!raw.empty() && raw.size() % width == 0 && raw.size() <= kChunkBytes, Code::bad_data, kWhat, ": ",
                   raw.size(), " bytes are not 1..", kChunkBytes, " in elements of ", width);
    return raw.size() / width;
  };
  switch (method) {
    case kStored:
      TERSOR_REQUIRE(data.size() == raw.size(), Code::bad_data, kWhat, ": ", data.size(), " stored bytes, ", raw.size(),
                     " are needed");
      if (!raw.empty()) std::memcpy(raw.data(), data.data(), raw.size());
      return;
    case kConstant: {
      const size_t width = data.empty() ? 0 : data[0];
      TERSOR_REQUIRE((width == 1 || width == 2 || width == 4 || width == 8) && data.size() == width + 1, Code::bad_data,
                     kWhat, ": a constant of ", width, " bytes in ", data.size());
      whole_words(width);
      // Doubling copies run at the speed of memory for every width.
      std::memcpy(raw.data(), data.data() + 1, width);
      for (size_t done = width; done < raw.size(); done *= 2)
        std::memcpy(raw.data() + done, raw.data(), std::min(done, raw.size() - done));
      return;
    }
    case kBytes: {
      whole_words(1);
      PlaneDecoder plane(data, raw.size(), 256);
      for (size_t at = 0; at < raw.size(); at += kTile) {
        const size_t count = std::min(kTile, raw.size() - at);
        const uint8_t* from = plane.next(count, raw.data() + at);
        if (from != raw.data() + at) std::memcpy(raw.data() + at, from, count);
      }
      plane.finish();
      break;
    }
    case kFloat16: {
      const size_t words = whole_words(2);
      WordDecoder decoder(data, words, frame);
      for (size_t at = 0; at < words; at += kTile)
        decoder.next({reinterpret_cast<uint16_t*>(raw.data()) + at, std::min(kTile, words - at)});
      decoder.finish();
      break;
    }
    case kFloat32: {
      const size_t words = whole_words(4);
      WordDecoder decoder(data, words, frame);
      PlaneDecoder plane1(data, words, 256), plane0(data, words, 256);
      const auto upper = frame.take<uint16_t>(kTile);
      const auto scratch1 = frame.bytes(kTile), scratch0 = frame.bytes(kTile);
      for (size_t at = 0; at < words; at += kTile) {
        const size_t count = std::min(kTile, words - at);
        decoder.next(upper.first(count));
        const uint8_t* byte1 = plane1.next(count, scratch1.data());
        const uint8_t* byte0 = plane0.next(count, scratch0.data());
        transform::merge32(upper.data(), byte1, byte0, {reinterpret_cast<uint32_t*>(raw.data()) + at, count});
      }
      decoder.finish(), plane1.finish(), plane0.finish();
      break;
    }
    case kSeries:
    case kRanks:
    case kPacked:
    case kSparse:
    case kRuns:
    case kPlanes:
    case kScaled: decode_numbers(method, data, raw, decode_any, depth); break;
    case kRecords: decode_records(data, raw, decode_any, depth); break;
    default: fail(Code::bad_data, kWhat, ": method ", int(method), ", 0..12 are known");
  }
  TERSOR_REQUIRE(data.empty(), Code::bad_data, kWhat, ": ", data.size(), " bytes too many");
}

}  // namespace

void decode_chunk(std::span<const uint8_t> coded, std::span<uint8_t> raw) { decode_any(coded, raw, kMostDepth); }

}  // namespace tersor::lossless
