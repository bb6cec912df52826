// Handles that an operator was given: owned, deleted when they go out of scope.
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

// Nothing for a dtype that has no number on disk.
inline std::optional<DType> dtype_of_torch(int32_t number) noexcept {
#define X(name, getter) \
  if (number == api().name) return DType::name;
  TERSOR_TORCH_DTYPES(X)
#undef X
  return std::nullopt;
}

class Tensor {
 public:
  explicit Tensor(uint64_t stack_value) noexcept : handle_(reinterpret_cast<TensorHandle*>(stack_value)) {}
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
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

  // The same elements in memory row-major, without gaps; the tensor itself where it is so.
  Tensor in_order() && {
    if (contiguous()) return std::move(*this);
    uint64_t stack[2] = {release(), uint64_t(uint32_t(api().aoti_torch_memory_format_contiguous_format()))};
    require(api().torch_call_dispatcher("aten::contiguous", "", stack, kTargetVersion));
    return Tensor(stack[0]);
  }

  bool contiguous() const { return ask<bool>(api().aoti_torch_is_contiguous); }
  std::optional<DType> dtype() const { return dtype_of_torch(ask<int32_t>(api().aoti_torch_get_dtype)); }
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

// A list that an operator was given, whose elements are taken out once each, or one that it returns.
class List {
 public:
  explicit List(uint64_t stack_value) noexcept : handle_(reinterpret_cast<ListHandle*>(stack_value)) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    if (handle_) api().torch_delete_list(handle_);
  }

  static uint64_t of(std::vector<Tensor>&& tensors) {
    ListHandle* made = nullptr;
    require(api().torch_new_list_reserve_size(tensors.size(), &made));
    List list(reinterpret_cast<uint64_t>(made));
    for (Tensor& tensor : tensors) require(api().torch_list_push_back(made, tensor.release()));
    return reinterpret_cast<uint64_t>(std::exchange(list.handle_, nullptr));
  }
  template <class T>  // Tensor, or a number
  std::vector<T> take() {
    size_t size = 0;
    require(api().torch_list_size(handle_, &size));
    std::vector<T> taken;
    taken.reserve(size);
    for (size_t i = 0; i < size; ++i) {
      uint64_t value = 0;
      require(api().torch_list_get_item(handle_, i, &value));
      taken.emplace_back(value);
    }
    return taken;
  }

 private:
  static void require(int32_t status) {
    TERSOR_REQUIRE(status == 0, Code::environment, "torch refused a question about a list");
  }
  ListHandle* handle_;
};

}  // namespace tersor::torch_ops
