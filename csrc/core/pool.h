// The one thread pool of the process. The caller works too and never waits for a sleeping worker.
//
// Chunks of an index range are claimed by compare-and-swap on ticket = epoch << 32 | next chunk, by workers and by the
// caller alike. The caller waits for *claimed* chunks only: if no worker wakes in time it has done them all itself. A
// worker that comes late holds an old epoch; its swap fails and it never touches the next job's function. Nested calls
// and calls that find the pool busy run on the calling thread. After fork() the child forgets the pool and makes its
// own on first use. Measured against libgomp and oneTBB in docs/design.md.
#pragma once
#include <cstddef>
#include <exception>
#include <mutex>

namespace tersor {

using RangeFunction = void (*)(void* context, size_t begin, size_t end) noexcept;

// TERSOR_NUM_THREADS, else OMP_NUM_THREADS, else the smaller of affinity mask and cgroup CPU quota.
int default_threads() noexcept;
int num_threads() noexcept;   // what a call takes that does not say
void set_num_threads(int n);  // 1..1024, else bad_call

// Calls f over [0, n) in pieces of `grain`. threads <= 0: num_threads().
void run_ranges(RangeFunction f, void* context, size_t n, size_t grain, int threads) noexcept;

// Threads of somebody else, who has them waiting: calls body(context, i, i + 1) for every i in [0, threads), each on a
// thread of its own if it can, and returns when all have returned.
using Executor = void (*)(RangeFunction body, void* context, size_t threads) noexcept;

// While it lives, calls from this thread that are not nested run on the executor's threads instead of the pool's, which
// would have to fight the others for the cores.
class ExecutorScope {
 public:
  explicit ExecutorScope(Executor executor) noexcept;  // null: changes nothing
  ~ExecutorScope();
  ExecutorScope(const ExecutorScope&) = delete;
  ExecutorScope& operator=(const ExecutorScope&) = delete;

 private:
  Executor before_;
};

// f(begin, end) over [0, n). Results must not depend on who runs what. The first exception is kept, the remaining
// pieces are skipped, and it is thrown again on the caller.
template <class F>
void parallel_for(size_t n, size_t grain, int threads, const F& f) {
  struct Context {
    const F& f;
    std::mutex mutex;
    std::exception_ptr error;
  } context{f, {}, nullptr};
  const RangeFunction call = [](void* opaque, size_t begin, size_t end) noexcept {
    auto& c = *static_cast<Context*>(opaque);
    {
      const std::lock_guard lock(c.mutex);
      if (c.error) return;
    }
    try {
      c.f(begin, end);
    } catch (...) {
      const std::lock_guard lock(c.mutex);
      if (!c.error) c.error = std::current_exception();
    }
  };
  run_ranges(call, &context, n, grain, threads);
  if (context.error) std::rethrow_exception(context.error);
}

}  // namespace tersor
