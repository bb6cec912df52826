#include "core/error.h"

#include <cstdint>
#include <limits>
#include <string>

#include "check.h"

using namespace tersor;

TEST_CASE("error: every kind of piece is written as a stream writes it") {
  const std::string text = "text";
  CHECK(text_of('c', " ", text, " ", std::string_view("view")) == "c text view");
  CHECK(text_of(-1, " ", std::numeric_limits<int64_t>::min()) == "-1 -9223372036854775808");
  CHECK(text_of(1u, " ", std::numeric_limits<uint64_t>::max()) == "1 18446744073709551615");
  CHECK(text_of(uint8_t(7), " ", int16_t(-7), " ", true) == "7 -7 1");
  CHECK(text_of(0.5f, " ", 1e-300, " ", 1234567.0) == "0.5 1e-300 1.23457e+06");
  CHECK(text_of(Hex{255}, " ", 255) == "ff 255");
  CHECK(text_of(reinterpret_cast<const void*>(0x1f)) == "0x1f");
}

TEST_CASE("error: a failure has its code and its text") {
  try {
    fail(Code::bad_type, "a dtype of ", 3, " bytes");
  } catch (const Error& error) {
    CHECK(error.code() == Code::bad_type && error.what() == std::string("a dtype of 3 bytes"));
  }
  CHECK(check::error_of([] { TERSOR_REQUIRE(1 + 1 == 3, Code::bad_call, "not ", 3); }) == "not 3");
  CHECK(check::error_of([] { TERSOR_REQUIRE(1 + 1 == 2, Code::bad_call, "not ", 2); }).empty());
}
