// .npy, .npz, .gguf and PyTorch's zips written field by field, so that checks can bend every field.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "container/hand_made.h"

namespace tersor::check {

inline std::vector<uint8_t> bytes_of_text(std::string_view text) { return {text.begin(), text.end()}; }

inline std::vector<uint8_t> npy_of(const std::string& descr, const std::string& shape, std::span<const uint8_t> raw,
                                   const std::string& fortran = "False", uint8_t version = 1) {
  std::string header = "{'descr': ";
  header.append(descr).append(", 'fortran_order': ").append(fortran).append(", 'shape': ").append(shape).append(", }");
  while ((header.size() + (version == 1 ? 10 : 12)) % 16 != 15) header += ' ';
  header += '\n';
  Bytes file;
  file.data = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  file.put(version).put(uint8_t(0));
  if (version == 1)
    file.put(uint16_t(header.size()));
  else
    file.put(uint32_t(header.size()));
  file.data.insert(file.data.end(), header.begin(), header.end());
  file.data.insert(file.data.end(), raw.begin(), raw.end());
  return file.data;
}

struct ZipFile {
  struct Member {
    std::string name;
    std::vector<uint8_t> data;
    uint16_t method = 0, flags = 0;
    uint16_t padding = 0;  // of the local header's extra field
  };
  std::vector<Member> members;
  bool in_64_bits = false;
  std::string comment = {};

  std::vector<uint8_t> bytes() const {
    Bytes file, central;
    const auto append = [](Bytes& to, const auto& what) { to.data.insert(to.data.end(), what.begin(), what.end()); };
    for (const Member& member : members) {
      const uint64_t offset = file.data.size(), size = member.data.size();
      const auto narrow = uint32_t(in_64_bits ? 0xffffffff : size);
      file.put(uint32_t(0x04034b50)).put(uint16_t(45)).put(member.flags).put(member.method).put(uint32_t(0));
      file.put(uint32_t(0)).put(narrow).put(narrow).put(uint16_t(member.name.size())).put(member.padding);
      append(file, member.name);
      append(file, std::string(member.padding, 'P'));
      append(file, member.data);
      central.put(uint32_t(0x02014b50)).put(uint16_t(45)).put(uint16_t(45)).put(member.flags).put(member.method);
      central.put(uint32_t(0)).put(uint32_t(0)).put(narrow).put(narrow).put(uint16_t(member.name.size()));
      central.put(uint16_t(in_64_bits ? 28 : 0)).put(uint16_t(0)).put(uint16_t(0)).put(uint16_t(0)).put(uint32_t(0));
      central.put(uint32_t(in_64_bits ? 0xffffffff : offset));
      append(central, member.name);
      if (in_64_bits) central.put(uint16_t(1)).put(uint16_t(24)).put(size).put(size).put(offset);
    }
    const uint64_t begin = file.data.size(), count = members.size();
    file.put(central);
    if (in_64_bits) {
      const uint64_t end64 = file.data.size();
      file.put(uint32_t(0x06064b50)).put(uint64_t(44)).put(uint16_t(45)).put(uint16_t(45)).put(uint32_t(0));
      file.put(uint32_t(0)).put(count).put(count).put(uint64_t(central.data.size())).put(begin);
      file.put(uint32_t(0x07064b50)).put(uint32_t(0)).put(end64).put(uint32_t(1));
    }
    file.put(uint32_t(0x06054b50)).put(uint32_t(0)).put(uint16_t(count)).put(uint16_t(count));
    file.put(uint32_t(central.data.size())).put(uint32_t(in_64_bits ? 0xffffffff : begin));
    file.put(uint16_t(comment.size()));
    append(file, comment);
    return file.data;
  }
};

// A pickle of {"a": {"w": tensor}, "b": [tensor]} whose storages are `kind`: 2 x 3 in order, and six out of order.
inline std::vector<uint8_t> state_dict_pickle(const std::string& kind = "FloatStorage") {
  Bytes out;
  const auto op = [&](std::string_view signs) {
    for (const char sign : signs) out.put(sign);
  };
  const auto text = [&](std::string_view value) { op("X"), out.text(value); };
  const auto tensor = [&](const char* key, const std::string& strides) {
    op("ctorch._utils\n_rebuild_tensor_v2\n((");
    text("storage");
    op("ctorch\n"), op(kind), op("\n");
    text(key), text("cpu");
    op("K\x06tQK"), out.put(uint8_t(0));
    op("K\x02K\x03\x86"), op(strides), op("\x86\x89"), op("ccollections\nOrderedDict\n)RtR");
  };
  op("\x80\x02}(");
  text("a");
  op("}");
  text("w");
  tensor("0", "K\x03K\x01");
  op("s");
  text("b");
  op("]");
  tensor("1", "K\x01K\x02");
  op("au.");
  return out.data;
}

inline ZipFile torch_zip(std::span<const uint8_t> first, std::span<const uint8_t> second,
                         const std::string& kind = "FloatStorage") {
  return {{{"m/data.pkl", state_dict_pickle(kind), 0, 0, 5},
           {"m/byteorder", bytes_of_text("little"), 0, 0, 3},
           {"m/data/0", {first.begin(), first.end()}, 0, 0, 40},
           {"m/data/1", {second.begin(), second.end()}, 0, 0, 17},
           {"m/version", bytes_of_text("3\n")}}};
}

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> dims;  // the fastest first
  uint32_t type;
  std::vector<uint8_t> raw;
};

inline std::vector<uint8_t> gguf_of(const std::vector<GgufTensor>& tensors, uint32_t alignment = 32,
                                    uint32_t version = 3) {
  Bytes file;
  const auto text = [&](std::string_view value) {
    file.put(uint64_t(value.size()));
    file.data.insert(file.data.end(), value.begin(), value.end());
  };
  file.data = {'G', 'G', 'U', 'F'};
  file.put(version).put(uint64_t(tensors.size())).put(uint64_t(4));
  text("general.alignment"), file.put(uint32_t(4)).put(alignment);
  text("name"), file.put(uint32_t(8)), text("made by hand");
  text("words"), file.put(uint32_t(9)).put(uint32_t(8)).put(uint64_t(2)), text("a"), text("b");
  text("numbers"), file.put(uint32_t(9)).put(uint32_t(11)).put(uint64_t(2)).put(int64_t(1)).put(int64_t(-1));
  uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    text(tensor.name), file.put(uint32_t(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) file.put(dim);
    file.put(tensor.type).put(offset);
    offset += (tensor.raw.size() + alignment - 1) / alignment * alignment;
  }
  for (const GgufTensor& tensor : tensors) {
    file.data.resize((file.data.size() + alignment - 1) / alignment * alignment);
    file.data.insert(file.data.end(), tensor.raw.begin(), tensor.raw.end());
  }
  return file.data;
}

}  // namespace tersor::check
