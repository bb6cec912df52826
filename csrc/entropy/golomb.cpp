#include "entropy/golomb.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/arena.h"
#include "core/bits.h"
#include "core/pool.h"
#include "entropy/bit_io.h"
#include "entropy/plain_chunk.h"

namespace tersor::entropy::golomb {
namespace {

constexpr const char* kWhat = "golomb stream";
constexpr uint8_t kStream = 7, kVersion = 1;  // core/ids.def
constexpr uint64_t kMostUnary = 16;           // zeros of a quotient; what is more is told apart
constexpr size_t kSample = 512;               // values of a chunk that choose its divisor

size_t bytes_of(uint64_t bits) { return size_t(ceil_div(bits, 8)); }

size_t varint_bytes(uint64_t value) { return std::max<size_t>(1, size_t(std::bit_width(value) + 6) / 7); }

// value = quotient * divisor + remainder. A remainder below `brief` has `width` bits, any other one bit more.
struct Divisor {
  explicit Divisor(uint64_t d)
      : divisor(d),
        width(std::bit_width(d) - 1),
        excess(d - (uint64_t(1) << width)),
        brief((uint64_t(1) << width) - excess),
        reciprocal(excess ? ~uint64_t(0) / d + 1 : 0) {}

  bool is_power() const { return excess == 0; }
  template <bool kPower>
  uint64_t quotient(uint64_t value) const {
    if constexpr (kPower) return value >> width;
    // Exact below 2^32: Lemire, Kaser and Kurz, 2019 (arXiv:1902.01961).
    if (value >> 32 == 0) return uint64_t(static_cast<unsigned __int128>(value) * reciprocal >> 64);
    return value / divisor;
  }

  uint64_t divisor;
  int width;
  uint64_t excess, brief, reciprocal;
};

// ---- the divisor ----------------------------------------------------------------------------------------------------

template <bool kPower>
uint64_t cost_of(std::span<const uint64_t> values, const Divisor& d) {
  uint64_t bits = values.size() * uint64_t(d.width + 1);
  for (const uint64_t value : values) {
    const uint64_t quotient = d.quotient<kPower>(value);
    bits += std::min(quotient, kMostUnary);
    if (quotient >= kMostUnary) bits += 8 * varint_bytes(quotient - kMostUnary);
    if (!kPower) bits += value - quotient * d.divisor >= d.brief;
  }
  return bits;
}

uint64_t cost_of(std::span<const uint64_t> values, uint64_t divisor) {
  const Divisor d(divisor);
  return d.is_power() ? cost_of<true>(values, d) : cost_of<false>(values, d);
}

// The power of two that is best among its neighbors, from where the values' lengths lie; then quarters between it and
// the next ones.
uint64_t choose_divisor(std::span<const uint64_t> values) {
  uint64_t room[kSample], lengths = 0;
  const size_t step = std::max<size_t>(1, values.size() / kSample), count = std::min(kSample, values.size());
  for (size_t i = 0; i < count; ++i) room[i] = values[i * step], lengths += uint64_t(std::bit_width(room[i]));
  const std::span<const uint64_t> sample(room, count);
  constexpr int kMostWidth = std::bit_width(kMostDivisor) - 1;
  int width = std::min(kMostWidth, int(lengths / std::max<size_t>(1, count)));
  uint64_t least = cost_of(sample, uint64_t(1) << width);
  const int start = width;
  for (const int side : {-1, 1})
    for (int next = start + side; next >= 0 && next <= kMostWidth; next += side) {
      const uint64_t bits = cost_of(sample, uint64_t(1) << next);
      if (bits > least) break;
      least = bits, width = next;
    }
  uint64_t best = uint64_t(1) << width;
  for (int low = std::max(2, width - 1); low <= std::min(width, kMostWidth - 1); ++low)
    for (uint64_t quarter = 5; quarter < 8; ++quarter) {
      const uint64_t divisor = quarter << (low - 2), bits = cost_of(sample, divisor);
      if (bits < least) least = bits, best = divisor;
    }
  return width == 1 && cost_of(sample, 3) < least ? 3 : best;
}

// ---- a chunk --------------------------------------------------------------------------------------------------------

// Bits, low first, 56 at most a call. Stores 8 bytes at a time: so many are needed behind the last bit.
class BitString {
 public:
  explicit BitString(std::span<uint8_t> room) : begin_(room.data()), at_(room.data()) {}
  void put(uint64_t value, int bits) {
    held_ |= value << fill_;
    store_le(at_, held_);
    fill_ += bits;
    at_ += fill_ >> 3, held_ >>= fill_ & ~7, fill_ &= 7;
  }
  uint64_t bits() const { return uint64_t(at_ - begin_) * 8 + uint64_t(fill_); }
  std::span<const uint8_t> bytes() {
    store_le(at_, held_);  // where the last put ended at a whole byte, nothing else has set what follows
    return {begin_, bytes_of(bits())};
  }

 private:
  uint8_t *begin_, *at_;
  uint64_t held_ = 0;
  int fill_ = 0;
};

struct Coded {
  BitString unary, remainders, extras;
  std::vector<uint8_t> beyond;
};

template <bool kPower>
void split(std::span<const uint64_t> values, const Divisor& d, Coded& coded) {
  BitString unary = coded.unary, remainders = coded.remainders, extras = coded.extras;  // which bytes cannot alias
  for (const uint64_t value : values) {
    uint64_t quotient = d.quotient<kPower>(value);
    uint64_t remainder = value - quotient * d.divisor;
    if (quotient >= kMostUnary) [[unlikely]] {
      put_varint(coded.beyond, quotient - kMostUnary);
      quotient = kMostUnary;
    }
    unary.put(uint64_t(1) << quotient, int(quotient) + 1);
    if constexpr (!kPower) {
      const uint64_t high = remainder >> d.width;
      extras.put(high, remainder >= d.brief);
      remainder -= d.excess & -high;
    }
    remainders.put(remainder, d.width);
  }
  coded.unary = unary, coded.remainders = remainders, coded.extras = extras;
}

struct Strings {
  const uint8_t *unary, *remainders, *extras;
  size_t unary_words;
  uint64_t extra_bits;
  std::span<const uint8_t> beyond;
};

// Whether all parts are used up and every quotient is one that is allowed.
// 8 bytes are readable behind the remainders, and as many bits behind the extras as there are values.
template <bool kPower>
bool join(const Strings& from, const Divisor& divisor, uint64_t* out) {
  const Strings strings = from;  // and a divisor, which what is written to out cannot alias
  const Divisor d = divisor;
  auto beyond = from.beyond;
  uint64_t before = 0, bit = 0, extra = 0;  // bit: of the remainders; before: the end of the unary code before
  const uint64_t mask = (uint64_t(1) << d.width) - 1;
  for (size_t i = 0; i < strings.unary_words; ++i)
    for (uint64_t word = load_le<uint64_t>(strings.unary + 8 * i); word; word &= word - 1) {
      const uint64_t one = 64 * i + uint64_t(std::countr_zero(word));
      const uint64_t quotient = one - before;
      before = one + 1;
      uint64_t remainder = load_le<uint64_t>(strings.remainders + (bit >> 3)) >> (bit & 7) & mask;
      bit += uint64_t(d.width);
      if constexpr (!kPower) {
        const uint64_t has = remainder >= d.brief;
        remainder += d.excess & -(has & strings.extras[extra >> 3] >> (extra & 7));
        extra += has;
      }
      uint64_t value = quotient * d.divisor + remainder;
      if (quotient >= kMostUnary) [[unlikely]] {
        if (quotient > kMostUnary || beyond.empty()) return false;
        const uint64_t more = take_varint(beyond, "golomb chunk");
        uint64_t product;
        if (__builtin_mul_overflow(more, d.divisor, &product) || __builtin_add_overflow(value, product, &value))
          return false;
      }
      *out++ = value;
    }
  return extra == strings.extra_bits && beyond.empty();
}

bool ends_in_zeros(std::span<const uint8_t> string, uint64_t bits) {
  return bits % 8 == 0 || string.back() >> (bits % 8) == 0;
}

// ---- a stream of them -----------------------------------------------------------------------------------------------

struct Stream {
  Head head;
  uint64_t count;
};

Stream open(std::span<const uint8_t> data) {
  Stream stream{read_head(data, kStream, 1, kWhat), 0};
  stream.count = take_varint(stream.head.rest, kWhat);
  require_bits(stream.count, stream.head.rest.size(), kWhat);
  return stream;
}

uint64_t zigzag_of(int64_t value) { return uint64_t(value) << 1 ^ uint64_t(value >> 63); }
int64_t from_zigzag(uint64_t value) { return int64_t(value >> 1 ^ -(value & 1)); }

// first: the place of values[0] in errors.
template <class T>
void load(std::span<const T> values, bool zigzag, size_t first, uint64_t* out) {
  T sign = 0;
  for (size_t i = 0; i < values.size(); ++i) sign = T(sign | values[i]);
  if constexpr (std::is_signed_v<T>) {
    if (zigzag) {
      for (size_t i = 0; i < values.size(); ++i) out[i] = zigzag_of(values[i]);
      return;
    }
    for (size_t i = 0; sign < 0 && i < values.size(); ++i)
      TERSOR_REQUIRE(values[i] >= 0, Code::bad_call, "value ", int64_t(values[i]), " at place ", first + i,
                     " is below 0: signed values are needed as such");
  } else if (zigzag) {
    constexpr uint64_t kMost = uint64_t(std::numeric_limits<int64_t>::max());
    for (size_t i = 0; uint64_t(sign) > kMost && i < values.size(); ++i)
      TERSOR_REQUIRE(uint64_t(values[i]) <= kMost, Code::bad_call, "value ", uint64_t(values[i]), " at place ",
                     first + i, " is above 2^63 - 1, the most of a signed one");
    for (size_t i = 0; i < values.size(); ++i) out[i] = uint64_t(values[i]) << 1;
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) out[i] = uint64_t(values[i]);
}

template <class T>
void store(std::span<const uint64_t> values, bool zigzag, size_t first, T* out) {
  const auto fits = [&](uint64_t value) {
    return zigzag ? std::in_range<T>(from_zigzag(value)) : std::in_range<T>(value);
  };
  uint64_t misfits = 0;
  if (zigzag)
    for (size_t i = 0; i < values.size(); ++i)
      misfits |= uint64_t(!std::in_range<T>(from_zigzag(values[i]))), out[i] = T(from_zigzag(values[i]));
  else
    for (size_t i = 0; i < values.size(); ++i) misfits |= uint64_t(!std::in_range<T>(values[i])), out[i] = T(values[i]);
  for (size_t i = 0; misfits && i < values.size(); ++i)
    if (!fits(values[i]))
      fail(Code::bad_call, "value ", zigzag && from_zigzag(values[i]) < 0 ? "-" : "",
           zigzag ? values[i] / 2 + values[i] % 2 : values[i], " at place ", first + i, " does not fit ", 8 * sizeof(T),
           std::is_signed_v<T> ? " signed" : " unsigned", " bits");
}

}  // namespace

std::vector<uint8_t> encode_chunk(std::span<const uint64_t> values, uint64_t divisor) {
  const Divisor d(divisor ? divisor : choose_divisor(values));
  constexpr size_t kSpare = 16;
  const size_t n = values.size();
  ScratchFrame frame;
  Coded coded{BitString(frame.bytes(bytes_of(n * (kMostUnary + 1)) + kSpare)),
              BitString(frame.bytes(bytes_of(n * uint64_t(d.width)) + kSpare)),
              BitString(frame.bytes(bytes_of(n) + kSpare)),
              {}};
  (d.is_power() ? split<true> : split<false>)(values, d, coded);
  const std::span<const uint8_t> parts[] = {coded.unary.bytes(), coded.remainders.bytes(), coded.extras.bytes(),
                                            coded.beyond};
  std::vector<uint8_t> out;
  put_varint(out, d.divisor), put_varint(out, coded.unary.bits()), put_varint(out, coded.extras.bits());
  size_t bytes = out.size();
  for (const auto part : parts) bytes += part.size();
  if (bytes > 1 + 8 * n) {  // divisor 0: the values as they are
    out.assign(1 + 8 * n, 0);
    std::memcpy(out.data() + 1, values.data(), 8 * n);
    return out;
  }
  out.reserve(bytes);
  for (const auto part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

void decode_chunk(std::span<const uint8_t> data, std::span<uint64_t> out, const char* what) {
  const uint64_t divisor = take_varint(data, what), n = out.size();
  if (divisor == 0) {
    TERSOR_REQUIRE(data.size() == 8 * n, Code::bad_data, what, ": a chunk of ", data.size(), " bytes for ", n,
                   " values as they are");
    std::memcpy(out.data(), data.data(), data.size());
    return;
  }
  TERSOR_REQUIRE(divisor <= kMostDivisor, Code::bad_data, what, ": divisor ", divisor, ", 2^56 at most");
  const Divisor d(divisor);
  const uint64_t unary_bits = take_varint(data, what), extra_bits = take_varint(data, what);
  TERSOR_REQUIRE(unary_bits >= n && unary_bits <= n * (kMostUnary + 1), Code::bad_data, what, ": ", unary_bits,
                 " bits of quotients for ", n, " values");
  TERSOR_REQUIRE(extra_bits <= (d.is_power() ? 0 : n), Code::bad_data, what, ": ", extra_bits, " extra bits for ", n,
                 " values and divisor ", divisor);
  ByteReader reader(data, what);
  const auto unary = reader.take(bytes_of(unary_bits)), remainders = reader.take(bytes_of(n * uint64_t(d.width)));
  const auto extras = reader.take(bytes_of(extra_bits)), beyond = reader.take(reader.left());
  TERSOR_REQUIRE(ends_in_zeros(unary, unary_bits) && ends_in_zeros(remainders, n * uint64_t(d.width)) &&
                     ends_in_zeros(extras, extra_bits),
                 Code::bad_data, what, ": bits behind the last");
  // Kernels load words: each part gets a copy with room behind it.
  ScratchFrame frame;
  const auto copy_of = [&](std::span<const uint8_t> part, size_t bytes) {
    const auto copy = frame.bytes(bytes);
    std::fill(std::copy(part.begin(), part.end(), copy.begin()), copy.end(), uint8_t(0));
    return copy.data();
  };
  const size_t words = size_t(ceil_div(unary_bits, 64));
  const Strings strings{copy_of(unary, 8 * words),
                        copy_of(remainders, remainders.size() + 8),
                        copy_of(extras, bytes_of(n) + 1),
                        words,
                        extra_bits,
                        beyond};
  uint64_t ones = 0;
  for (size_t i = 0; i < words; ++i) ones += uint64_t(std::popcount(load_le<uint64_t>(strings.unary + 8 * i)));
  TERSOR_REQUIRE(ones == n && unary.back() >> ((unary_bits - 1) % 8), Code::bad_data, what, ": ", ones,
                 " quotients in ", unary_bits, " bits for ", n, " values");
  TERSOR_REQUIRE((d.is_power() ? join<true> : join<false>)(strings, d, out.data()), Code::bad_data, what,
                 ": a quotient out of range, or bits that belong to no value");
}

void append_chunks(std::vector<uint8_t>& out, std::span<const std::vector<uint8_t>> chunks) {
  size_t bytes = out.size();
  for (const auto& chunk : chunks) put_varint(out, chunk.size()), bytes += chunk.size();
  out.reserve(out.size() + bytes);
  for (const auto& chunk : chunks) out.insert(out.end(), chunk.begin(), chunk.end());
}

Head read_head(std::span<const uint8_t> data, uint8_t number, uint8_t most_kind, const char* what) {
  ByteReader reader(data, what);
  take_stream(reader, number, kVersion, what);
  const uint8_t log_chunk = reader.take<uint8_t>(), kind = reader.take<uint8_t>();
  TERSOR_REQUIRE(log_chunk >= kLeastLogChunk && log_chunk <= kMostLogChunk, Code::bad_data, what, ": chunks of 2^",
                 int(log_chunk), " values, 2^10..2^20 are allowed");
  TERSOR_REQUIRE(kind <= most_kind, Code::bad_data, what, ": kind ", int(kind), ", 0..", int(most_kind), " are known");
  return {kind, log_chunk, reader.take(reader.left())};
}

void require_bits(uint64_t values, size_t bytes, const char* what) {
  // A value takes a bit or more: a claim beyond that is a lie, told before anything is allocated.
  TERSOR_REQUIRE(ceil_div(values, 8) <= bytes, Code::bad_data, what, ": ", values, " values claimed by ", bytes,
                 " bytes");
}

template <class T>
std::vector<uint8_t> encode(std::span<const T> values, uint64_t divisor, bool zigzag, int threads) {
  TERSOR_REQUIRE(divisor <= kMostDivisor, Code::bad_call, "parameter ", divisor, ", 1..2^56 are allowed");
  std::vector<std::vector<uint8_t>> chunks(size_t(ceil_div(values.size(), kChunk)));
  parallel_for(chunks.size(), 1, threads, [&](size_t i, size_t) {
    ScratchFrame frame;
    const auto part = values.subspan(i * kChunk, std::min(kChunk, values.size() - i * kChunk));
    const auto loaded = frame.take<uint64_t>(part.size());
    load(part, zigzag, i * kChunk, loaded.data());
    chunks[i] = encode_chunk(loaded, divisor);
  });
  std::vector<uint8_t> out = {kStream, kVersion, kLogChunk, zigzag};
  put_varint(out, values.size());
  append_chunks(out, chunks);
  return out;
}

Told told(std::span<const uint8_t> data) {
  const Stream stream = open(data);
  return {stream.count, stream.head.kind == 1};
}

template <class T>
void decode(std::span<const uint8_t> data, std::span<T> out, int threads) {
  auto [head, count] = open(data);
  TERSOR_REQUIRE(count == out.size(), Code::bad_call, "the stream holds ", count, " values, the buffer ", out.size());
  const size_t chunk = size_t(1) << head.log_chunk, chunks = size_t(ceil_div(count, chunk));
  const auto end = take_chunk_ends(head.rest, chunks, kWhat);
  parallel_for(chunks, 1, threads, [&, &rest = head.rest, &kind = head.kind](size_t i, size_t) {
    ScratchFrame frame;
    const auto values = frame.take<uint64_t>(std::min(chunk, out.size() - i * chunk));
    decode_chunk(rest.subspan(size_t(end[i]), size_t(end[i + 1] - end[i])), values, kWhat);
    store(std::span<const uint64_t>(values), kind == 1, i * chunk, out.data() + i * chunk);
  });
}

#define TERSOR_GOLOMB(T)                                                            \
  template std::vector<uint8_t> encode<T>(std::span<const T>, uint64_t, bool, int); \
  template void decode<T>(std::span<const uint8_t>, std::span<T>, int);
TERSOR_GOLOMB(uint8_t)
TERSOR_GOLOMB(int8_t)
TERSOR_GOLOMB(uint16_t)
TERSOR_GOLOMB(int16_t)
TERSOR_GOLOMB(uint32_t)
TERSOR_GOLOMB(int32_t)
TERSOR_GOLOMB(uint64_t)
TERSOR_GOLOMB(int64_t)
#undef TERSOR_GOLOMB

}  // namespace tersor::entropy::golomb
