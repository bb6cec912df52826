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
  // The place of the first tensor that fills it in order, "optimizer.state.0.exp_avg", and that tensor's shape.
  std::optional<std::string> name;
  Shape shape;
};

// By the storage's key. A pickle that ends early, or has opcodes that state dicts have not, gives what comes before.
// Memory: at most some 40 times the pickle.
std::map<std::string, PickledStorage, std::less<>> pickled_storages(std::span<const uint8_t> pickle);

}  // namespace tersor::checkpoint
