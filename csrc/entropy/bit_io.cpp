#include "entropy/bit_io.h"

namespace tersor::entropy {

void take_stream(ByteReader& reader, uint8_t number, uint8_t version, const char* what) {
  const uint8_t found = reader.take<uint8_t>(), found_version = reader.take<uint8_t>();
  TERSOR_REQUIRE(found == number, Code::bad_data, what, ": stream number ", int(found), ", ", int(number),
                 " is needed");
  TERSOR_REQUIRE(found_version == version, Code::bad_data, what, ": version ", int(found_version),
                 ", this program reads ", int(version));
}

void put_varint(std::vector<uint8_t>& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(uint8_t(value | 128));
  out.push_back(uint8_t(value));
}

void put_varint(ByteWriter& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.put(uint8_t(value | 128));
  out.put(uint8_t(value));
}

uint64_t take_varint(std::span<const uint8_t>& data, const char* what) {
  uint64_t value = 0;
  for (size_t i = 0; i < data.size() && i < 10; ++i) {
    value |= uint64_t(data[i] & 127) << (7 * i);
    if (data[i] < 128) {
      TERSOR_REQUIRE((data[i] != 0 || i == 0) && (i < 9 || data[i] == 1), Code::bad_data, what,
                     ": a number is not in its shortest form");
      data = data.subspan(i + 1);
      return value;
    }
  }
  fail(Code::bad_data, what, ": a number does not end within ", data.size() < 10 ? data.size() : size_t(10), " bytes");
}

}  // namespace tersor::entropy
