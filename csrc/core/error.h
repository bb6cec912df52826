// One exception type for every door. Doors validate and throw; below them only TERSOR_ASSERT stands.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace tersor {

enum class Code {
  bad_data,     // bytes that are not what their format says: damaged, truncated, hostile   -> FormatError, exit 1
  bad_call,     // arguments that cannot be meant: sizes that differ, levels out of range    -> ValueError, exit 2
  bad_type,     // a dtype or kind that an operation does not take                           -> TypeError, exit 2
  environment,  // files, disk, memory: errno when known                                     -> OSError, exit 1
  missing,      // a tensor name that a file does not hold                                   -> KeyError, exit 1
  interrupted,  // the caller asked to stop                                                  -> exit 130
};

class Error : public std::exception {
 public:
  Error(Code code, std::string text, int error_number = 0)
      : code_(code), error_number_(error_number), text_(std::move(text)) {}
  Code code() const noexcept { return code_; }
  int error_number() const noexcept { return error_number_; }  // 0 where no system call failed
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  Code code_;
  int error_number_;
  std::string text_;
};

template <class... Pieces>
std::string text_of(const Pieces&... pieces) {  // gcc 12 has no <format>
  std::ostringstream stream;
  (stream << ... << pieces);
  return std::move(stream).str();
}

template <class... Pieces>
[[noreturn]] __attribute__((noinline, cold)) void fail(Code code, const Pieces&... pieces) {
  throw Error(code, text_of(pieces...));
}

// Raises environment with the text and what errno means.
[[noreturn]] void fail_errno(const std::string& text);

}  // namespace tersor

#define TERSOR_REQUIRE(condition, code, ...) \
  do {                                       \
    if (!(condition)) [[unlikely]]           \
      ::tersor::fail(code, __VA_ARGS__);     \
  } while (0)

// An invariant of ours, never a check of input. Active in sanitizer and debug builds.
#if defined(TERSOR_CHECKED)
#define TERSOR_ASSERT(condition)                                                          \
  do {                                                                                    \
    if (!(condition)) [[unlikely]] {                                                      \
      std::fprintf(stderr, "%s:%d: TERSOR_ASSERT(%s)\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (0)
#else
#define TERSOR_ASSERT(condition) ((void)0)
#endif
