// The range coder, which keeps its state between calls. Arrays arrive as addresses, see bind.h; the GIL is released
// where a call has work for it.
#include "entropy/range.h"

#include <nanobind/nanobind.h>

#include <atomic>
#include <optional>

#include "binding/bind.h"
#include "core/error.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using entropy::range::Decoder;
using entropy::range::Encoder;
using entropy::range::Rates;

constexpr size_t kLongCall = 2000;  // bins or values: some 10 us

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

// f(span of ids), whose width in bytes is known at run time only.
template <class F>
void with_ids(uintptr_t address, size_t count, int width, const F& f) {
  switch (width) {
    case 1: return f(span_at<const uint8_t>(address, count));
    case 2: return f(span_at<const uint16_t>(address, count));
    case 4: return f(span_at<const uint32_t>(address, count));
    default: return f(span_at<const uint64_t>(address, count));
  }
}

// One coder, one call at a time: another thread may come while the GIL is released.
template <class Coder>
class Exclusive {
 public:
  template <class... Arguments>
  explicit Exclusive(const Arguments&... arguments) : coder_(arguments...) {}

  template <class F>
  decltype(auto) run(size_t work, const F& f) {
    TERSOR_REQUIRE(!busy_.exchange(true), Code::bad_call, "another thread is in a call of this coder");
    const struct Release {
      std::atomic<bool>& busy;
      ~Release() { busy = false; }
    } release{busy_};
    std::optional<nb::gil_scoped_release> released;
    if (work >= kLongCall) released.emplace();
    return f(coder_);
  }

 private:
  Coder coder_;
  std::atomic<bool> busy_ = false;
};

using RangeEncoder = Exclusive<Encoder>;
using RangeDecoder = Exclusive<Decoder>;

}  // namespace

void bind_range(nb::module_& m) {
  nb::class_<RangeEncoder>(m, "RangeEncoder")
      .def("__init__",
           [](RangeEncoder* self, size_t contexts, int quick, int slow, uintptr_t start, size_t starts) {
             new (self) RangeEncoder(contexts, Rates{quick, slow}, span_at<const uint16_t>(start, starts));
           })
      .def("encode_bin",
           [](RangeEncoder& self, uint8_t bin, uint32_t context) {
             self.run(1, [&](Encoder& coder) {
               coder.encode(std::span<const uint8_t>(&bin, 1), std::span<const uint32_t>(&context, 1));
             });
           })
      .def("encode",
           [](RangeEncoder& self, uintptr_t bins, uintptr_t contexts, size_t count, int width) {
             self.run(count, [&](Encoder& coder) {
               with_ids(contexts, count, width,
                        [&](auto ids) { coder.encode(span_at<const uint8_t>(bins, count), ids); });
             });
           })
      .def("encode_bypass",
           [](RangeEncoder& self, uintptr_t values, size_t count, int width) {
             self.run(count,
                      [&](Encoder& coder) { coder.encode_bypass(span_at<const uint32_t>(values, count), width); });
           })
      .def("encode_exp_golomb",
           [](RangeEncoder& self, uintptr_t values, uintptr_t first, size_t count, int width, size_t span, int order,
              bool zigzag) {
             self.run(count, [&](Encoder& coder) {
               with_ids(first, count, width, [&](auto ids) {
                 coder.encode_exp_golomb(span_at<const uint32_t>(values, count), ids, span, order, zigzag);
               });
             });
           })
      .def("finish", [](RangeEncoder& self) {
        const auto data = self.run(0, [](Encoder& coder) { return coder.finish(); });
        return nb::bytes(data.data(), data.size());
      });

  nb::class_<RangeDecoder>(m, "RangeDecoder")
      .def("__init__",
           [](RangeDecoder* self, uintptr_t data, size_t bytes, size_t contexts, int quick, int slow, uintptr_t start,
              size_t starts) {
             new (self) RangeDecoder(span_at<const uint8_t>(data, bytes), contexts, Rates{quick, slow},
                                     span_at<const uint16_t>(start, starts));
           })
      .def("decode_bin",
           [](RangeDecoder& self, uint32_t context) {
             uint8_t bin = 0;
             self.run(1, [&](Decoder& coder) {
               coder.decode(std::span<const uint32_t>(&context, 1), std::span<uint8_t>(&bin, 1));
             });
             return int(bin);
           })
      .def("decode",
           [](RangeDecoder& self, uintptr_t contexts, uintptr_t bins, size_t count, int width) {
             self.run(count, [&](Decoder& coder) {
               with_ids(contexts, count, width, [&](auto ids) { coder.decode(ids, span_at<uint8_t>(bins, count)); });
             });
           })
      .def("decode_bypass",
           [](RangeDecoder& self, uintptr_t values, size_t count, int width) {
             self.run(count, [&](Decoder& coder) { coder.decode_bypass(width, span_at<uint32_t>(values, count)); });
           })
      .def("decode_exp_golomb",
           [](RangeDecoder& self, uintptr_t first, uintptr_t values, size_t count, int width, size_t span, int order,
              bool zigzag) {
             self.run(count, [&](Decoder& coder) {
               with_ids(first, count, width, [&](auto ids) {
                 coder.decode_exp_golomb(ids, span, order, zigzag, span_at<uint32_t>(values, count));
               });
             });
           })
      .def("finish", [](RangeDecoder& self) { self.run(0, [](Decoder& coder) { coder.finish(); }); });
}

}  // namespace tersor::binding
