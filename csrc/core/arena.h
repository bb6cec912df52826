// Scratch memory of one thread: grows to the largest call and is reused, so that hot calls allocate nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tersor {

// A frame gives back what was taken since it was opened. Frames nest; spans die with their frame.
class ScratchFrame {
 public:
  ScratchFrame() noexcept;
  ~ScratchFrame();
  ScratchFrame(const ScratchFrame&) = delete;
  ScratchFrame& operator=(const ScratchFrame&) = delete;

  // 64-byte aligned, uninitialized, with 64 readable bytes behind it. Raises environment when memory is short.
  std::span<uint8_t> bytes(size_t count);
  template <class T>
  std::span<T> take(size_t count) {
    return {reinterpret_cast<T*>(bytes(count * sizeof(T)).data()), count};
  }

 private:
  size_t block_, used_;
};

}  // namespace tersor
