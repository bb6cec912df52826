#include "core/pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "core/error.h"

using namespace tersor;

TEST_CASE("pool: every index once, with two callers, odd grains and nested calls") {
  const auto caller = [] {
    for (size_t round = 0; round < 300; ++round) {
      std::vector<std::atomic<int>> seen(97);
      parallel_for(seen.size(), round % 5, 4, [&](size_t begin, size_t end) {
        parallel_for(end - begin, 2, 4, [&](size_t b, size_t e) {
          for (; b < e; ++b) ++seen[begin + b];
        });
      });
      for (auto& count : seen) CHECK(count == 1);
    }
  };
  std::thread other(caller);
  caller();
  other.join();
  parallel_for(0, 1, 4, [](size_t, size_t) { CHECK(false); });
}

TEST_CASE("pool: the first exception reaches the caller, the rest is skipped") {
  for (const int threads : {1, 3}) {
    std::atomic<int> ran{0};
    const auto text = check::error_of([&] {
      parallel_for(1000, 1, threads, [&](size_t begin, size_t) {
        ++ran;
        if (begin == 5) fail(Code::bad_data, "piece ", begin);
      });
    });
    CHECK(text == "piece 5");
    if (threads == 1) CHECK(ran == 6);
  }
}

TEST_CASE("pool: another's threads do the work while a scope says so") {
  static std::atomic<int> calls{0};
  const auto executor = [](RangeFunction body, void* context, size_t threads) noexcept {
    ++calls;
    std::vector<std::thread> others;
    for (size_t i = 0; i < threads; ++i) others.emplace_back([=] { body(context, i, i + 1); });
    for (auto& other : others) other.join();
  };
  std::vector<std::atomic<int>> seen(97);
  const auto count_all = [&] {
    parallel_for(seen.size(), 5, 3, [&](size_t begin, size_t end) {
      parallel_for(end - begin, 1, 3, [&](size_t b, size_t e) {  // nested: on the same thread
        for (; b < e; ++b) ++seen[begin + b];
      });
    });
  };
  {
    const ExecutorScope scope(executor);
    count_all();
    CHECK(calls == 1);
    const ExecutorScope nothing(nullptr);  // changes nothing
    count_all();
    CHECK(calls == 2);
    CHECK(check::error_of([&] {
            parallel_for(9, 1, 3, [](size_t begin, size_t) {
              if (begin == 5) fail(Code::bad_data, "piece 5");
            });
          }) == "piece 5");
  }
  count_all();
  CHECK(calls == 3);
  for (auto& count : seen) CHECK(count == 3);
}

TEST_CASE("pool: works in a child after fork") {
#if !defined(__SANITIZE_THREAD__)  // which cannot follow a fork of a threaded process
  std::atomic<int> sum{0};
  const auto add = [&](size_t begin, size_t end) { sum += int(end - begin); };
  parallel_for(10, 1, 4, add);
  const pid_t child = fork();
  if (child == 0) {
    sum = 0;
    parallel_for(10, 1, 4, add);
    _exit(sum == 10 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(sum == 10 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

TEST_CASE("pool: thread counts") {
  const int before = num_threads();
  set_num_threads(3);
  CHECK(num_threads() == 3);
  CHECK(check::error_of([] { set_num_threads(0); }) == "number of threads is in 1..1024, not 0");
  set_num_threads(before);
}
