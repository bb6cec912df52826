// Files and tensors for the checks of checkpoint.
#pragma once
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"

namespace tersor::check {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tersor-check-XXXXXX").string();
    if (::mkdtemp(pattern.data())) path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  size_t count() const {
    return size_t(std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator()));
  }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, std::span<const uint8_t> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

inline std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::vector<uint8_t> random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) byte = uint8_t(random() >> 24);
  return bytes;
}

// Weights as they are: bf16 of a normal distribution.
inline std::vector<uint8_t> random_bf16(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<uint8_t> bytes(2 * count);
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    std::memcpy(bytes.data() + 2 * i, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
  }
  return bytes;
}

// Owns what TensorViews look at.
class Tensors {
 public:
  Tensors& add(std::string name, DType dtype, Shape shape, std::vector<uint8_t> bytes) {
    storage_.push_back(std::make_unique<std::vector<uint8_t>>(std::move(bytes)));
    views.push_back({std::move(name), dtype, std::move(shape), *storage_.back()});
    return *this;
  }
  std::vector<TensorView> views;

 private:
  std::vector<std::unique_ptr<std::vector<uint8_t>>> storage_;
};

// Every corner of a checkpoint in little: several chunks, ties, empties, scalars, odd names, many tiny tensors.
inline Tensors odd_tensors(size_t tiny = 300) {
  Tensors tensors;
  tensors.add("large", DType::BF16, {3, 400'001}, random_bf16(3 * 400'001, 1));
  tensors.add("tied", DType::BF16, {400'001, 3}, random_bf16(3 * 400'001, 1));
  tensors.add("almost tied", DType::BF16, {1'200'003}, [] {
    auto bytes = random_bf16(1'200'003, 1);
    bytes[700'001] ^= 1;  // where no sample looks
    return bytes;
  }());
  tensors.add("a chunk", DType::U8, {1 << 20}, random_bytes(1 << 20, 2));
  tensors.add("zeros", DType::F32, {512, 1024}, std::vector<uint8_t>(2 << 20));
  tensors.add("more zeros", DType::F32, {1024, 512}, std::vector<uint8_t>(2 << 20));
  tensors.add("scalar", DType::F64, {}, random_bytes(8, 3));
  tensors.add("empty", DType::I64, {4, 0, 3}, {});
  tensors.add("", DType::I16, {5}, random_bytes(10, 4));
  tensors.add("\"\\/\b\f\n\r\t\x01\x7f\u00fc\U0001f600", DType::C64, {2}, random_bytes(16, 5));
  tensors.add("../../etc/passwd", DType::F8_E4M3, {7}, random_bytes(7, 6));
  tensors.add(std::string("nul\0inside", 10), DType::BOOL, {3}, {0, 1, 1});
  for (size_t i = 0; i < tiny; ++i)
    tensors.add("tiny." + std::to_string(i), DType::F16, {1 + i % 7}, random_bytes(2 + i % 7 * 2, unsigned(100 + i)));
  return tensors;
}

// The same as a .safetensors, in the order given.
inline std::vector<uint8_t> safetensors_of(const std::vector<TensorView>& views, const checkpoint::Metadata& metadata) {
  std::vector<checkpoint::Entry> entries;
  for (const TensorView& view : views) {
    auto& entry = entries.emplace_back();
    entry.name = view.name, entry.dtype = view.dtype, entry.shape = view.shape, entry.raw_bytes = view.data.size();
  }
  auto file = checkpoint::safetensors_header(entries, metadata);
  for (const TensorView& view : views) file.insert(file.end(), view.data.begin(), view.data.end());
  return file;
}

}  // namespace tersor::check
