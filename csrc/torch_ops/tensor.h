// A tensor handle that an operator was given: owned, deleted when it goes out of scope.
#pragma once
#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/array.h"
#include "core/error.h"
#include "torch_ops/torch_c_abi.h"

namespace tersor::torch_ops {

class Tensor {
 public:
  explicit Tensor(uint64_t stack_value) noexcept : handle_(reinterpret_cast<TensorHandle*>(stack_value)) {}
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (handle_) api().aoti_torch_delete_tensor_object(handle_);
  }

  // A fresh, contiguous one in the CPU's memory, its elements not set.
  static Tensor empty(DType dtype, const Shape& shape) {
    std::vector<int64_t> sizes(shape.begin(), shape.end()), strides(shape.size(), 1);
    for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(1, sizes[i]);
    int32_t number = -1;
    switch (dtype) {
#define X(name, getter) \
  case DType::name: number = api().name; break;
      TERSOR_TORCH_DTYPES(X)
#undef X
    }
    constexpr int32_t kCpu = 0, kNoIndex = -1;
    TensorHandle* made = nullptr;
    require(api().aoti_torch_empty_strided(int64_t(shape.size()), sizes.data(), strides.data(), number, kCpu, kNoIndex,
                                           &made));
    return Tensor(reinterpret_cast<uint64_t>(made));
  }
  // Hands the tensor to the caller, as a value of an operator's stack.
  uint64_t release() noexcept { return reinterpret_cast<uint64_t>(std::exchange(handle_, nullptr)); }

  bool contiguous() const { return ask<bool>(api().aoti_torch_is_contiguous); }
  std::optional<DType> dtype() const {  // nothing for a dtype that has no number on disk
    const int32_t number = ask<int32_t>(api().aoti_torch_get_dtype);
#define X(name, getter) \
  if (number == api().name) return DType::name;
    TERSOR_TORCH_DTYPES(X)
#undef X
    return std::nullopt;
  }
  Shape shape() const {
    Shape shape(size_t(ask<int64_t>(api().aoti_torch_get_dim)));
    for (size_t i = 0; i < shape.size(); ++i) {
      int64_t size = 0;
      require(api().aoti_torch_get_size(handle_, int64_t(i), &size));
      shape[i] = uint64_t(size);
    }
    return shape;
  }
  // The elements' bytes; the tensor is contiguous and its dtype is `of`.
  std::span<uint8_t> bytes(DType of) const {
    const auto count = size_t(ask<int64_t>(api().aoti_torch_get_numel));
    return {static_cast<uint8_t*>(ask<void*>(api().aoti_torch_get_data_ptr)), count * dtype_bytes(of)};
  }

 private:
  static void require(int32_t status) {
    TERSOR_REQUIRE(status == 0, Code::environment, "torch refused a question about a tensor");
  }
  template <class T>
  T ask(int32_t (*question)(TensorHandle*, T*)) const {
    T value{};
    require(question(handle_, &value));
    return value;
  }
  TensorHandle* handle_;
};

}  // namespace tersor::torch_ops
