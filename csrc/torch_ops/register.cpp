#include "torch_ops/register.h"

#include "core/error.h"
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
};
constexpr uint64_t kTargetVersion = uint64_t(2) << 56 | uint64_t(10) << 48;  // the ABI as of torch 2.10
bool registered = false;

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
}

bool torch_ops_registered() noexcept { return registered; }

}  // namespace tersor::torch_ops
