#include "torch_ops/lossless.h"

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/pool.h"
#include "torch_ops/register.h"
#include "torch_ops/tensor.h"

namespace tersor::torch_ops {

void decompress_into_boxed(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor data(stack[0]), out(stack[1]);
  TERSOR_REQUIRE(data.dtype() == DType::U8 && data.contiguous(), Code::bad_type, "data: uint8 and contiguous needed");
  const auto dtype = out.dtype();
  TERSOR_REQUIRE(dtype, Code::bad_type, "out: this dtype has no number in a .tsr container");
  TERSOR_REQUIRE(out.contiguous(), Code::bad_call, "out: contiguous needed");
  const auto file = checkpoint::TensorFile::view(data.bytes(DType::U8));
  TERSOR_REQUIRE(file.origin() == "array", Code::bad_data, "data: one array as compress makes it needed, found origin ",
                 file.origin());
  const auto& entry = file.entries().front();
  const Shape shape = out.shape();
  TERSOR_REQUIRE(entry.dtype == *dtype && entry.shape == shape, Code::bad_call, "out is ", dtype_name(*dtype), " ",
                 shape_text(shape), ", the data is ", dtype_name(entry.dtype), " ", shape_text(entry.shape));
  const ExecutorScope scope(torch_threads());
  file.read(0, out.bytes(*dtype), torch_num_threads());
}

}  // namespace tersor::torch_ops
