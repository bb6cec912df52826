#include "checkpoint/safetensors.h"

#include <cstdio>
#include <cstring>
#include <string>

#include "check.h"
#include "checkpoint/json.h"
#include "checkpoint/samples.h"
#include "core/bits.h"

using namespace tersor;
using namespace tersor::checkpoint;

namespace {

std::optional<Safetensors> parse(const std::string& json, size_t body) {
  std::vector<uint8_t> file(8 + json.size() + body);
  store_le(file.data(), uint64_t(json.size()));
  std::memcpy(file.data() + 8, json.data(), json.size());
  return parse_safetensors(file, file.size());
}

// A header around one tensor's description.
std::string tensor(const std::string& fields) { return "{\"a\":{" + fields + "}}"; }
constexpr const char* kGood = R"("dtype":"F16","shape":[2,3],"data_offsets":[0,12])";

}  // namespace

TEST_CASE("safetensors: valid headers in every spelling that JSON allows") {
  CHECK(parse("{}", 0));
  CHECK(parse("{}      ", 0));
  CHECK(parse("{\"__metadata__\":{}}", 0));
  CHECK(parse(tensor(kGood), 12));
  CHECK(parse("{ \"a\"\n:\t{ \"data_offsets\" : [ 0 , 12 ] ,\r\"shape\":[ 2,3 ],\"dtype\":\"F16\" } } ", 12));
  CHECK(parse(tensor(R"("dtype":"F64","shape":[],"data_offsets":[0,8])"), 8));
  CHECK(parse(tensor(R"("dtype":"F64","shape":[0,99],"data_offsets":[0,0])"), 0));
  const auto file =
      parse(R"({"__metadata__":{"k\n":"v\ud83d\ude00\u00fc\/"},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
            R"("\u0061":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
            3);
  CHECK(file);
  if (!file) return;
  CHECK(file->metadata == container::Metadata({{"k\n", "v\U0001f600\u00fc/"}}));
  CHECK(file->tensors.size() == 2);
  CHECK(file->tensors[0].name == "a" && file->tensors[1].name == "b");
  CHECK(file->tensors[1].begin == 2 && file->tensors[1].end == 3);
}

TEST_CASE("safetensors: what is not perfectly valid is none") {
  const auto refuses = [](const std::string& json, size_t body = 12) {
    const bool refused = !parse(json, body);
    if (!refused) std::printf("taken: %s\n", json.c_str());
    return refused;
  };
  for (const char* json : {"", " ", "[]", "{", "{}x", " {}", "{\"a\"}", "{\"a\":}", "{\"a\":1}", "{,}", "null"})
    CHECK(refuses(json, 0));
  CHECK(refuses(tensor(kGood), 11));  // bytes missing
  CHECK(refuses(tensor(kGood), 13));  // bytes left
  CHECK(refuses("{\"a\":{" + std::string(kGood) + "},}"));
  CHECK(refuses("{\"a\":{" + std::string(kGood) + ",}}"));
  CHECK(refuses(tensor(std::string(kGood) + ",\"more\":1")));
  CHECK(refuses(tensor(std::string(kGood) + ",\"dtype\":\"F16\"")));
  for (
      const char* fields :
      {R"("dtype":"F17","shape":[2,3],"data_offsets":[0,12])", R"("dtype":"f16","shape":[2,3],"data_offsets":[0,12])",
       R"("dtype":16,"shape":[2,3],"data_offsets":[0,12])", R"("dtype":"F16","shape":[2,3])",
       R"("dtype":"F16","data_offsets":[0,12])", R"("shape":[2,3],"data_offsets":[0,12])",
       R"("dtype":"F16","shape":[2,4],"data_offsets":[0,12])", R"("dtype":"F16","shape":[-2,-3],"data_offsets":[0,12])",
       R"("dtype":"F16","shape":[2,3.0],"data_offsets":[0,12])",
       R"("dtype":"F16","shape":[2,3e0],"data_offsets":[0,12])",
       R"("dtype":"F16","shape":[2,03],"data_offsets":[0,12])", R"("dtype":"F16","shape":[2,],"data_offsets":[0,12])",
       R"("dtype":"F16","shape":[2,3],"data_offsets":[0,12,12])", R"("dtype":"F16","shape":[2,3],"data_offsets":[12])",
       R"("dtype":"F16","shape":[2,3],"data_offsets":[12,0])", R"("dtype":"F16","shape":[2,3],"data_offsets":[1,13])",
       R"("dtype":"F16","shape":[2,3],"data_offsets":[0,18446744073709551616])",
       R"("dtype":"F16","shape":[9223372036854775808,2],"data_offsets":[0,0])",
       R"("dtype":"F16","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,3],"data_offsets":[0,12])"})
    CHECK(refuses(tensor(fields)));
  const std::string good = std::string("{") + kGood + "}";
  CHECK(refuses("{\"a\":" + good + ",\"a\":" + good + "}"));
  CHECK(refuses("{\"a\":" + good + ",\"\\u0061\":" + good + "}"));  // the same name, spelled differently
  CHECK(refuses("{\"a\":" + good + ",\"b\":" + good + "}"));        // overlap
  CHECK(refuses("{\"__metadata__\":{\"a\":1}}", 0));
  CHECK(refuses("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0));
  CHECK(refuses("{\"__metadata__\":{},\"__metadata__\":{}}", 0));
  CHECK(refuses("{\"__metadata__\":[]}", 0));
  for (const char* name :
       {"\\ud83d", "\\ude00", "\\ud83d\\u0041", "\\x41", "\\u12g4", "\\", "\x01", "\xff", "\xed\xa0\x80"})
    CHECK(refuses("{\"" + std::string(name) + "\":" + good + "}"));
}

TEST_CASE("safetensors: lengths that lie, and every truncation") {
  const std::string json = tensor(kGood);
  std::vector<uint8_t> file(8 + json.size() + 12);
  store_le(file.data(), uint64_t(json.size()));
  std::memcpy(file.data() + 8, json.data(), json.size());
  CHECK(parse_safetensors(file, file.size()));
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<uint8_t> shorter(file.begin(), file.begin() + long(size));
    CHECK(!parse_safetensors(shorter, size));
  }
  for (const uint64_t length : {uint64_t(0), uint64_t(json.size() - 1), uint64_t(json.size() + 1),
                                uint64_t(100'000'001), uint64_t(-1), uint64_t(-8)}) {
    store_le(file.data(), length);
    CHECK(!parse_safetensors(file, file.size()));
  }
}

TEST_CASE("safetensors: a written header is read back, aligned, in the format's own order") {
  auto tensors = check::odd_tensors(5);
  auto& views = tensors.views;
  sort_as_safetensors(views);
  for (size_t i = 1; i < views.size(); ++i) CHECK(dtype_bytes(views[i - 1].dtype) >= dtype_bytes(views[i].dtype));
  const container::Metadata metadata = {{"a\"\\\x1f", "\n\u00fc"}, {"b", ""}};
  const auto bytes = check::safetensors_of(views, metadata);
  const auto file = parse_safetensors(bytes, bytes.size());
  CHECK(file);
  if (!file) return;
  CHECK(file->header_bytes % 8 == 0);
  CHECK(file->metadata == metadata);
  CHECK(file->tensors.size() == views.size());
  for (size_t i = 0; i < views.size(); ++i) {
    CHECK(file->tensors[i].name == views[i].name && file->tensors[i].dtype == views[i].dtype);
    CHECK(file->tensors[i].shape == views[i].shape);
    CHECK(file->tensors[i].begin % dtype_bytes(views[i].dtype) == 0);
  }
}
