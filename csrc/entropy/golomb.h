// Golomb and Rice codes of integers up to 64 bits, and of the gaps between the indexes of a sparse support.
// Page: docs/formats/golomb.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tersor::entropy {

namespace golomb {

inline constexpr uint64_t kMostDivisor = uint64_t(1) << 56;

// divisor: 1..kMostDivisor, a power of two for Rice; 0 takes for every chunk the one that costs a sample of it least.
// zigzag: 0, -1, 1, -2 ... become 0, 1, 2, 3 ...; without it a value below 0 is refused (bad_call).
// T: any integer of 8 to 64 bits. The bytes depend on neither T nor threads.
template <class T>
std::vector<uint8_t> encode(std::span<const T> values, uint64_t divisor, bool zigzag, int threads);

struct Told {
  uint64_t count;
  bool zigzag;
};

// What a stream says of itself, without decoding it; the count is bounded by the bytes. Raises bad_data.
Told told(std::span<const uint8_t> data);

// out: told(data).count long, else bad_call, and so is a value that T does not hold. Raises bad_data.
template <class T>
void decode(std::span<const uint8_t> data, std::span<T> out, int threads);

// What golomb and gap streams share: chunks of values, one divisor each.
inline constexpr int kLogChunk = 15, kLeastLogChunk = 10, kMostLogChunk = 20;
inline constexpr size_t kChunk = size_t(1) << kLogChunk;

// At most 1 + 8 * values.size() bytes. divisor: as encode takes it.
std::vector<uint8_t> encode_chunk(std::span<const uint64_t> values, uint64_t divisor);

// what: names the stream in errors. Raises bad_data unless the chunk holds out.size() values and nothing else.
void decode_chunk(std::span<const uint8_t> data, std::span<uint64_t> out, const char* what);

// Appends the chunks' lengths, then the chunks.
void append_chunks(std::vector<uint8_t>& out, std::span<const std::vector<uint8_t>> chunks);

struct Head {
  uint8_t kind;  // the stream's own
  int log_chunk;
  std::span<const uint8_t> rest;
};

// The first four bytes of a stream of this number. Raises bad_data.
Head read_head(std::span<const uint8_t> data, uint8_t number, uint8_t most_kind, const char* what);

// Raises bad_data for more values than `bytes` of chunks can hold.
void require_bits(uint64_t values, size_t bytes, const char* what);

}  // namespace golomb

namespace gap {

inline constexpr uint64_t kMostSize = uint64_t(1) << 63;

// positions: strictly increasing, each in [0, size), else bad_call with the first that is not. size: at most kMostSize.
// The bytes are never more than those of a bitmap and 24. T: an integer of 32 or 64 bits.
template <class T>
std::vector<uint8_t> encode(std::span<const T> positions, uint64_t size, int threads);

struct Told {
  uint64_t size, count;  // the positions are below size
};

// What a stream says of itself, without decoding it; count <= 2^16 * data.size(). Raises bad_data.
Told told(std::span<const uint8_t> data);

// out: told(data).count long, and T holds told(data).size - 1, else bad_call. Raises bad_data.
template <class T>
void decode(std::span<const uint8_t> data, std::span<T> out, int threads);

}  // namespace gap

}  // namespace tersor::entropy
