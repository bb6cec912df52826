// The tensors that a pickle of PyTorch describes, found by following its opcodes without carrying any of them out:
// nothing is imported, called or built. Source: Python's pickletools, protocols 0 to 5, and torch.serialization.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "core/array.h"

namespace tersor::checkpoint {

// One storage: the bytes of one member of the archive.
struct PickledStorage {
  std::optional<DType> dtype;  // nothing where it is one that safetensors has not, or none
  bool complex128 = false;
  std::string name;  // its place in the pickle, "optimizer.state.0.exp_avg"; empty where no tensor fills it in order
  Shape shape;       // of that tensor
};

// By the storage's key. Empty where the pickle ends early or has opcodes that state dicts have not.
std::map<std::string, PickledStorage> pickled_storages(std::span<const uint8_t> pickle);

}  // namespace tersor::checkpoint
