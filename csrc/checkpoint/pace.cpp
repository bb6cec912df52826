#include "checkpoint/pace.h"

#include "core/error.h"

namespace tersor::checkpoint {

Pace::Pace(Progress* progress, uint64_t total) noexcept
    : progress_(progress), total_(total), caller_(std::this_thread::get_id()) {}

void Pace::add(uint64_t bytes) {
  done_.fetch_add(bytes, std::memory_order_relaxed);
  if (!progress_ || std::this_thread::get_id() != caller_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - asked_ < std::chrono::milliseconds(10) && done_.load(std::memory_order_relaxed) < total_) return;
  asked_ = now;
  ask();
}

void Pace::ask() {
  if (!progress_) return;
  TERSOR_REQUIRE(progress_->step(done_.load(std::memory_order_relaxed), total_), Code::interrupted, "interrupted");
}

}  // namespace tersor::checkpoint
