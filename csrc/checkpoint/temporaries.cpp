#include "checkpoint/temporaries.h"

#include <limits.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace tersor::checkpoint {
namespace {

enum State : int { kFree, kBusy, kSet };
struct Slot {
  std::atomic<int> state{kFree};
  char path[PATH_MAX];
};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler reads it");
constexpr int kSlots = 64;
Slot slots[kSlots];

}  // namespace

Temporary::Temporary(std::string path) : path_(std::move(path)) {
  TERSOR_REQUIRE(path_.size() < sizeof slots[0].path, Code::environment, "the path has ", path_.size(),
                 " bytes, at most ", sizeof slots[0].path - 1, " are allowed");
  for (int i = 0; i < kSlots; ++i) {
    int expected = kFree;
    if (!slots[i].state.compare_exchange_strong(expected, kBusy)) continue;
    std::memcpy(slots[i].path, path_.c_str(), path_.size() + 1);
    slots[i].state.store(kSet);
    slot_ = i;
    return;
  }
  fail(Code::environment, kSlots, " files are being written already, no more are allowed at once");
}

Temporary::Temporary(Temporary&& other) noexcept
    : path_(std::move(other.path_)), slot_(std::exchange(other.slot_, -1)) {}

Temporary& Temporary::operator=(Temporary&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(slot_, other.slot_);
  return *this;
}

Temporary::~Temporary() {
  if (slot_ < 0) return;
  ::unlink(path_.c_str());
  release();
}

void Temporary::release() noexcept {
  if (slot_ >= 0) slots[slot_].state.store(kFree);
  slot_ = -1;
}

void remove_temporaries() noexcept {
  for (Slot& slot : slots) {
    if (slot.state.load() == kSet) ::unlink(slot.path);
  }
}

}  // namespace tersor::checkpoint
