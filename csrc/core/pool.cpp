#include "core/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace tersor {
namespace {

constexpr int kSpins = 500;  // about 10 us: longer than the gaps inside one call, shorter than anyone notices
constexpr int kMostThreads = 1024;
thread_local bool inside = false;  // this thread is working on a job
thread_local Executor executor = nullptr;

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

struct Pool {
  std::atomic<uint64_t> ticket{0};
  std::atomic<uint32_t> epoch{0}, done{0}, chunks{0};
  std::atomic<int> sleepers{0}, wanted{0};
  std::atomic<RangeFunction> function{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<size_t> size{0}, grain{1};
  std::atomic<bool> busy{false};
  int workers = 0;

  void work(uint32_t e) noexcept {
    // These reads may belong to another job; the swap below proves that epoch e is still open.
    const RangeFunction f = function.load(std::memory_order_relaxed);
    void* const c = context.load(std::memory_order_relaxed);
    const size_t n = size.load(std::memory_order_relaxed), g = grain.load(std::memory_order_relaxed);
    const uint32_t count = chunks.load(std::memory_order_relaxed);
    for (;;) {
      uint64_t t = ticket.load(std::memory_order_acquire);
      do {
        if (uint32_t(t >> 32) != e || uint32_t(t) >= count) return;
      } while (!ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel, std::memory_order_acquire));
      const size_t begin = size_t(uint32_t(t)) * g;
      f(c, begin, std::min(n, begin + g));
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == count) done.notify_one();
    }
  }

  struct Start {
    Pool* pool;
    int id;
  };

  static void* worker(void* argument) {
    const Start start = *static_cast<Start*>(argument);
    delete static_cast<Start*>(argument);
    inside = true;
    Pool& p = *start.pool;
    for (uint32_t seen = 0;;) {
      uint32_t e;
      for (int spins = 0; (e = p.epoch.load(std::memory_order_acquire)) == seen;) {
        if (++spins < kSpins) {
          relax();
          continue;
        }
        p.sleepers.fetch_add(1);
        p.epoch.wait(seen, std::memory_order_acquire);
        p.sleepers.fetch_sub(1);
      }
      seen = e;
      if (start.id < p.wanted.load(std::memory_order_relaxed)) p.work(e);
    }
    return nullptr;
  }

  void run(RangeFunction f, void* c, size_t n, size_t g, int threads) noexcept {
    for (; workers < threads - 1; ++workers) {
      pthread_t thread;
      auto* start = new (std::nothrow) Start{this, workers};
      if (!start || pthread_create(&thread, nullptr, &Pool::worker, start) != 0) {
        delete start;
        break;  // fewer hands, same result
      }
      pthread_detach(thread);
    }
    const uint32_t count = uint32_t((n + g - 1) / g), e = epoch.load(std::memory_order_relaxed) + 1;
    function.store(f, std::memory_order_relaxed), context.store(c, std::memory_order_relaxed);
    size.store(n, std::memory_order_relaxed), grain.store(g, std::memory_order_relaxed);
    chunks.store(count, std::memory_order_relaxed), wanted.store(threads - 1, std::memory_order_relaxed);
    done.store(0, std::memory_order_relaxed);
    ticket.store(uint64_t(e) << 32, std::memory_order_release);
    epoch.store(e, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) > 0) epoch.notify_all();
    inside = true;
    work(e);
    inside = false;
    uint32_t d;
    for (int spins = 0; (d = done.load(std::memory_order_acquire)) != count;)
      if (++spins < kSpins)
        relax();
      else
        done.wait(d, std::memory_order_acquire);
  }
};

std::atomic<Pool*> current{nullptr};

Pool& pool() noexcept {
  if (Pool* p = current.load(std::memory_order_acquire)) return *p;
  static std::atomic<bool> registered{false};
  if (!registered.exchange(true)) pthread_atfork(nullptr, nullptr, [] { current.store(nullptr), inside = false; });
  auto* fresh = new Pool;  // leaked on purpose: nothing is joined at exit
  Pool* other = nullptr;
  if (current.compare_exchange_strong(other, fresh)) return *fresh;
  delete fresh;
  return *other;
}

int cgroup_quota() noexcept {  // whole CPUs, rounded up; kMostThreads without a quota
  double quota = -1, period = -1;
  if (FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {  // version 2: "max 100000" or "150000 100000"
    if (std::fscanf(file, "%lf %lf", &quota, &period) != 2) quota = -1;
    std::fclose(file);
  } else {
    const auto number = [](const char* path, double& value) {
      if (FILE* one = std::fopen(path, "r")) {
        if (std::fscanf(one, "%lf", &value) != 1) value = -1;
        std::fclose(one);
      }
    };
    number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota);
    number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period);
  }
  if (quota <= 0 || period <= 0) return kMostThreads;
  return std::max(1, int(std::min(double(kMostThreads), (quota + period - 1) / period)));
}

std::atomic<int> chosen{0};

}  // namespace

int default_threads() noexcept {
  static const int count = [] {
    for (const char* name : {"TERSOR_NUM_THREADS", "OMP_NUM_THREADS"})
      if (const char* text = std::getenv(name))
        if (const int n = std::atoi(text); n > 0) return std::min(n, kMostThreads);
    cpu_set_t set;
    CPU_ZERO(&set);
    const int affinity = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return std::clamp(std::min(affinity, cgroup_quota()), 1, kMostThreads);
  }();
  return count;
}

int num_threads() noexcept {
  const int n = chosen.load(std::memory_order_relaxed);
  return n > 0 ? n : default_threads();
}

void set_num_threads(int n) {
  TERSOR_REQUIRE(n >= 1 && n <= kMostThreads, Code::bad_call, "number of threads is in 1..", kMostThreads, ", not ", n);
  chosen.store(n, std::memory_order_relaxed);
}

ExecutorScope::ExecutorScope(Executor wanted) noexcept : before_(executor) {
  if (wanted) executor = wanted;
}
ExecutorScope::~ExecutorScope() { executor = before_; }

void run_ranges(RangeFunction f, void* context, size_t n, size_t grain, int threads) noexcept {
  if (n == 0) return;
  grain = std::max({grain, size_t(1), (n >> 31) + 1});  // the chunk count must fit 32 bits
  if (threads <= 0) threads = num_threads();
  threads = int(std::min<size_t>(size_t(std::min(threads, kMostThreads)), (n + grain - 1) / grain));
  const auto alone = [&] {
    for (size_t begin = 0; begin < n; begin += grain) f(context, begin, std::min(n, begin + grain));
  };
  if (threads <= 1 || inside) return alone();
  if (executor) {
    struct Job {
      RangeFunction f;
      void* context;
      size_t n, grain;
      std::atomic<size_t> next;
    } job{f, context, n, grain, 0};
    const RangeFunction body = [](void* opaque, size_t, size_t) noexcept {
      Job& j = *static_cast<Job*>(opaque);
      inside = true;
      for (size_t begin; (begin = j.next.fetch_add(j.grain, std::memory_order_relaxed)) < j.n;)
        j.f(j.context, begin, std::min(j.n, begin + j.grain));
      inside = false;
    };
    return executor(body, &job, size_t(threads));
  }
  Pool& p = pool();
  bool idle = false;
  if (!p.busy.compare_exchange_strong(idle, true, std::memory_order_acquire)) return alone();
  p.run(f, context, n, grain, threads);
  p.busy.store(false, std::memory_order_release);
}

}  // namespace tersor
