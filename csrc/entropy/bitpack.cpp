#include "entropy/bitpack.h"

#include <algorithm>
#include <atomic>

#include "core/isa.h"
#include "core/pool.h"

namespace tersor::entropy::bitpack {
namespace {

constexpr size_t kPiece = size_t(1) << 18;  // values of a thread; a multiple of 8, so that pieces share no byte

template <class T>
constexpr Variant<Pack<T>> kPack[] = {{Isa::scalar, pack_scalar}, TERSOR_X86({Isa::avx2, pack_avx2}, )};
template <class T>
constexpr Variant<Unpack<T>> kUnpack[] = {{Isa::scalar, unpack_scalar}, TERSOR_X86({Isa::avx2, unpack_avx2}, )};

// f(values from, count, bytes from, count) for every piece.
template <class F>
void each_piece(size_t values, int bits, int threads, const F& f) {
  parallel_for(size_t(ceil_div(values, kPiece)), 1, threads, [&](size_t i, size_t) {
    const size_t first = i * kPiece, count = std::min(kPiece, values - first);
    f(first, count, first / 8 * size_t(bits), size_t(packed_bytes(count, bits)));
  });
}

}  // namespace

void require_bits(int bits, int most) {
  TERSOR_REQUIRE(bits >= 1 && bits <= most, Code::bad_call, bits, " bits a value, 1..", most, " are allowed");
}

template <class T>
void pack_bits(std::span<const T> values, int bits, std::span<uint8_t> out, int threads) {
  require_bits(bits, 8 * sizeof(T));
  TERSOR_REQUIRE(out.size() == packed_bytes(values.size(), bits), Code::bad_call, "a buffer of ", out.size(),
                 " bytes, ", packed_bytes(values.size(), bits), " are needed");
  if (bits == 8 * sizeof(T)) {
    std::copy_n(reinterpret_cast<const uint8_t*>(values.data()), out.size(), out.begin());
    return;
  }
  std::atomic<uint32_t> all = 0;
  each_piece(values.size(), bits, threads, [&](size_t first, size_t count, size_t begin, size_t bytes) {
    all |= pick(kPack<T>)(values.subspan(first, count), bits, out.subspan(begin, bytes));
  });
  if (all >> bits == 0) return;
  const auto found = std::find_if(values.begin(), values.end(), [&](T value) { return value >> bits != 0; });
  fail(Code::bad_call, "value ", int(*found), " at place ", found - values.begin(), " does not fit ", bits, " bits");
}

template <class T>
void unpack_bits(std::span<const uint8_t> data, int bits, std::span<T> out, int threads) {
  require_bits(bits, 8 * sizeof(T));
  TERSOR_REQUIRE(data.size() == packed_bytes(out.size(), bits), Code::bad_data, "packed values: ", data.size(),
                 " bytes, ", packed_bytes(out.size(), bits), " are needed for ", out.size(), " values of ", bits,
                 " bits");
  if (bits == 8 * sizeof(T)) {
    std::copy_n(data.begin(), data.size(), reinterpret_cast<uint8_t*>(out.data()));
    return;
  }
  each_piece(out.size(), bits, threads, [&](size_t first, size_t count, size_t begin, size_t bytes) {
    pick(kUnpack<T>)(data.subspan(begin, bytes), bits, out.subspan(first, count));
  });
}

template void pack_bits<uint8_t>(std::span<const uint8_t>, int, std::span<uint8_t>, int);
template void pack_bits<uint16_t>(std::span<const uint16_t>, int, std::span<uint8_t>, int);
template void unpack_bits<uint8_t>(std::span<const uint8_t>, int, std::span<uint8_t>, int);
template void unpack_bits<uint16_t>(std::span<const uint8_t>, int, std::span<uint16_t>, int);

}  // namespace tersor::entropy::bitpack
