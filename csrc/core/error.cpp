#include "core/error.h"

#include <cerrno>
#include <cstring>

namespace tersor {

void fail_errno(const std::string& text) {
  const int number = errno;
  throw Error(Code::environment, text_of(text, ": ", std::strerror(number)), number);
}

}  // namespace tersor
