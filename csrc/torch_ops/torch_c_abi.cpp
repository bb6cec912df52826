#include "torch_ops/torch_c_abi.h"

#include <dlfcn.h>

#include "core/error.h"

namespace tersor::torch_ops {

static Api loaded;

const Api& api() noexcept { return loaded; }

void load_api() {
  void* torch = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD);  // only a torch that is already imported
  TERSOR_REQUIRE(torch, Code::environment, "torch is not loaded: import torch first");
  Api fresh;
#define X(result, name, arguments)                                         \
  fresh.name = reinterpret_cast<result(*) arguments>(dlsym(torch, #name)); \
  TERSOR_REQUIRE(fresh.name, Code::environment, "this torch lacks " #name ", tersor needs torch >= 2.10");
  TERSOR_TORCH_FUNCTIONS(X)
#undef X
#define X(dtype, name) \
  if (const auto number = reinterpret_cast<int32_t (*)()>(dlsym(torch, #name))) fresh.dtype = number();
  TERSOR_TORCH_DTYPES(X)
#undef X
  loaded = fresh;
}

}  // namespace tersor::torch_ops
