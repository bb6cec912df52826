// Streams of the integer tokens of a residual or finite scalar quantizer, frames of one token a book, by small integer
// contexts: whether a token repeats the one of the frame before, else a table that a class of another token chooses.
// Page: docs/formats/tokens.md.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/bits.h"

namespace tersor::entropy::tokens {

inline constexpr const char* kWhat = "tokens stream";
inline constexpr uint8_t kStream = 10, kVersion = 1;  // core/ids.def
enum Kind : uint8_t { kModelInside = 0, kModelOutside = 1, kModelAlone = 2 };
inline constexpr size_t kMostBooks = 64, kMostSize = 65536, kMostChunkFrames = 65535, kMostClasses = 16;
inline constexpr size_t kMostWeights = size_t(1) << 20;  // of all tables of a model: what a reader may have to hold
inline constexpr int kSlotBits = 16;                     // a table's frequencies sum to 2^16
inline constexpr size_t kLevels = 32, kRepeatLevels = 16, kRepeatContexts = 8;
inline constexpr int kClassBits = 4;  // that name a class where a model travels

// A table tells a symbol's weight by a level, in half octaves: 0, 1, 2, 3, 4, 6, 8, 12, ..., 2^15, 3 * 2^14.
constexpr uint32_t weight_of(size_t level) noexcept {
  if (level < 2) return uint32_t(level);
  return level % 2 == 0 ? 1u << level / 2 : 3u << (level - 3) / 2;
}

// The level whose weight is nearest, as a ratio, to weight / 64; 1 or above.
size_t nearest_level(uint64_t weight_q6) noexcept;

// Of 256: how likely a token repeats. Steps of 0.74 in log(p / (1 - p)); never certain, so that every token behind a
// chunk's first frame costs something and no few bytes stand for endless tokens.
inline constexpr std::array<uint16_t, kRepeatLevels> kRepeat = {1,   2,   4,   9,   18,  35,  63,  105,
                                                                151, 193, 221, 238, 247, 252, 254, 255};

// Whose class chooses the table of a token that does not repeat.
enum class Source : uint8_t {
  uniform,  // no table travels: all symbols are as likely
  one,      // there is one table
  frame,    // the same book's token a frame before; class 0 in a chunk's first frame
  book,     // the frame's token of the book before
};

// What a model says of one book. Only a token's high bits, its symbol, have a table; the low bits of large books have
// all the same probability.
struct Book {
  uint32_t size = 2;
  Source source = Source::uniform;
  size_t classes = 1;
  std::array<uint8_t, kRepeatContexts> repeat{};  // levels of kRepeat
  std::vector<uint8_t> class_of;                  // of the source's symbols; frame and book only
  std::vector<uint8_t> levels;                    // of each class' symbols; none where uniform

  int low_bits() const noexcept;
  uint32_t symbols() const noexcept { return ((size - 1) >> low_bits()) + 1; }
  bool has_tables() const noexcept { return source != Source::uniform; }
  bool has_classes() const noexcept { return source == Source::frame || source == Source::book; }
};

// Frequencies for one class.
struct Table {
  std::vector<uint16_t> symbols;        // those with a frequency, ascending
  std::vector<uint32_t> starts;         // of their slots, 2^16 at the end
  std::array<uint16_t, 256> first;      // the place in `symbols` of slot 256 i's
  std::vector<uint32_t> start, length;  // by symbol, for encoders; length 0: not to be coded

  void build(std::span<const uint8_t> levels);  // at least one above 0
};

// rANS (Duda, arXiv:1311.2540) with one state of 64 bits, a byte at a time. The state starts at 0 and not at its lower
// bound: until the first byte leaves it is one large number, so a chunk pays no flush, and what is left of the state at
// the decoder's end tells whether all was read as it was written.
inline constexpr uint64_t kLeastState = uint64_t(1) << 56;

class StackWriter {  // from the end of `room` to its front: what is put last is taken first
 public:
  explicit StackWriter(std::span<uint8_t> room) noexcept : at_(room.data() + room.size()), end_(at_) {}
  void put(uint32_t start, uint32_t length, int bits) noexcept {
    while (state_ >> (64 - bits) >= length) *--at_ = uint8_t(state_), state_ >>= 8;
    state_ = (state_ / length << bits) + state_ % length + start;
  }
  void put_bits(uint32_t value, int bits) noexcept { put(value, 1, bits); }
  std::span<const uint8_t> finish() noexcept {
    for (; state_; state_ >>= 8) *--at_ = uint8_t(state_);
    return {at_, size_t(end_ - at_)};
  }

 private:
  uint64_t state_ = 0;
  uint8_t *at_, *end_;
};

class StackReader {
 public:
  explicit StackReader(std::span<const uint8_t> data) noexcept : at_(data.data()), end_(at_ + data.size()) {
    refill_slowly();
  }
  uint32_t slot(int bits) const noexcept { return uint32_t(state_) & ((1u << bits) - 1); }
  void drop(uint32_t start, uint32_t length, int bits) noexcept {  // slot() is in start..start + length - 1
    state_ = (state_ >> bits) * length + slot(bits) - start;
    // The state never falls below 2^40 while bytes are left: two are taken at most, and the shifts are below 64.
    if (end_ - at_ >= 8) [[likely]] {
      const int bytes = std::countl_zero(state_) / 8;
      state_ = state_ << 8 * bytes | __builtin_bswap64(load_le<uint64_t>(at_)) >> 1 >> (63 - 8 * bytes);
      at_ += bytes;
    } else {
      refill_slowly();
    }
  }
  uint32_t take_bits(int bits) noexcept {
    const uint32_t value = slot(bits);
    drop(value, 1, bits);
    return value;
  }
  uint32_t take(const Table& table) noexcept {
    const uint32_t at = slot(kSlotBits);
    const uint32_t* starts = table.starts.data();
    size_t i = table.first[at >> 8];
    while (starts[i + 1] <= at) ++i;
    drop(starts[i], starts[i + 1] - starts[i], kSlotBits);
    return table.symbols[i];
  }
  bool done() const noexcept { return state_ == 0 && at_ == end_; }

 private:
  void refill_slowly() noexcept {
    while (state_ < kLeastState && at_ < end_) state_ = state_ << 8 | *at_++;
  }
  uint64_t state_ = 0;
  const uint8_t *at_, *end_;
};

// Fields from the front of `data`, which moves behind them. Raise bad_data.
template <class T>
T take_field(std::span<const uint8_t>& data) {
  ByteReader reader(data, kWhat);
  const T value = reader.take<T>();
  data = data.subspan(sizeof(T));
  return value;
}
inline std::span<const uint8_t> take_front(std::span<const uint8_t>& data, uint64_t bytes) {
  const auto front = ByteReader(data, kWhat).take(bytes);
  data = data.subspan(front.size());
  return front;
}

// The context of a flag. was: this book's flag a frame before; second, first: those of the last two books of this
// frame.
constexpr size_t repeat_context(bool was, bool second, bool first) noexcept { return was * 4u + second * 2u + first; }

// Raises bad_call for a token outside its book.
void check_tokens(std::span<const uint16_t> tokens, std::span<const Book> books);

// Immutable; what encoder and decoder must both have.
class Model {
 public:
  // books: as parse has checked or fit has made them.
  Model(std::vector<Book> books, size_t chunk_frames);

  // bytes() of a model, no more. Raises bad_data.
  static Model parse(std::span<const uint8_t> data);
  std::span<const uint8_t> bytes() const noexcept { return bytes_; }
  uint64_t id() const noexcept { return id_; }
  size_t chunk_frames() const noexcept { return chunk_frames_; }
  std::span<const Book> books() const noexcept { return books_; }

  // frames: rows of books().size() tokens, at most chunk_frames() of them. number: the chunk's place in its stream, or
  // whatever tells it from others; decoding wants it back. Raises bad_call for a token that the model has no code for.
  std::vector<uint8_t> encode_chunk(std::span<const uint16_t> frames, uint64_t number) const;
  // How many frames a chunk claims to have, its checksum unseen; decode_chunk wants room for as many. Raise bad_data.
  size_t frames_in(std::span<const uint8_t> chunk) const;
  void decode_chunk(std::span<const uint8_t> chunk, uint64_t number, std::span<uint16_t> frames) const;

 private:
  struct Coder {
    std::array<uint16_t, kRepeatContexts> repeat;
    Source source;
    int low_bits, source_low_bits;
    uint32_t size;
    std::vector<uint8_t> class_of;
    std::vector<Table> tables;
    size_t class_at(const uint16_t* row, const uint16_t* before, size_t book) const noexcept;
  };
  void serialize();
  bool decode_frames(std::span<const uint8_t> code, std::span<uint16_t> frames) const noexcept;
  std::vector<Book> books_;
  size_t chunk_frames_;
  std::vector<Coder> coders_;
  std::vector<uint8_t> bytes_;
  uint64_t id_ = 0;
};

// What tokens say about a model for others of their kind. tokens: all clips, one behind the other; clip_frames: how
// many frames each has. A prior is for tokens yet to come, so it can code each of them; without it the model is for
// these tokens alone and will travel with them, so its bytes count. Raises bad_call (sizes, tokens outside their book).
Model fit(std::span<const uint16_t> tokens, std::span<const uint64_t> clip_frames, std::span<const uint32_t> sizes,
          size_t chunk_frames, bool prior);

// A model as a file of its own: with a head and a checksum. unpack raises bad_data.
std::vector<uint8_t> pack(const Model& model);
Model unpack(std::span<const uint8_t> data);

// inside: the model travels in the stream, which else holds its id.
std::vector<uint8_t> encode(std::span<const uint16_t> tokens, const Model& model, bool inside);

struct Damage {
  uint64_t chunk, first_frame, frames;
  std::string reason;
};

// A stream's head, checked. `data` must outlive it.
class Stream {
 public:
  // model: the one that the stream was coded with, or null where it travels inside. whole: refuse a stream that has
  // lost or gained bytes at its end; without it, frames() counts what is there. Raises bad_data; bad_call where a model
  // is needed, or another.
  Stream(std::span<const uint8_t> data, const Model* model, bool whole);

  const Model& model() const noexcept { return inside_ ? *inside_ : *model_; }
  uint64_t frames() const noexcept { return frames_; }
  // out: frames() rows. Chunks that cannot be decoded leave zeros and are told of, those cut off at the end among them.
  std::vector<Damage> decode(std::span<uint16_t> out) const;

 private:
  std::optional<Model> inside_;
  const Model* model_;
  uint64_t frames_ = 0;
  std::vector<std::span<const uint8_t>> chunks_;
  std::vector<Damage> lost_;
};

}  // namespace tersor::entropy::tokens
