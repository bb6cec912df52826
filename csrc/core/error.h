// One exception type for every door. Doors validate and throw; below them only TERSOR_ASSERT stands.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>
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

struct Hex {  // how a number is written
  uint64_t number;
};

// A character, number, address or text on its way into an error's text: a list of these is a few stores, where a stream
// at every failure was two fifths of the compile time of some files.
class Piece {
 public:
  Piece(char character) : kind_(Kind::character), character_(character) {}
  template <class T, class = std::enable_if_t<std::is_integral_v<T>>>
  Piece(T number)
      : kind_(std::is_signed_v<T> ? Kind::signed_number : Kind::unsigned_number), number_(uint64_t(number)) {}
  Piece(Hex hex) : kind_(Kind::hex), number_(hex.number) {}
  Piece(double real) : kind_(Kind::real), real_(real) {}
  Piece(const void* address) : kind_(Kind::address), address_(address) {}
  Piece(const char* text) : Piece(std::string_view(text)) {}
  Piece(const std::string& text) : Piece(std::string_view(text)) {}
  Piece(std::string_view text) : kind_(Kind::text), text_(text) {}

 private:
  friend std::string text_of_list(const Piece* pieces, size_t count);
  enum class Kind : uint8_t { character, signed_number, unsigned_number, hex, real, address, text } kind_;
  union {
    char character_;
    uint64_t number_;
    double real_;
    const void* address_;
    std::string_view text_;
  };
};

std::string text_of_list(const Piece* pieces, size_t count);
[[noreturn]] __attribute__((cold)) void fail_list(Code code, const Piece* pieces, size_t count);

template <class... Pieces>
std::string text_of(const Pieces&... pieces) {
  const Piece list[] = {pieces...};
  return text_of_list(list, sizeof...(pieces));
}

template <class... Pieces>
[[noreturn]] __attribute__((noinline, cold)) void fail(Code code, const Pieces&... pieces) {
  const Piece list[] = {pieces...};
  fail_list(code, list, sizeof...(pieces));
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
