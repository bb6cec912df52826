#include "entropy/tokens.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "core/crc32c.h"
#include "core/hash.h"
#include "entropy/bit_io.h"

namespace tersor::entropy::tokens {
namespace {

constexpr size_t kCrcBytes = 4;
constexpr int kRepeatBits = 8, kMostSymbolBits = 12;
constexpr uint64_t kSlots = uint64_t(1) << kSlotBits;
// The likeliest repetition costs log2(256 / 255) bits, so a byte stands for 1,417 tokens at most.
constexpr uint64_t kMostTokensOfByte = 2048;

// Over the chunk's place as well: a chunk from elsewhere in the stream is damage, too.
uint32_t chunk_crc(uint64_t number, std::span<const uint8_t> content) {
  std::array<uint8_t, 8> place;
  store_le(place.data(), number);
  return crc32c(content, crc32c(place));
}

template <class T>
void put_le(std::vector<uint8_t>& out, T value) {
  std::array<uint8_t, sizeof(T)> bytes;
  store_le(bytes.data(), value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::vector<uint8_t> head_of(Kind kind) {
  std::vector<uint8_t> head;
  head.reserve(64);
  for (const uint8_t byte : {kStream, kVersion, uint8_t(kind)}) head.push_back(byte);
  return head;
}

// How many symbols the token has that chooses book b's table.
uint32_t source_symbols(std::span<const Book> books, size_t b) {
  return books[books[b].source == Source::book ? b - 1 : b].symbols();
}

}  // namespace

size_t nearest_level(uint64_t weight_q6) noexcept {
  const uint64_t capped = std::min(weight_q6, uint64_t(weight_of(kLevels - 1)) << 6);
  size_t level = size_t(std::max(1, 2 * (int(std::bit_width(capped)) - 7)));  // of the octave that it is in
  // Between two weights lies their geometric mean: its square is compared, so that nothing is rounded.
  while (level + 1 < kLevels && capped * capped >= uint64_t(weight_of(level)) * weight_of(level + 1) << 12) ++level;
  return level;
}

int Book::low_bits() const noexcept { return std::max(0, int(std::bit_width(size - 1)) - kMostSymbolBits); }

void Table::build(std::span<const uint8_t> levels) {
  std::array<uint64_t, kLevels> counts{};
  for (const uint8_t level : levels) ++counts[level];
  uint64_t sum = 0;
  size_t most = 0;
  for (size_t level = 1; level < kLevels; ++level)
    if (counts[level]) sum += counts[level] * weight_of(level), most = level;
  TERSOR_ASSERT(sum > 0);
  const uint64_t present = levels.size() - counts[0];
  std::array<uint32_t, kLevels> lengths{};
  uint64_t left = kSlots;
  for (size_t level = 1; level < kLevels; ++level) {
    lengths[level] = 1 + uint32_t(weight_of(level) * (kSlots - present) / sum);
    left -= counts[level] * lengths[level];
  }
  symbols.clear(), starts.clear();
  symbols.reserve(present), starts.reserve(present + 1);
  start.resize(levels.size()), length.resize(levels.size());
  uint32_t at = 0;
  for (size_t s = 0; s < levels.size(); ++s) {
    start[s] = at, length[s] = lengths[levels[s]];
    if (levels[s] == 0) continue;
    if (levels[s] == most) length[s] += uint32_t(std::exchange(left, 0));  // the first of these
    symbols.push_back(uint16_t(s)), starts.push_back(at);
    at += length[s];
  }
  starts.push_back(at);
  size_t i = 0;
  for (uint32_t bucket = 0; bucket < 256; ++bucket) {
    while (starts[i + 1] <= bucket << 8) ++i;
    first[bucket] = uint16_t(i);
  }
}

Model::Model(std::vector<Book> books, size_t chunk_frames) : books_(std::move(books)), chunk_frames_(chunk_frames) {
  for (size_t b = 0; b < books_.size(); ++b) {
    const Book& book = books_[b];
    Coder& coder = coders_.emplace_back();
    for (size_t i = 0; i < kRepeatContexts; ++i) coder.repeat[i] = kRepeat[book.repeat[i]];
    coder.source = book.source, coder.size = book.size, coder.low_bits = book.low_bits();
    coder.source_low_bits = books_[book.source == Source::book ? b - 1 : b].low_bits();
    coder.class_of = book.class_of;
    coder.tables.resize(book.classes);
    const size_t symbols = book.symbols();
    const std::vector<uint8_t> even(book.has_tables() ? 0 : symbols, 1);
    const std::span<const uint8_t> levels(book.has_tables() ? book.levels : even);
    for (size_t c = 0; c < book.classes; ++c) coder.tables[c].build(levels.subspan(c * symbols, symbols));
  }
  serialize();
  const auto hash = hash128(bytes_).bytes();
  id_ = load_le<uint64_t>(hash.data());
}

void Model::serialize() {
  put_varint(bytes_, chunk_frames_);
  bytes_.push_back(uint8_t(books_.size()));
  for (size_t b = 0, run; b < books_.size(); b += run) {
    for (run = 1; b + run < books_.size() && books_[b + run].size == books_[b].size;) ++run;
    put_varint(bytes_, books_[b].size - 1), bytes_.push_back(uint8_t(run));
  }
  size_t weights = 0, levels = 0, classed = 0;
  std::array<uint64_t, kLevels> counts{};
  for (const Book& book : books_) {
    bytes_.push_back(uint8_t(size_t(book.source) | (book.classes - 1) << 2));
    for (size_t i = 0; i < kRepeatContexts; i += 2) bytes_.push_back(uint8_t(book.repeat[i] | book.repeat[i + 1] << 4));
    weights += book.levels.size(), classed += book.class_of.size();
    for (const uint8_t level : book.levels) ++counts[level], levels = std::max<size_t>(levels, level + 1u);
  }
  bytes_.push_back(uint8_t(levels));
  if (levels == 0) return;
  // Levels of the levels, a half byte each: 15 for the most frequent, so that rare ones still have a share.
  std::vector<uint8_t> nibbles(levels + levels % 2);
  const uint64_t most = *std::ranges::max_element(counts);
  for (size_t i = 0; i < levels; ++i)
    if (counts[i]) nibbles[i] = uint8_t(std::min<size_t>(15, nearest_level(counts[i] * weight_of(15) * 64 / most)));
  for (size_t i = 0; i < levels; i += 2) bytes_.push_back(uint8_t(nibbles[i] | nibbles[i + 1] << 4));
  Table table;
  table.build(std::span(nibbles).first(levels));
  std::vector<uint8_t> room(3 * weights + classed + 8);
  StackWriter code(room);
  for (size_t b = books_.size(); b-- > 0;) {
    const Book& book = books_[b];
    for (size_t i = book.levels.size(); i-- > 0;)
      code.put(table.start[book.levels[i]], table.length[book.levels[i]], kSlotBits);
    for (size_t i = book.class_of.size(); i-- > 0;) code.put_bits(book.class_of[i], kClassBits);
  }
  const auto string = code.finish();
  bytes_.insert(bytes_.end(), string.begin(), string.end());
}

Model Model::parse(std::span<const uint8_t> data) {
  const uint64_t chunk_frames = take_varint(data, kWhat);
  TERSOR_REQUIRE(chunk_frames >= 1 && chunk_frames <= kMostChunkFrames, Code::bad_data, kWhat, ": chunks of ",
                 chunk_frames, " frames, 1..65535 are allowed");
  std::vector<Book> books(take_field<uint8_t>(data));
  TERSOR_REQUIRE(!books.empty() && books.size() <= kMostBooks, Code::bad_data, kWhat, ": ", books.size(),
                 " books, 1..64 are allowed");
  for (size_t b = 0; b < books.size();) {
    const uint64_t size = take_varint(data, kWhat);
    const size_t run = take_field<uint8_t>(data);
    TERSOR_REQUIRE(size >= 1 && size < kMostSize, Code::bad_data, kWhat, ": a book of ", size,
                   " + 1 tokens, 2..65536 are allowed");
    TERSOR_REQUIRE(run >= 1 && run <= books.size() - b, Code::bad_data, kWhat, ": ", run, " books of a size, ",
                   books.size() - b, " are left");
    for (const size_t end = b + run; b < end; ++b) books[b].size = uint32_t(size) + 1;
  }
  size_t weights = 0;
  for (size_t b = 0; b < books.size(); ++b) {
    Book& book = books[b];
    const uint8_t shape = take_field<uint8_t>(data);
    book.source = Source(shape & 3), book.classes = size_t(shape >> 2) + 1;
    TERSOR_REQUIRE(book.classes <= (book.has_classes() ? kMostClasses : 1), Code::bad_data, kWhat, ": book ", b,
                   " has ", book.classes, " tables, at most ", book.has_classes() ? kMostClasses : 1, " are allowed");
    TERSOR_REQUIRE(book.source != Source::book || b > 0, Code::bad_data, kWhat, ": no book before the first");
    const auto repeat = take_front(data, kRepeatContexts / 2);
    for (size_t i = 0; i < kRepeatContexts; ++i) book.repeat[i] = repeat[i / 2] >> (i % 2 * 4) & 15;
    if (book.has_tables()) weights += book.classes * book.symbols();
  }
  TERSOR_REQUIRE(weights <= kMostWeights, Code::bad_data, kWhat, ": a model of ", weights, " weights, at most ",
                 kMostWeights, " are allowed");
  const size_t levels = take_field<uint8_t>(data);
  TERSOR_REQUIRE(levels <= kLevels && (levels > 0) == (weights > 0), Code::bad_data, kWhat, ": ", levels,
                 " levels for ", weights, " weights");
  std::vector<uint8_t> nibbles;
  for (const uint8_t pair : take_front(data, (levels + 1) / 2))
    nibbles.push_back(pair & 15), nibbles.push_back(pair >> 4);
  TERSOR_REQUIRE(nibbles.size() == levels || nibbles.back() == 0, Code::bad_data, kWhat, ": a half byte too many");
  nibbles.resize(levels);
  TERSOR_REQUIRE(levels == 0 || nibbles.back() > 0, Code::bad_data, kWhat, ": the last level never occurs");
  Table table;
  if (levels > 0) table.build(nibbles);
  StackReader code(data);
  for (size_t b = 0; b < books.size(); ++b) {
    Book& book = books[b];
    if (!book.has_tables()) continue;
    const size_t symbols = book.symbols();
    if (book.has_classes()) book.class_of.resize(source_symbols(books, b));
    for (uint8_t& c : book.class_of) {
      c = uint8_t(code.take_bits(kClassBits));
      TERSOR_REQUIRE(c < book.classes, Code::bad_data, kWhat, ": class ", int(c), " of ", book.classes);
    }
    book.levels.resize(book.classes * symbols);
    for (uint8_t& level : book.levels) level = uint8_t(code.take(table));
    for (size_t c = 0; c < book.classes; ++c)
      TERSOR_REQUIRE(std::ranges::any_of(std::span(book.levels).subspan(c * symbols, symbols),
                                         [](uint8_t level) { return level > 0; }),
                     Code::bad_data, kWhat, ": a table without a symbol");
  }
  TERSOR_REQUIRE(code.done(), Code::bad_data, kWhat, ": the model's code does not end where its weights do");
  return Model(std::move(books), chunk_frames);
}

// ---- chunks --------------------------------------------------------------------------------------------------------

// before: the frame before, null in a chunk's first.
size_t Model::Coder::class_at(const uint16_t* row, const uint16_t* before, size_t book) const noexcept {
  if (source == Source::book) return class_of[row[book - 1] >> source_low_bits];
  return source == Source::frame && before ? class_of[before[book] >> source_low_bits] : 0;
}

void check_tokens(std::span<const uint16_t> tokens, std::span<const Book> books) {
  for (size_t b = 0; b < books.size(); ++b) {
    uint32_t most = 0;
    for (size_t i = b; i < tokens.size(); i += books.size()) most = std::max<uint32_t>(most, tokens[i]);
    TERSOR_REQUIRE(most < books[b].size, Code::bad_call, "token ", most, " of book ", b, ", which has ", books[b].size);
  }
}

std::vector<uint8_t> Model::encode_chunk(std::span<const uint16_t> frames, uint64_t number) const {
  const size_t width = coders_.size(), count = frames.size() / width;
  TERSOR_REQUIRE(count * width == frames.size() && count >= 1 && count <= chunk_frames_, Code::bad_call, "a chunk of ",
                 frames.size(), " tokens: 1..", chunk_frames_, " frames of ", width, " are needed");
  check_tokens(frames, books_);
  // A flag takes 8 bits at most, a symbol 16 and its low bits 4.
  const size_t most = frames.size() * 4 + 8;
  const auto room = std::make_unique_for_overwrite<uint8_t[]>(most);
  StackWriter code({room.get(), most});
  for (size_t t = count; t-- > 0;) {
    const uint16_t* row = frames.data() + t * width;
    const uint16_t* before = t > 0 ? row - width : nullptr;
    const auto repeats = [&](size_t b) { return row[b] == before[b]; };
    for (size_t b = width; b-- > 0;) {
      const Coder& coder = coders_[b];
      if (!before || !repeats(b)) {
        const uint32_t token = row[b], symbol = token >> coder.low_bits;
        const Table& table = coder.tables[coder.class_at(row, before, b)];
        TERSOR_REQUIRE(table.length[symbol] > 0, Code::bad_call, "token ", token, " of book ", b,
                       " has no probability in this model");
        if (coder.low_bits) code.put_bits(token & ((1u << coder.low_bits) - 1), coder.low_bits);
        code.put(table.start[symbol], table.length[symbol], kSlotBits);
      }
      if (!before) continue;
      const bool was = t > 1 && before[b] == (before - width)[b];
      const size_t context = repeat_context(was, b < 2 || repeats(b - 2), b < 1 || repeats(b - 1));
      const uint32_t likely = coder.repeat[context], rest = (1u << kRepeatBits) - likely;
      repeats(b) ? code.put(rest, likely, kRepeatBits) : code.put(0, rest, kRepeatBits);
    }
  }
  const auto string = code.finish();
  std::vector<uint8_t> out;
  out.reserve(string.size() + 3 + kCrcBytes);
  put_varint(out, count);
  out.insert(out.end(), string.begin(), string.end());
  put_le(out, chunk_crc(number, out));
  TERSOR_ASSERT(frames.size() <= kMostTokensOfByte * out.size());
  return out;
}

size_t Model::frames_in(std::span<const uint8_t> chunk) const {
  const size_t bytes = chunk.size();
  const uint64_t frames = take_varint(chunk, kWhat);
  TERSOR_REQUIRE(frames >= 1 && frames <= chunk_frames_, Code::bad_data, "a chunk of ", frames, " frames, 1..",
                 chunk_frames_, " are allowed");
  TERSOR_REQUIRE(frames * coders_.size() <= kMostTokensOfByte * bytes, Code::bad_data, "a chunk of ", bytes,
                 " bytes claims ", frames, " frames");
  return size_t(frames);
}

void Model::decode_chunk(std::span<const uint8_t> chunk, uint64_t number, std::span<uint16_t> frames) const {
  TERSOR_REQUIRE(chunk.size() > kCrcBytes, Code::bad_data, "a chunk of ", chunk.size(), " bytes, 5 are needed");
  auto content = chunk.first(chunk.size() - kCrcBytes);
  const uint32_t told = load_le<uint32_t>(content.data() + content.size()), found = chunk_crc(number, content);
  TERSOR_REQUIRE(told == found, Code::bad_data, "its CRC-32C is ", found, ", the chunk says ", told);
  const size_t count = frames_in(chunk);
  TERSOR_REQUIRE(count * coders_.size() == frames.size(), Code::bad_data, "it holds ", count, " frames, ",
                 frames.size() / coders_.size(), " are needed");
  take_varint(content, kWhat);
  TERSOR_REQUIRE(decode_frames(content, frames), Code::bad_data, "its code does not give ", count, " frames");
}

bool Model::decode_frames(std::span<const uint8_t> string, std::span<uint16_t> frames) const noexcept {
  const size_t width = coders_.size();
  StackReader code(string);
  std::array<bool, kMostBooks> was{};
  const uint16_t* before = nullptr;
  for (uint16_t* row = frames.data(); row != frames.data() + frames.size(); before = row, row += width) {
    bool first = true, second = true;
    for (size_t b = 0; b < width; ++b) {
      const Coder& coder = coders_[b];
      if (before) {
        const uint32_t likely = coder.repeat[repeat_context(was[b], second, first)];
        const uint32_t rest = (1u << kRepeatBits) - likely;
        const bool repeats = code.slot(kRepeatBits) >= rest;
        code.drop(repeats ? rest : 0, repeats ? likely : rest, kRepeatBits);
        second = first, first = was[b] = repeats;
        if (repeats) {
          row[b] = before[b];
          continue;
        }
      }
      uint32_t token = code.take(coder.tables[coder.class_at(row, before, b)]) << coder.low_bits;
      if (coder.low_bits) token |= code.take_bits(coder.low_bits);
      if (token >= coder.size) return false;
      row[b] = uint16_t(token);
    }
  }
  return code.done();
}

// ---- streams -------------------------------------------------------------------------------------------------------

std::vector<uint8_t> encode(std::span<const uint16_t> tokens, const Model& model, bool inside) {
  const size_t width = model.books().size(), chunk = model.chunk_frames() * width;
  TERSOR_REQUIRE(tokens.size() % width == 0, Code::bad_call, tokens.size(), " tokens are no frames of ", width);
  std::vector<uint8_t> head = head_of(inside ? kModelInside : kModelOutside), body;
  if (inside) {
    put_varint(head, model.bytes().size());
    head.insert(head.end(), model.bytes().begin(), model.bytes().end());
  } else {
    put_le(head, model.id());
  }
  put_varint(head, tokens.size() / width);
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const auto bytes = model.encode_chunk(tokens.subspan(at, std::min(chunk, tokens.size() - at)), at / chunk);
    put_varint(head, bytes.size());
    body.insert(body.end(), bytes.begin(), bytes.end());
  }
  put_le(head, crc32c(head));
  head.insert(head.end(), body.begin(), body.end());
  return head;
}

Stream::Stream(std::span<const uint8_t> data, const Model* model, bool whole) : model_(model) {
  ByteReader front(data, kWhat);
  take_stream(front, kStream, kVersion, kWhat);
  const uint8_t kind = front.take<uint8_t>();
  auto rest = front.take(front.left());
  TERSOR_REQUIRE(kind <= kModelOutside, Code::bad_data, kWhat, ": kind ", int(kind), ", 0 and 1 are known");
  std::span<const uint8_t> inside;
  uint64_t chunk_frames = 0, id = 0;
  if (kind == kModelInside) {
    inside = take_front(rest, take_varint(rest, kWhat));
    auto model_bytes = inside;  // of which the model's checks come behind the head's CRC
    chunk_frames = take_varint(model_bytes, kWhat);
    TERSOR_REQUIRE(chunk_frames > 0, Code::bad_data, kWhat, ": chunks of no frames");
  } else {
    id = take_field<uint64_t>(rest);
    TERSOR_REQUIRE(model, Code::bad_call, "these tokens were coded with a model, and none is given");
    TERSOR_REQUIRE(id == model->id(), Code::bad_call, "these tokens were coded with the model ", Hex{id}, ", not with ",
                   Hex{model->id()});
    chunk_frames = model->chunk_frames();
  }
  const uint64_t frames = take_varint(rest, kWhat), count = ceil_div(frames, chunk_frames);
  // A chunk has a length here: a claim beyond that is a lie, told before anything is allocated.
  TERSOR_REQUIRE(count <= rest.size(), Code::bad_data, kWhat, ": ", frames, " frames claimed by ", rest.size(),
                 " bytes");
  std::vector<uint64_t> lengths(static_cast<size_t>(count));
  uint64_t sum = 0;
  for (uint64_t& length : lengths) sum = checked_add(sum, length = take_varint(rest, kWhat), "tokens stream: chunks");
  const uint32_t found = crc32c(data.first(data.size() - rest.size())), told = take_field<uint32_t>(rest);
  TERSOR_REQUIRE(told == found, Code::bad_data, kWhat, ": the head's CRC-32C is ", found, ", it says ", told);
  TERSOR_REQUIRE(!whole || sum == rest.size(), Code::bad_data, kWhat, ": chunks of ", sum, " bytes, ", rest.size(),
                 " are there");
  if (kind == kModelInside) inside_ = Model::parse(inside);
  const size_t width = this->model().books().size();
  for (size_t i = 0; i < lengths.size(); ++i) {
    const uint64_t first = i * chunk_frames, own = std::min(chunk_frames, frames - first);
    if (!lost_.empty() || lengths[i] > rest.size()) {
      lost_.push_back({i, first, own, "it is cut off"});
      continue;
    }
    chunks_.push_back(take_front(rest, lengths[i]));
    TERSOR_REQUIRE(own * width <= kMostTokensOfByte * lengths[i], Code::bad_data, kWhat, ": a chunk of ", lengths[i],
                   " bytes claims ", own, " frames");
    frames_ += own;
  }
}

std::vector<Damage> Stream::decode(std::span<uint16_t> out) const {
  const size_t width = model().books().size(), chunk = model().chunk_frames() * width;
  TERSOR_REQUIRE(out.size() == frames_ * width, Code::bad_call, "the stream holds ", frames_ * width,
                 " tokens, the buffer ", out.size());
  std::vector<Damage> damaged;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const auto frames = out.subspan(i * chunk, std::min(chunk, out.size() - i * chunk));
    try {
      model().decode_chunk(chunks_[i], i, frames);
    } catch (const Error& error) {
      if (error.code() != Code::bad_data) throw;
      std::ranges::fill(frames, uint16_t(0));
      damaged.push_back({i, i * model().chunk_frames(), frames.size() / width, error.what()});
    }
  }
  damaged.insert(damaged.end(), lost_.begin(), lost_.end());
  return damaged;
}

std::vector<uint8_t> pack(const Model& model) {
  std::vector<uint8_t> out = head_of(kModelAlone);
  out.insert(out.end(), model.bytes().begin(), model.bytes().end());
  put_le(out, crc32c(out));
  return out;
}

Model unpack(std::span<const uint8_t> data) {
  ByteReader front(data, kWhat);
  take_stream(front, kStream, kVersion, kWhat);
  const uint8_t kind = front.take<uint8_t>();
  TERSOR_REQUIRE(kind == kModelAlone, Code::bad_data, kWhat, ": kind ", int(kind), ", a model alone, ",
                 int(kModelAlone), ", is needed");
  TERSOR_REQUIRE(front.left() >= sizeof(uint32_t), Code::bad_data, kWhat, ": a model without its CRC-32C");
  const auto content = data.first(data.size() - sizeof(uint32_t));
  const uint32_t found = crc32c(content), told = load_le<uint32_t>(content.data() + content.size());
  TERSOR_REQUIRE(told == found, Code::bad_data, kWhat, ": the model's CRC-32C is ", found, ", it says ", told);
  return Model::parse(content.subspan(3));
}

}  // namespace tersor::entropy::tokens
