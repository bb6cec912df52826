#include "core/error.h"

#include <cerrno>
#include <cstring>
#include <sstream>

namespace tersor {

std::string text_of_list(const Piece* pieces, size_t count) {  // gcc 12 has no <format>
  std::ostringstream stream;
  for (const Piece* piece = pieces; piece < pieces + count; ++piece) switch (piece->kind_) {
      case Piece::Kind::character: stream << piece->character_; break;
      case Piece::Kind::signed_number: stream << int64_t(piece->number_); break;
      case Piece::Kind::unsigned_number: stream << piece->number_; break;
      case Piece::Kind::hex: stream << std::hex << piece->number_ << std::dec; break;
      case Piece::Kind::real: stream << piece->real_; break;
      case Piece::Kind::address: stream << piece->address_; break;
      case Piece::Kind::text: stream << piece->text_; break;
    }
  return std::move(stream).str();
}

void fail_list(Code code, const Piece* pieces, size_t count) { throw Error(code, text_of_list(pieces, count)); }

void fail_errno(const std::string& text) {
  const int number = errno;
  throw Error(Code::environment, text_of(text, ": ", std::strerror(number)), number);
}

}  // namespace tersor
