#include "torch_ops/linear.h"

#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/pool.h"
#include "gemm/experts.h"
#include "gemm/linear.h"
#include "gemm/rows.h"
#include "torch_ops/register.h"
#include "torch_ops/tensor.h"

namespace tersor::torch_ops {
namespace {

using gemm::Activations;
using gemm::Matrix;
using gemm::Packed;

const char* name_of(std::optional<DType> dtype) { return dtype ? dtype_name(*dtype).data() : "another dtype"; }

DType float_of(const Tensor& tensor, const char* what) {
  const auto dtype = tensor.dtype();
  TERSOR_REQUIRE(dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16, Code::bad_type, what,
                 ": F32, F16 or BF16 is needed, found ", name_of(dtype));
  return *dtype;
}

Packed packed_of(const Tensor& tensor) {
  TERSOR_REQUIRE(tensor.dtype() == DType::U8 && tensor.contiguous(), Code::bad_type,
                 "packed: U8 and contiguous needed, found ", name_of(tensor.dtype()),
                 tensor.contiguous() ? "" : " on strides");
  return Packed::parse(tensor.bytes(DType::U8));
}

Packed packed_of(const Tensor& tensor, int64_t rows) {
  const Packed packed = packed_of(tensor);
  TERSOR_REQUIRE(rows >= 0 && packed.head.rows == uint64_t(rows), Code::bad_call, "rows: ", rows,
                 " are given, the matrix has ", packed.head.rows);
  return packed;
}

Activations activations_numbered(int64_t number) {
  for (const auto known : {Activations::int8, Activations::int8_g128, Activations::int8_outlier, Activations::exact})
    if (number == int64_t(known)) return known;
  fail(Code::bad_call, "activations: ", number, " is not the number of a way that the driver reads them");
}

Matrix bias_of(const Tensor& tensor) {
  const DType dtype = float_of(tensor, "bias");
  const auto bytes = tensor.bytes(dtype);
  return {dtype, bytes.empty() ? nullptr : bytes.data(), 1, bytes.size() / dtype_bytes(dtype)};
}

std::vector<Tensor> in_order(std::vector<Tensor>&& tensors) {
  for (Tensor& tensor : tensors) tensor = std::move(tensor).in_order();
  return std::move(tensors);
}

// Rows of x, [..., K], as a matrix.
struct Rows {
  Tensor tensor;
  DType dtype;
  Shape shape;

  explicit Rows(Tensor&& x) : tensor(std::move(x).in_order()), dtype(float_of(tensor, "x")), shape(tensor.shape()) {
    TERSOR_REQUIRE(!shape.empty(), Code::bad_call, "x: [..., K] is needed, found []");
  }
  Matrix matrix() const {
    size_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= size_t(shape[i]);
    return {dtype, tensor.bytes(dtype).data(), rows, size_t(shape.back())};
  }
  Tensor y(uint64_t columns) const {
    Shape wanted = shape;
    wanted.back() = columns;
    return Tensor::empty(dtype, wanted);
  }
};

class Ids {
 public:
  Ids(const Tensor& tensor, const char* what) {
    if (tensor.dtype() == DType::I64) {
      const auto bytes = tensor.bytes(DType::I64);
      view_ = {reinterpret_cast<const int64_t*>(bytes.data()), bytes.size() / 8};
      return;
    }
    TERSOR_REQUIRE(tensor.dtype() == DType::I32, Code::bad_type, what, ": I32 or I64 is needed, found ",
                   name_of(tensor.dtype()));
    const auto bytes = tensor.bytes(DType::I32);
    const auto* const narrow = reinterpret_cast<const int32_t*>(bytes.data());
    made_.assign(narrow, narrow + bytes.size() / 4);
    view_ = made_;
  }
  std::span<const int64_t> get() const noexcept { return view_; }

 private:
  std::vector<int64_t> made_;
  std::span<const int64_t> view_;
};

}  // namespace

void linear_boxed(uint64_t* stack, uint64_t, uint64_t) {
  Tensor given(stack[0]);
  const Tensor weights(stack[1]), added = Tensor(stack[2]).in_order();
  const Rows x(std::move(given));
  const Packed packed = packed_of(weights, int64_t(stack[3]));
  Tensor y = x.y(packed.head.rows);
  gemm::Product product;
  product.weights = &packed, product.bias = bias_of(added), product.y = y.bytes(x.dtype);
  const ExecutorScope scope(torch_threads());
  gemm::linear(x.matrix(), {&product, 1}, activations_numbered(int64_t(stack[4])), x.dtype, torch_num_threads());
  stack[0] = y.release();
}

void linear_many_boxed(uint64_t* stack, uint64_t, uint64_t) {
  Tensor given(stack[0]);
  List weight_list(stack[1]), bias_list(stack[2]), row_list(stack[3]);
  const auto weights = weight_list.take<Tensor>();
  const auto added = in_order(bias_list.take<Tensor>());
  const auto rows = row_list.take<int64_t>();
  TERSOR_REQUIRE(added.size() == weights.size() && rows.size() == weights.size(), Code::bad_call, weights.size(),
                 " matrices, ", added.size(), " biases and ", rows.size(), " numbers of rows, one each is needed");
  const Rows x(std::move(given));
  std::vector<Packed> packed;
  std::vector<Tensor> y;
  packed.reserve(weights.size()), y.reserve(weights.size());
  std::vector<gemm::Product> products(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    packed.push_back(packed_of(weights[i], rows[i]));
    y.push_back(x.y(packed[i].head.rows));
    products[i].weights = &packed[i], products[i].bias = bias_of(added[i]), products[i].y = y[i].bytes(x.dtype);
  }
  const ExecutorScope scope(torch_threads());
  gemm::linear(x.matrix(), products, activations_numbered(int64_t(stack[4])), x.dtype, torch_num_threads());
  stack[0] = List::of(std::move(y));
}

void linear_experts_boxed(uint64_t* stack, uint64_t, uint64_t) {
  Tensor given(stack[0]);
  List weight_list(stack[1]), bias_list(stack[2]);
  const Tensor chosen = Tensor(stack[3]).in_order();
  const auto weights = weight_list.take<Tensor>();
  const auto added = in_order(bias_list.take<Tensor>());
  TERSOR_REQUIRE(added.empty() || added.size() == weights.size(), Code::bad_call, added.size(), " biases for ",
                 weights.size(), " experts");
  const Rows x(std::move(given));
  Shape shape = chosen.shape();
  TERSOR_REQUIRE(shape.size() == x.shape.size() && std::equal(shape.begin(), shape.end() - 1, x.shape.begin()),
                 Code::bad_call, "experts: ", shape_text(shape), " for x ", shape_text(x.shape),
                 ", all dims but the last have to agree");
  std::vector<Packed> packed;
  packed.reserve(weights.size());
  std::vector<gemm::Expert> experts(weights.size());
  for (size_t e = 0; e < weights.size(); ++e) {
    packed.push_back(packed_of(weights[e], int64_t(stack[4])));
    experts[e].weights = &packed[e];
    if (!added.empty()) experts[e].bias = bias_of(added[e]);
  }
  shape.push_back(uint64_t(stack[4]));
  const Ids ids(chosen, "experts");
  Tensor y = Tensor::empty(x.dtype, shape);
  const ExecutorScope scope(torch_threads());
  gemm::linear_experts(x.matrix(), experts, ids.get(), activations_numbered(int64_t(stack[5])), x.dtype,
                       y.bytes(x.dtype), torch_num_threads());
  stack[0] = y.release();
}

void packed_rows_boxed(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor weights(stack[0]), asked = Tensor(stack[1]).in_order();
  const auto dtype = dtype_of_torch(int32_t(stack[3]));
  const Packed packed = packed_of(weights);
  TERSOR_REQUIRE(packed.head.columns == stack[2], Code::bad_call, "columns: ", int64_t(stack[2]),
                 " are given, the matrix has ", packed.head.columns);
  TERSOR_REQUIRE(dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16, Code::bad_type,
                 "dtype: F32, F16 or BF16 is needed, found ", name_of(dtype));
  const Ids ids(asked, "ids");
  Shape shape = asked.shape();
  shape.push_back(packed.head.columns);
  Tensor out = Tensor::empty(*dtype, shape);
  const ExecutorScope scope(torch_threads());
  gemm::dequantize_rows(packed, ids.get(), *dtype, out.bytes(*dtype), torch_num_threads());
  stack[0] = out.release();
}

}  // namespace tersor::torch_ops
