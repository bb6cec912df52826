#include "checkpoint/json.h"

#include "container/index.h"

namespace tersor::checkpoint {
namespace {

void append_utf8(std::string& out, uint32_t point) {
  if (point < 0x80) {
    out += char(point);
  } else if (point < 0x800) {
    out += {char(0xc0 | point >> 6), char(0x80 | (point & 63))};
  } else if (point < 0x10000) {
    out += {char(0xe0 | point >> 12), char(0x80 | (point >> 6 & 63)), char(0x80 | (point & 63))};
  } else {
    out += {char(0xf0 | point >> 18), char(0x80 | (point >> 12 & 63)), char(0x80 | (point >> 6 & 63)),
            char(0x80 | (point & 63))};
  }
}

}  // namespace

bool JsonReader::at_end() noexcept {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
  return at_ == text_.size();
}

bool JsonReader::take(char sign) noexcept {
  if (at_end() || text_[at_] != sign) return false;
  ++at_;
  return true;
}

bool JsonReader::number(uint64_t& value) noexcept {
  if (at_end()) return false;
  const size_t start = at_;
  value = 0;
  for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
    if (__builtin_mul_overflow(value, uint64_t(10), &value) ||
        __builtin_add_overflow(value, uint64_t(text_[at_] - '0'), &value))
      return false;
  }
  const size_t digits = at_ - start;
  if (digits == 0 || (digits > 1 && text_[start] == '0')) return false;
  return at_ == text_.size() || (text_[at_] != '.' && text_[at_] != 'e' && text_[at_] != 'E');
}

bool JsonReader::hex4(uint32_t& value) noexcept {
  if (text_.size() - at_ < 4) return false;
  value = 0;
  for (int i = 0; i < 4; ++i) {
    const char sign = text_[at_++];
    const int digit = sign >= '0' && sign <= '9'   ? sign - '0'
                      : sign >= 'a' && sign <= 'f' ? sign - 'a' + 10
                      : sign >= 'A' && sign <= 'F' ? sign - 'A' + 10
                                                   : -1;
    if (digit < 0) return false;
    value = value << 4 | uint32_t(digit);
  }
  return true;
}

bool JsonReader::unescape(std::string& value) {
  if (at_ == text_.size()) return false;
  const char sign = text_[at_++];
  constexpr std::string_view kSigns = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
  if (const size_t known = kSigns.find(sign); known != kSigns.npos) {
    value += kMeant[known];
    return true;
  }
  uint32_t point;
  if (sign != 'u' || !hex4(point) || (point >= 0xdc00 && point < 0xe000)) return false;
  if (point >= 0xd800 && point < 0xdc00) {  // the first half of a surrogate pair
    uint32_t low;
    if (text_.substr(at_, 2) != "\\u") return false;
    at_ += 2;
    if (!hex4(low) || low < 0xdc00 || low >= 0xe000) return false;
    point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(value, point);
  return true;
}

bool JsonReader::string(std::string& value) {
  value.clear();
  if (!take('"')) return false;
  while (at_ < text_.size()) {
    const char sign = text_[at_++];
    if (sign == '"') return container::is_utf8(value);
    if (uint8_t(sign) < 0x20) return false;
    if (sign != '\\')
      value += sign;
    else if (!unescape(value))
      return false;
  }
  return false;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kMeant = "\"\\\b\f\n\r\t", kSigns = "\"\\bfnrt";
  out += '"';
  for (const char sign : text) {
    if (const size_t known = kMeant.find(sign); known != kMeant.npos) {
      out += {'\\', kSigns[known]};
    } else if (uint8_t(sign) < 0x20) {
      out += {'\\', 'u', '0', '0', "0123456789abcdef"[sign >> 4], "0123456789abcdef"[sign & 15]};
    } else {
      out += sign;
    }
  }
  out += '"';
}

}  // namespace tersor::checkpoint
