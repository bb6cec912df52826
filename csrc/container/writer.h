// Writes a .tsr front to back, without seeking: header, chunks as they come, index, trailer.
#pragma once
#include <span>
#include <vector>

#include "container/index.h"

namespace tersor::container {

class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(std::span<const uint8_t> bytes) = 0;  // all of them, or raises environment

  // Memory of the sink's own where the next `bytes` would go, so that they need no copy; empty where it has none.
  // The first `written` bytes of it become part of the output, before anything else is written.
  virtual std::span<uint8_t> room(size_t /*bytes*/) { return {}; }
  virtual void keep(size_t /*written*/) {}
};

class MemorySink final : public Sink {
 public:
  void write(std::span<const uint8_t> bytes) override { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

class Writer {
 public:
  explicit Writer(Sink& sink);  // writes the header

  // Stored bytes of the next chunks, one or several of them, in the order in which the index will list them.
  void append(std::span<const uint8_t> stored);
  std::span<uint8_t> room(size_t bytes) { return sink_.room(bytes); }  // the same, made in place: see Sink
  void keep(size_t stored);

  // Writes index and trailer; returns the size of the whole. The index's chunks must add up to what was appended.
  uint64_t finish(const Index& index);

 private:
  void put(std::span<const uint8_t> bytes);
  Sink& sink_;
  uint64_t written_ = 0;
};

}  // namespace tersor::container
