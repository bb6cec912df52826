// The C++ checks' whole framework: TEST_CASE registers, CHECK counts, the closing line is "N passed, N failed".
#pragma once
#include <string>

namespace tersor::check {

struct Case {
  Case(const char* name, void (*body)());
};
void record(bool ok, const char* file, int line, const char* what);

std::string error_of(void (*call)(const void* f), const void* f);

// The text of the Error that f raises; "" when it raises none.
template <class F>
std::string error_of(const F& f) {
  return error_of([](const void* opaque) { (*static_cast<const F*>(opaque))(); }, &f);
}

}  // namespace tersor::check

#define TERSOR_JOIN_(a, b) a##b
#define TERSOR_JOIN(a, b) TERSOR_JOIN_(a, b)
#define TEST_CASE(name)                                                                                            \
  static void TERSOR_JOIN(test_case_, __LINE__)();                                                                 \
  static const ::tersor::check::Case TERSOR_JOIN(registered_, __LINE__)(name, &TERSOR_JOIN(test_case_, __LINE__)); \
  static void TERSOR_JOIN(test_case_, __LINE__)()
#define CHECK(condition) ::tersor::check::record(bool(condition), __FILE__, __LINE__, #condition)
