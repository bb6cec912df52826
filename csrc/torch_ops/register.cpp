#include "torch_ops/register.h"

#include <unistd.h>

#include <algorithm>

#include "core/error.h"
#include "torch_ops/indexed.h"
#include "torch_ops/linear.h"
#include "torch_ops/lossless.h"
#include "torch_ops/torch_c_abi.h"

namespace tersor::torch_ops {
namespace {

struct Operator {
  const char* name;
  const char* schema;
  Boxed cpu;
};
constexpr Operator kOperators[] = {
    {"decompress_into", kDecompressIntoSchema, &decompress_into_boxed},
    {"rans_encode_indexed", kRansEncodeIndexedSchema, &rans_encode_indexed_boxed},
    {"rans_decode_indexed", kRansDecodeIndexedSchema, &rans_decode_indexed_boxed},
    {"linear", kLinearSchema, &linear_boxed},
    {"linear_forward", kLinearForwardSchema, &linear_boxed},
    {"linear_many", kLinearManySchema, &linear_many_boxed},
    {"linear_experts", kLinearExpertsSchema, &linear_experts_boxed},
    {"packed_rows", kPackedRowsSchema, &packed_rows_boxed},
};
bool registered = false;
pid_t process = 0;  // that registered

void run_on_torchs(RangeFunction body, void* context, size_t threads) noexcept {
  struct Job {
    RangeFunction body;
    void* context;
  } job{body, context};
  const auto call = [](int64_t begin, int64_t end, void* opaque) {
    const Job& j = *static_cast<Job*>(opaque);
    for (; begin < end; ++begin) j.body(j.context, size_t(begin), size_t(begin) + 1);
  };
  // What torch refuses is done here: the body takes pieces until none is left.
  if (api().torch_parallel_for(0, int64_t(threads), 1, call, &job) != 0) body(context, 0, 1);
}

}  // namespace

void register_torch_ops() {
  if (registered) return;
  load_api();
  const auto require = [](int32_t status) {
    TERSOR_REQUIRE(status == 0, Code::environment, "torch refused to register tersor's operators");
  };
  LibraryHandle *schemas = nullptr, *kernels = nullptr;  // both live as long as the process
  require(api().aoti_torch_library_init_def("tersor", __FILE_NAME__, __LINE__, &schemas));
  require(api().aoti_torch_library_init_impl("tersor", "CPU", __FILE_NAME__, __LINE__, &kernels));
  for (const Operator& op : kOperators) {
    require(api().aoti_torch_library_def(schemas, op.schema));
    require(api().torch_library_impl(kernels, op.name, op.cpu, kTargetVersion));
  }
  registered = true;
  process = ::getpid();
}

bool torch_ops_registered() noexcept { return registered; }

Executor torch_threads() noexcept { return registered && ::getpid() == process ? &run_on_torchs : nullptr; }

int torch_num_threads() {
  uint32_t torchs = 1;
  TERSOR_REQUIRE(api().torch_get_num_threads(&torchs) == 0, Code::environment, "torch does not say its threads");
  return std::min(int(torchs), num_threads());
}

}  // namespace tersor::torch_ops
