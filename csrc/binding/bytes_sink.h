// A Python bytes object that a container is written into, without a copy at the end.
#pragma once
#include <nanobind/nanobind.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "container/writer.h"

namespace tersor::binding {

// Room is reserved for what the result can be at most, since pages that nobody touches cost nothing, and cut at the
// end. Fresh pages of 4 KiB cost more than the coding that fills them, so huge ones are asked for.
class BytesSink final : public container::Sink {
 public:
  explicit BytesSink(size_t reserve)
      : object_(PyBytes_FromStringAndSize(nullptr, Py_ssize_t(reserve))), room_(reserve) {
    if (!object_) nanobind::raise_python_error();
    ask_huge_pages();
  }
  BytesSink(const BytesSink&) = delete;
  BytesSink& operator=(const BytesSink&) = delete;
  ~BytesSink() { Py_XDECREF(object_); }

  void write(std::span<const uint8_t> bytes) override {  // on any thread, without the GIL
    if (bytes.size() > room_ - used_) grow(used_ + bytes.size());
    if (!bytes.empty()) std::memcpy(data() + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
  }

  std::span<uint8_t> room(size_t bytes) override {
    return bytes > room_ - used_ ? std::span<uint8_t>() : std::span(data() + used_, bytes);
  }
  void keep(size_t written) override { used_ += written; }

  nanobind::bytes take() {
    resize(used_);
    return nanobind::steal<nanobind::bytes>(std::exchange(object_, nullptr));
  }

 private:
  uint8_t* data() noexcept { return reinterpret_cast<uint8_t*>(PyBytes_AsString(object_)); }
  void resize(size_t bytes) {
    if (_PyBytes_Resize(&object_, Py_ssize_t(bytes)) != 0) nanobind::raise_python_error();
    room_ = bytes;
  }
  void grow(size_t needed) {
    const nanobind::gil_scoped_acquire held;
    resize(std::max(needed, room_ + room_ / 2));
    ask_huge_pages();
  }
  void ask_huge_pages() noexcept {
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t kHuge = uintptr_t(2) << 20;
    const auto begin = (reinterpret_cast<uintptr_t>(data()) + kHuge - 1) / kHuge * kHuge;
    const auto end = (reinterpret_cast<uintptr_t>(data()) + room_) / kHuge * kHuge;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a no is no harm
#endif
  }

  PyObject* object_;
  size_t room_, used_ = 0;
};

}  // namespace tersor::binding
