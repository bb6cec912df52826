#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "checkpoint/json.h"
#include "core/bits.h"

namespace tersor::checkpoint {
namespace {

bool read_metadata(JsonReader& json, container::Metadata& metadata) {
  if (!json.take('{')) return false;
  if (json.take('}')) return true;
  do {
    std::string key, value;
    if (!json.string(key) || !json.take(':') || !json.string(value)) return false;
    if (key.size() > container::kMostNameBytes || !metadata.emplace(std::move(key), std::move(value)).second)
      return false;
  } while (json.take(','));
  return json.take('}');
}

bool read_numbers(JsonReader& json, std::vector<uint64_t>& numbers, size_t most) {
  numbers.clear();
  if (!json.take('[')) return false;
  if (json.take(']')) return true;
  do {
    if (numbers.size() == most || !json.number(numbers.emplace_back())) return false;
  } while (json.take(','));
  return json.take(']');
}

bool read_tensor(JsonReader& json, Safetensors::Tensor& tensor) {
  bool has_dtype = false, has_shape = false, has_offsets = false;
  if (!json.take('{')) return false;
  do {
    std::string key;
    if (!json.string(key) || !json.take(':')) return false;
    if (key == "dtype" && !has_dtype) {
      std::string name;
      if (!json.string(name)) return false;
      const auto dtype = dtype_named(name);
      if (!dtype) return false;
      tensor.dtype = *dtype;
      has_dtype = true;
    } else if (key == "shape" && !has_shape) {
      if (!read_numbers(json, tensor.shape, kMostDims)) return false;
      has_shape = true;
    } else if (key == "data_offsets" && !has_offsets) {
      std::vector<uint64_t> offsets;
      if (!read_numbers(json, offsets, 2) || offsets.size() != 2) return false;
      tensor.begin = offsets[0];
      tensor.end = offsets[1];
      has_offsets = true;
    } else {
      return false;
    }
  } while (json.take(','));
  return json.take('}') && has_dtype && has_shape && has_offsets;
}

bool size_fits(const Safetensors::Tensor& tensor) {
  try {
    return tensor.begin <= tensor.end && bytes_of(tensor.dtype, tensor.shape) == tensor.end - tensor.begin;
  } catch (const Error&) {  // the dims' product overflows
    return false;
  }
}

bool names_differ(const std::vector<Safetensors::Tensor>& tensors) {
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  return std::adjacent_find(names.begin(), names.end()) == names.end();
}

bool read_header(std::string_view text, Safetensors& file) {
  JsonReader json(text);
  if (text.empty() || text[0] != '{' || !json.take('{')) return false;
  bool has_metadata = false;
  if (!json.take('}')) {
    do {
      std::string name;
      if (!json.string(name) || !json.take(':') || name.size() > container::kMostNameBytes) return false;
      if (name == kMetadataKey) {
        if (has_metadata || !read_metadata(json, file.metadata)) return false;
        has_metadata = true;
        continue;
      }
      auto& tensor = file.tensors.emplace_back();
      tensor.name = std::move(name);
      if (!read_tensor(json, tensor) || !size_fits(tensor)) return false;
    } while (json.take(','));
    if (!json.take('}')) return false;
  }
  return json.at_end() && file.tensors.size() < container::kMostEntries &&
         file.metadata.size() <= container::kMostMetadata && names_differ(file.tensors);
}

// The place of a dtype in the format's own order; its writer puts the last ones first.
int order_of(DType dtype) noexcept {
  constexpr DType kOrder[] = {DType::BOOL, DType::U8,  DType::I8,  DType::F8_E5M2, DType::F8_E4M3, DType::F8_E8M0,
                              DType::I16,  DType::U16, DType::F16, DType::BF16,    DType::I32,     DType::U32,
                              DType::F32,  DType::C64, DType::F64, DType::I64,     DType::U64};
  return int(std::find(std::begin(kOrder), std::end(kOrder), dtype) - std::begin(kOrder));
}

}  // namespace

std::optional<Safetensors> parse_safetensors(std::span<const uint8_t> front, uint64_t file_bytes) {
  if (front.size() < 8) return std::nullopt;
  const auto length = load_le<uint64_t>(front.data());
  if (length > kMostSafetensorsHeader - 8 || length > front.size() - 8) return std::nullopt;
  Safetensors file;
  file.header_bytes = 8 + length;
  if (!read_header({reinterpret_cast<const char*>(front.data()) + 8, size_t(length)}, file)) return std::nullopt;
  std::stable_sort(file.tensors.begin(), file.tensors.end(), [](const auto& a, const auto& b) {
    return std::tuple(a.begin, a.end) < std::tuple(b.begin, b.end);
  });
  uint64_t end = 0;
  for (const auto& tensor : file.tensors) {
    if (tensor.begin != end) return std::nullopt;
    end = tensor.end;
  }
  if (end != file_bytes - file.header_bytes) return std::nullopt;
  return file;
}

std::vector<uint8_t> safetensors_header(std::span<const container::Entry> entries,
                                        const container::Metadata& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      append_json_string(json, key);
      json += ':';
      append_json_string(json, value);
      json += ',';
    }
    json.back() = '}';
    json += ',';
  }
  uint64_t at = 0;
  for (const container::Entry& entry : entries) {
    TERSOR_REQUIRE(entry.name != kMetadataKey, Code::bad_data, "a tensor is called \"", kMetadataKey,
                   "\", which .safetensors keeps for its metadata");
    append_json_string(json, entry.name);
    json += ":{\"dtype\":\"";
    json += dtype_name(entry.dtype);
    json += "\",\"shape\":[";
    for (const uint64_t dim : entry.shape) json.append(std::to_string(dim)).append(",");
    if (json.back() == ',') json.pop_back();
    json.append("],\"data_offsets\":[").append(std::to_string(at)).append(",");
    json.append(std::to_string(at + entry.raw_bytes)).append("]},");
    at += entry.raw_bytes;
  }
  if (json.back() == ',') json.pop_back();
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  TERSOR_REQUIRE(8 + json.size() <= kMostSafetensorsHeader, Code::bad_data, "a .safetensors header of ",
                 8 + json.size(), " bytes is needed, at most ", kMostSafetensorsHeader, " are allowed");
  std::vector<uint8_t> header(8 + json.size());
  store_le(header.data(), uint64_t(json.size()));
  std::memcpy(header.data() + 8, json.data(), json.size());
  return header;
}

void sort_as_safetensors(std::vector<TensorView>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) {
    const int x = order_of(a.dtype), y = order_of(b.dtype);
    return x != y ? x > y : a.name < b.name;
  });
}

}  // namespace tersor::checkpoint
