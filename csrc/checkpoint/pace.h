// Counts work done on any thread and reports it to the caller's Progress on the calling thread.
#pragma once
#include <atomic>
#include <chrono>
#include <thread>

#include "checkpoint/checkpoint.h"

namespace tersor::checkpoint {

class Pace {
 public:
  Pace(Progress* progress, uint64_t total) noexcept;

  // Any thread. On the calling thread it asks Progress, at most every 10 ms, and raises interrupted.
  void add(uint64_t bytes);
  // On the calling thread only: asks at once. For system calls that a signal has cut short.
  void ask();

 private:
  Progress* const progress_;
  const uint64_t total_;
  const std::thread::id caller_;
  std::atomic<uint64_t> done_{0};
  std::chrono::steady_clock::time_point asked_;  // touched by the calling thread alone
};

}  // namespace tersor::checkpoint
