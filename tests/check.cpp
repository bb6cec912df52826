#include "check.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace tersor::check {
namespace {

struct Registered {
  const char* name;
  void (*body)();
};
std::vector<Registered>& cases() {
  static std::vector<Registered> list;
  return list;
}
std::atomic<int> failures{0};

}  // namespace

Case::Case(const char* name, void (*body)()) { cases().push_back({name, body}); }

void record(bool ok, const char* file, int line, const char* what) {
  if (ok) return;
  std::printf("%s:%d: CHECK(%s)\n", file, line, what);
  ++failures;
}

std::string error_of(void (*call)(const void* f), const void* f) {
  try {
    call(f);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace tersor::check

// tersor-check [PART | -PART]...: the cases whose names hold every PART and no -PART
int main(int argc, char** argv) {
  using namespace tersor::check;
  int passed = 0, failed = 0;
  for (const auto& one : cases()) {
    if (!std::all_of(argv + 1, argv + argc, [&](const char* part) {
          return *part == '-' ? !std::strstr(one.name, part + 1) : std::strstr(one.name, part) != nullptr;
        }))
      continue;
    const int before = failures;
    try {
      one.body();
    } catch (const std::exception& error) {
      std::printf("%s: raised \"%s\"\n", one.name, error.what());
      ++failures;
    }
    const bool ok = failures == before;
    (ok ? passed : failed) += 1;
    std::printf("%s %s\n", ok ? "ok    " : "FAILED", one.name);
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0 || passed == 0;
}
