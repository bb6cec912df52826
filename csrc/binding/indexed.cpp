// Sets of tables and the indexed stream. Symbols, indexes and means come as buffers of integers, which costs a tenth of
// a microsecond each: context models make a call for every few symbols. What is not such a buffer, or not of the
// integers that the core takes, is refused with False, and Python makes it one.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "binding/bind.h"
#include "core/error.h"
#include "entropy/distribution.h"
#include "entropy/indexed.h"
#include "entropy/table_set.h"

namespace nb = nanobind;

namespace tersor::binding {
namespace {

using entropy::TableSet;
namespace indexed = entropy::indexed;

constexpr size_t kLongCall = 4096;  // symbols: some ten microseconds, for which the GIL is released

// A contiguous buffer of integers, held while it lives.
class Integers {
 public:
  Integers(nb::handle object, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    held_ = PyObject_GetBuffer(object.ptr(), &view_, flags) == 0;
    if (!held_) PyErr_Clear();
  }
  Integers(const Integers&) = delete;
  Integers& operator=(const Integers&) = delete;
  ~Integers() {
    if (held_) PyBuffer_Release(&view_);
  }
  bool is(bool is_signed, int bytes) const noexcept {
    if (!held_ || view_.itemsize != bytes) return false;
    const char* format = view_.format ? view_.format : "B";
    if (*format == '@' || *format == '=' || *format == '<') ++format;
    return *format && format[1] == 0 && std::string_view(is_signed ? "bhilq" : "BHILQ").find(*format) < 5;
  }
  size_t count() const noexcept { return size_t(view_.len / view_.itemsize); }
  template <class T>
  std::span<T> as() const noexcept {
    return {static_cast<T*>(view_.buf), count()};
  }
  bool are_indexes() const noexcept { return is(false, 1) || is(false, 2) || is(true, 4); }
  indexed::Indexes indexes() const noexcept { return {view_.buf, count(), int(view_.itemsize)}; }

 private:
  Py_buffer view_{};
  bool held_;
};

// means: None or 32-bit integers.
struct Means {
  explicit Means(nb::handle object) {
    if (!object.is_none()) held.emplace(object, false);
  }
  bool sound() const noexcept { return !held || held->is(true, 4); }
  // An empty array of means is not the same as none.
  indexed::Means get(size_t symbols) const {
    if (!held) return {};
    TERSOR_REQUIRE(held->count() == symbols, Code::bad_call, held->count(), " means for ", symbols, " symbols");
    return held->as<const int32_t>();
  }
  std::optional<Integers> held;
};

template <class F>
auto without_gil(size_t symbols, const F& work) {
  std::optional<nb::gil_scoped_release> released;
  if (symbols >= kLongCall) released.emplace();
  return work();
}

// The same for objects with a state, one call at a time. Nobody waits for the GIL with the mutex in hand.
template <class F>
auto one_at_a_time(std::mutex& mutex, size_t symbols, const F& work) {
  return without_gil(symbols, [&] {
    const std::lock_guard lock(mutex);
    return work();
  });
}

nb::bytes bytes_of(const std::vector<uint8_t>& data) { return nb::bytes(data.data(), data.size()); }

template <class T>
std::span<T> span_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<T*>(address), count};
}

// A decoder and the bytes that it reads.
class HeldDecoder {
 public:
  explicit HeldDecoder(nb::bytes data)
      : data_(std::move(data)), decoder_({static_cast<const uint8_t*>(data_.data()), data_.size()}) {}
  indexed::Decoder& get() noexcept { return decoder_; }
  std::mutex mutex;

 private:
  nb::bytes data_;
  indexed::Decoder decoder_;
};

using Set = std::shared_ptr<TableSet>;

// An encoder and the sets that its symbols are coded by. Sets are let go with the GIL and never with the mutex: who
// waits for it may hold the GIL, which letting go would wait for. A set is made a shared pointer when it changes, not
// with each call.
struct HeldEncoder {
  indexed::Encoder encoder;
  std::vector<Set> sets;
  nb::object latest;
  std::mutex mutex;

  const Set& keep(nb::handle set) {
    if (sets.empty() || !latest.is(set)) {
      sets.push_back(nb::cast<Set>(set));
      latest = nb::borrow(set);
    }
    return sets.back();
  }
};

Set shared(TableSet set) { return std::make_shared<TableSet>(std::move(set)); }

// pmfs or cdfs laid end to end, `lengths` of each.
template <class T, class Row>
void each_row(uintptr_t values, const std::vector<size_t>& lengths, const std::vector<int32_t>& lows, const Row& row) {
  TERSOR_REQUIRE(lows.size() == lengths.size(), Code::bad_call, lows.size(), " offsets for ", lengths.size(),
                 " tables");
  size_t at = 0;
  for (size_t i = 0; i < lengths.size(); at += lengths[i++])
    row(lows[i], span_at<const T>(values + at * sizeof(T), lengths[i]), i);
}

// Refuses what the kernels could not even be asked.
bool take_arrays(const Integers& symbols, const Integers& indexes, const Means& means) {
  return symbols.is(true, 4) && indexes.are_indexes() && means.sound();
}

void bind_table_set(nb::module_& m) {
  nb::class_<TableSet>(m, "TableSet")
      .def_static("mixtures",
                  [](int family, size_t components, size_t count, uintptr_t weights, uintptr_t means, uintptr_t scales,
                     uintptr_t freedoms, int precision, int fraction_bits) {
                    const nb::gil_scoped_release released;
                    return shared(entropy::make_mixtures(
                        entropy::Family(family), components, span_at<const uint32_t>(weights, count),
                        span_at<const int32_t>(means, count), span_at<const uint32_t>(scales, count),
                        span_at<const uint32_t>(freedoms, freedoms ? count : 0), precision, fraction_bits));
                  })
      .def_static("from_pmfs",
                  [](uintptr_t pmfs, const std::vector<size_t>& lengths, const std::vector<int32_t>& lows,
                     const std::vector<double>& tails, int precision) {
                    const nb::gil_scoped_release released;
                    std::vector<entropy::Masses> tables;
                    each_row<double>(pmfs, lengths, lows, [&](int32_t low, std::span<const double> pmf, size_t i) {
                      tables.push_back(entropy::masses_of_pmf(low, pmf, tails[i]));
                    });
                    return shared(TableSet::from_masses(tables, precision));
                  })
      .def_static(
          "from_cdfs",
          [](uintptr_t values, const std::vector<size_t>& lengths, const std::vector<int32_t>& lows, int precision) {
            const nb::gil_scoped_release released;
            std::vector<TableSet::Cdf> tables;
            each_row<int32_t>(values, lengths, lows,
                              [&](int32_t low, std::span<const int32_t> row, size_t) { tables.push_back({low, row}); });
            return shared(TableSet::from_cdfs(tables, precision));
          })
      .def_static("from_bytes",
                  [](const nb::bytes& data) {
                    return shared(TableSet::parse({static_cast<const uint8_t*>(data.data()), data.size()}));
                  })
      .def("to_bytes",
           [](const TableSet& set) {
             std::vector<uint8_t> bytes;
             set.serialize(bytes);
             return bytes_of(bytes);
           })
      .def("frequencies",
           [](const TableSet& set, size_t table) {
             TERSOR_REQUIRE(table < set.tables(), Code::bad_call, "table ", table, " of ", set.tables());
             const auto& row = set.rows()[table];
             std::vector<uint32_t> found;
             for (uint32_t s = 0; s <= row.count; ++s) found.push_back(set.entries()[row.entry + s].frequency);
             return found;
           })
      .def_prop_ro("lows",
                   [](const TableSet& set) {
                     std::vector<int32_t> lows;
                     for (const auto& row : set.rows()) lows.push_back(row.low);
                     return lows;
                   })
      .def_prop_ro("groups", &TableSet::groups)
      .def_prop_ro("symbols", [](const TableSet& set) { return set.entries().size(); })
      .def_prop_ro("precision", &TableSet::precision)
      .def_prop_ro("fraction_bits", &TableSet::fraction_bits);
}

}  // namespace

void bind_indexed(nb::module_& m) {
  bind_table_set(m);

  // None where an array is not what the core takes
  m.def(
      "indexed_encode",
      [](nb::handle symbols, nb::handle indexes, const TableSet& tables, nb::handle means,
         int threads) -> std::optional<nb::bytes> {
        const Integers from(symbols, false), at(indexes, false);
        const Means mean(means);
        if (!take_arrays(from, at, mean)) return std::nullopt;
        const auto data = without_gil(from.count(), [&] {
          return indexed::encode(from.as<const int32_t>(), at.indexes(), tables, mean.get(from.count()), threads);
        });
        return bytes_of(data);
      },
      nb::arg("symbols"), nb::arg("indexes"), nb::arg("tables"), nb::arg("means").none(), nb::arg("threads"));
  m.def(
      "indexed_decode",
      [](uintptr_t data, size_t bytes, nb::handle indexes, const TableSet& tables, nb::handle means, nb::handle out,
         int threads) {
        const Integers at(indexes, false), to(out, true);
        const Means mean(means);
        if (!take_arrays(to, at, mean)) return false;
        without_gil(to.count(), [&] {
          indexed::decode(span_at<const uint8_t>(data, bytes), at.indexes(), tables, mean.get(to.count()),
                          to.as<int32_t>(), threads);
        });
        return true;
      },
      nb::arg("data"), nb::arg("bytes"), nb::arg("indexes"), nb::arg("tables"), nb::arg("means").none(), nb::arg("out"),
      nb::arg("threads"));

  nb::class_<HeldEncoder>(m, "IndexedEncoder")
      .def(nb::init<>())
      .def(
          "write",
          [](HeldEncoder& held, nb::handle symbols, nb::handle indexes, nb::handle tables, nb::handle means) {
            const Integers from(symbols, false), at(indexes, false);
            const Means mean(means);
            if (!take_arrays(from, at, mean)) return false;
            const Set set = held.keep(tables);
            one_at_a_time(held.mutex, from.count(), [&] {
              held.encoder.write(from.as<const int32_t>(), at.indexes(), set, mean.get(from.count()));
            });
            return true;
          },
          nb::arg("symbols"), nb::arg("indexes"), nb::arg("tables"), nb::arg("means").none())
      .def("write_cdfs",
           [](HeldEncoder& held, uintptr_t cdfs, size_t length, uintptr_t symbols, size_t count) {
             one_at_a_time(held.mutex, count * length, [&] {
               held.encoder.write_cdfs(span_at<const uint16_t>(cdfs, length * count), length,
                                       span_at<const int16_t>(symbols, count));
             });
           })
      .def_prop_ro(
          "symbols",
          [](HeldEncoder& held) { return one_at_a_time(held.mutex, 0, [&] { return held.encoder.symbols(); }); })
      .def("finish", [](HeldEncoder& held, int threads) {
        std::vector<Set> until_here = std::exchange(held.sets, {});  // the encoder has them too, until it is done
        held.latest = nb::object();
        try {
          return bytes_of(one_at_a_time(held.mutex, kLongCall, [&] { return held.encoder.finish(threads); }));
        } catch (...) {  // nothing is lost: finish may be tried again
          held.sets.insert(held.sets.end(), until_here.begin(), until_here.end());
          throw;
        }
      });

  nb::class_<HeldDecoder>(m, "IndexedDecoder")
      .def(nb::init<nb::bytes>())
      .def(
          "read",
          [](HeldDecoder& decoder, nb::handle indexes, const TableSet& tables, nb::handle means, nb::handle out) {
            const Integers at(indexes, false), to(out, true);
            const Means mean(means);
            if (!take_arrays(to, at, mean)) return false;
            one_at_a_time(decoder.mutex, to.count(),
                          [&] { decoder.get().read(at.indexes(), tables, mean.get(to.count()), to.as<int32_t>()); });
            return true;
          },
          nb::arg("indexes"), nb::arg("tables"), nb::arg("means").none(), nb::arg("out"))
      .def("read_cdfs",
           [](HeldDecoder& decoder, uintptr_t cdfs, size_t length, uintptr_t out, size_t count) {
             one_at_a_time(decoder.mutex, count * length, [&] {
               decoder.get().read_cdfs(span_at<const uint16_t>(cdfs, length * count), length,
                                       span_at<int16_t>(out, count));
             });
           })
      .def_prop_ro("symbols", [](HeldDecoder& decoder) { return decoder.get().symbols(); })
      .def_prop_ro("position",
                   [](HeldDecoder& decoder) {
                     return one_at_a_time(decoder.mutex, 0, [&] { return decoder.get().position(); });
                   })
      .def_prop_ro("chunk", [](HeldDecoder& decoder) { return decoder.get().chunk(); })
      .def("seek", [](HeldDecoder& decoder, uint64_t symbol) {
        one_at_a_time(decoder.mutex, 0, [&] { decoder.get().seek(symbol); });
      });
}

}  // namespace tersor::binding
