// Golomb and gap streams, packed bits and combinations: codes of integers of any width. Arrays arrive as addresses with
// a dtype's name, see bind.h; the GIL is released around all coding.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <string>

#include "binding/bind.h"
#include "binding/bytes_sink.h"
#include "core/error.h"
#include "entropy/bitpack.h"
#include "entropy/combination.h"
#include "entropy/golomb.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using namespace entropy;

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

// f(T()) for the C++ type of a dtype, if it is among Ts, else bad_type.
template <class... Ts, class F>
void with_type(const std::string& dtype, const char* what, const F& f) {
  const auto name = [](auto zero) {
    return (std::is_signed_v<decltype(zero)> ? "I" : "U") + std::to_string(8 * sizeof zero);
  };
  const bool found = ((dtype == name(Ts()) && (f(Ts()), true)) || ...);
  if (found) return;
  std::string known;
  ((known += (known.empty() ? "" : ", ") + name(Ts())), ...);
  fail(Code::bad_type, what, " are of one of the dtypes ", known, ", not ", dtype);
}

template <class F>
void with_integer(const std::string& dtype, const F& f) {
  with_type<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>(dtype, "values", f);
}

template <class F>
void with_position(const std::string& dtype, const F& f) {
  with_type<uint32_t, int32_t, uint64_t, int64_t>(dtype, "positions", f);
}

template <class F>
void with_packable(const std::string& dtype, const F& f) {
  with_type<uint8_t, uint16_t>(dtype, "values to pack", f);
}

template <class F>
nb::bytes bytes_by(const F& encode) {
  std::vector<uint8_t> data;
  {
    const nb::gil_scoped_release released;
    data = encode();
  }
  return nb::bytes(data.data(), data.size());
}

using Words = std::pair<uint64_t, uint64_t>;  // an index of 128 bits, the low word first

}  // namespace

void bind_integers(nb::module_& m) {
  m.def(
      "golomb_encode",
      [](const std::string& dtype, uintptr_t values, size_t count, uint64_t divisor, bool zigzag, int threads) {
        return bytes_by([&] {
          std::vector<uint8_t> data;
          with_integer(dtype, [&]<class T>(T) {
            data = golomb::encode(span_at<const T>(values, count), divisor, zigzag, threads);
          });
          return data;
        });
      },
      nb::arg("dtype"), nb::arg("values"), nb::arg("count"), nb::arg("divisor"), nb::arg("zigzag"), nb::arg("threads"));
  m.def(
      "golomb_told",
      [](uintptr_t data, size_t bytes) {
        const auto told = golomb::told(span_at<const uint8_t>(data, bytes));
        return std::pair(told.count, told.zigzag);
      },
      nb::arg("data"), nb::arg("bytes"));
  m.def(
      "golomb_decode",
      [](uintptr_t data, size_t bytes, const std::string& dtype, uintptr_t out, size_t count, int threads) {
        const nb::gil_scoped_release released;
        with_integer(dtype, [&]<class T>(T) {
          golomb::decode(span_at<const uint8_t>(data, bytes), span_at<T>(out, count), threads);
        });
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("dtype"), nb::arg("out"), nb::arg("count"), nb::arg("threads"));

  m.def(
      "gap_encode",
      [](const std::string& dtype, uintptr_t positions, size_t count, uint64_t size, int threads) {
        return bytes_by([&] {
          std::vector<uint8_t> data;
          with_position(dtype,
                        [&]<class T>(T) { data = gap::encode(span_at<const T>(positions, count), size, threads); });
          return data;
        });
      },
      nb::arg("dtype"), nb::arg("positions"), nb::arg("count"), nb::arg("size"), nb::arg("threads"));
  m.def(
      "gap_told",
      [](uintptr_t data, size_t bytes) {
        const auto told = gap::told(span_at<const uint8_t>(data, bytes));
        return std::pair(told.size, told.count);
      },
      nb::arg("data"), nb::arg("bytes"));
  m.def(
      "gap_decode",
      [](uintptr_t data, size_t bytes, const std::string& dtype, uintptr_t out, size_t count, int threads) {
        const nb::gil_scoped_release released;
        with_position(dtype, [&]<class T>(T) {
          gap::decode(span_at<const uint8_t>(data, bytes), span_at<T>(out, count), threads);
        });
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("dtype"), nb::arg("out"), nb::arg("count"), nb::arg("threads"));

  m.def("bitpack_size", &bitpack::packed_bytes, nb::arg("count"), nb::arg("bits"));
  m.def(
      "bitpack_encode",
      [](const std::string& dtype, uintptr_t values, size_t count, int bits, int threads) {
        bitpack::require_bits(bits, bitpack::kMostBits);
        const size_t bytes = size_t(bitpack::packed_bytes(count, bits));
        BytesSink sink(bytes);
        {
          const nb::gil_scoped_release released;
          with_packable(dtype, [&]<class T>(T) {
            bitpack::pack_bits(span_at<const T>(values, count), bits, sink.room(bytes), threads);
          });
          sink.keep(bytes);
        }
        return sink.take();
      },
      nb::arg("dtype"), nb::arg("values"), nb::arg("count"), nb::arg("bits"), nb::arg("threads"));
  m.def(
      "bitpack_decode",
      [](uintptr_t data, size_t bytes, int bits, const std::string& dtype, uintptr_t out, size_t count, int threads) {
        const nb::gil_scoped_release released;
        with_packable(dtype, [&]<class T>(T) {
          bitpack::unpack_bits(span_at<const uint8_t>(data, bytes), bits, span_at<T>(out, count), threads);
        });
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("bits"), nb::arg("dtype"), nb::arg("out"), nb::arg("count"),
      nb::arg("threads"));

  m.def(
      "combination_count",
      [](uint64_t n, uint64_t k) {
        const auto count = combination::count(n, k);
        return Words(uint64_t(count), uint64_t(count >> 64));
      },
      nb::arg("n"), nb::arg("k"));
  m.def("combination_words", &combination::index_words, nb::arg("n"), nb::arg("k"));
  m.def(
      "combination_encode",
      [](uintptr_t positions, size_t rows, uint64_t n, uint64_t k, uintptr_t indexes, int threads) {
        const nb::gil_scoped_release released;
        combination::encode(span_at<const int64_t>(positions, rows * k), n, k,
                            span_at<uint64_t>(indexes, rows * size_t(combination::index_words(n, k))), threads);
      },
      nb::arg("positions"), nb::arg("rows"), nb::arg("n"), nb::arg("k"), nb::arg("indexes"), nb::arg("threads"));
  m.def(
      "combination_decode",
      [](uintptr_t indexes, size_t rows, uint64_t n, uint64_t k, uintptr_t positions, int threads) {
        const nb::gil_scoped_release released;
        combination::decode(span_at<const uint64_t>(indexes, rows * size_t(combination::index_words(n, k))), n, k,
                            span_at<int64_t>(positions, rows * k), threads);
      },
      nb::arg("indexes"), nb::arg("rows"), nb::arg("n"), nb::arg("k"), nb::arg("positions"), nb::arg("threads"));
}

}  // namespace tersor::binding
