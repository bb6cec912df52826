// Just enough JSON for a safetensors header, read strictly: what is not JSON, or is more than such a header may hold,
// is refused by returning false. Nothing is thrown: a file that is not valid is still a file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace tersor::checkpoint {

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) noexcept : text_(text) {}
  bool take(char sign) noexcept;          // skips white space before it
  bool at_end() noexcept;                 // nothing but white space is left
  bool number(uint64_t& value) noexcept;  // digits alone: no sign, point, exponent or leading zero
  bool string(std::string& value);        // escapes undone; UTF-8 in, UTF-8 out

 private:
  bool unescape(std::string& value);
  bool hex4(uint32_t& value) noexcept;
  std::string_view text_;
  size_t at_ = 0;
};

void append_json_string(std::string& out, std::string_view text);  // quoted; only what must be escaped is

}  // namespace tersor::checkpoint
