#include "torch_ops/indexed.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/pool.h"
#include "entropy/indexed.h"
#include "torch_ops/register.h"
#include "torch_ops/tensor.h"

namespace tersor::torch_ops {
namespace {

namespace indexed = entropy::indexed;
using entropy::TableSet;

std::span<uint8_t> bytes_of(const Tensor& tensor, DType dtype, const char* name) {
  TERSOR_REQUIRE(tensor.dtype() == dtype, Code::bad_type, name, ": ", dtype_name(dtype), " is needed, found ",
                 tensor.dtype() ? dtype_name(*tensor.dtype()) : "another dtype");
  TERSOR_REQUIRE(tensor.contiguous(), Code::bad_call, name, ": contiguous needed");
  return tensor.bytes(dtype);
}

// 32-bit integers where they lie; torch's own kind, 64-bit ones, made such.
class Integers {
 public:
  Integers(const Tensor& tensor, const char* name) {
    if (tensor.dtype() != DType::I64) {
      const auto bytes = bytes_of(tensor, DType::I32, name);
      view_ = {reinterpret_cast<const int32_t*>(bytes.data()), bytes.size() / 4};
      return;
    }
    const auto bytes = bytes_of(tensor, DType::I64, name);
    const std::span wide(reinterpret_cast<const int64_t*>(bytes.data()), bytes.size() / 8);
    made_.reserve(wide.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      TERSOR_REQUIRE(wide[i] == int32_t(wide[i]), Code::bad_call, name, ": ", wide[i], " at ", i,
                     ", 32 bits are allowed");
      made_.push_back(int32_t(wide[i]));
    }
    view_ = made_;
  }
  std::span<const int32_t> get() const noexcept { return view_; }

 private:
  std::vector<int32_t> made_;
  std::span<const int32_t> view_;
};

class Indexes {
 public:
  explicit Indexes(const Tensor& tensor) {
    if (tensor.dtype() == DType::U8) {
      const auto bytes = bytes_of(tensor, DType::U8, "indexes");
      view_ = {bytes.data(), bytes.size(), 1};
      return;
    }
    integers_.emplace(tensor, "indexes");
    view_ = {integers_->get().data(), integers_->get().size(), 4};
  }
  indexed::Indexes get() const noexcept { return view_; }

 private:
  std::optional<Integers> integers_;
  indexed::Indexes view_;
};

// Operators have no state, so tables come as bytes in every call; the last few sets are kept, for reading one takes
// longer than coding a small latent with it.
std::shared_ptr<const TableSet> set_of(std::span<const uint8_t> bytes) {
  struct Kept {
    std::vector<uint8_t> bytes;
    std::shared_ptr<const TableSet> set;
  };
  constexpr size_t kMost = 8;
  static std::mutex mutex;
  static std::vector<Kept> sets;  // the latest last
  {
    const std::lock_guard lock(mutex);
    const auto found =
        std::ranges::find_if(sets, [&](const Kept& kept) { return std::ranges::equal(kept.bytes, bytes); });
    if (found != sets.end()) {
      std::rotate(found, found + 1, sets.end());
      return sets.back().set;
    }
  }
  auto set = std::make_shared<const TableSet>(TableSet::parse(bytes));
  const std::lock_guard lock(mutex);
  if (sets.size() == kMost) sets.erase(sets.begin());
  sets.push_back({{bytes.begin(), bytes.end()}, set});
  return set;
}

}  // namespace

void rans_encode_indexed_boxed(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor symbols(stack[0]), indexes(stack[1]), tables(stack[2]), means(stack[3]);
  const auto set = set_of(bytes_of(tables, DType::U8, "tables"));
  const Integers from(symbols, "symbols"), mean(means, "means");
  const Indexes at(indexes);
  const ExecutorScope scope(torch_threads());
  const auto data = indexed::encode(from.get(), at.get(), *set, mean.get(), torch_num_threads());
  Tensor out = Tensor::empty(DType::U8, {data.size()});
  std::memcpy(out.bytes(DType::U8).data(), data.data(), data.size());
  stack[0] = out.release();
}

void rans_decode_indexed_boxed(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor data(stack[0]), indexes(stack[1]), tables(stack[2]), means(stack[3]);
  const auto set = set_of(bytes_of(tables, DType::U8, "tables"));
  const Integers mean(means, "means");
  const Indexes at(indexes);
  Tensor out = Tensor::empty(DType::I32, indexes.shape());
  const auto bytes = out.bytes(DType::I32);
  const ExecutorScope scope(torch_threads());
  indexed::decode(bytes_of(data, DType::U8, "data"), at.get(), *set, mean.get(),
                  {reinterpret_cast<int32_t*>(bytes.data()), bytes.size() / 4}, torch_num_threads());
  stack[0] = out.release();
}

}  // namespace tersor::torch_ops
