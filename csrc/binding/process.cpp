#include <iterator>
#include <string>

#include "binding/bind.h"
#include "core/error.h"
#include "core/isa.h"
#include "core/pool.h"
#include "cuda/device.h"
#include "torch_ops/register.h"

namespace nb = nanobind;

namespace tersor::binding {

static Isa isa_named(const std::string& name) {
  for (size_t level = 0; level < std::size(kIsaNames); ++level)
    if (name == kIsaNames[level]) return Isa(level);
  fail(Code::bad_call, "ISA levels are scalar, avx2, avx512, avx512vbmi and avx512bf16, not ", name);
}

void bind_process(nb::module_& m) {
  m.attr("__version__") = TERSOR_VERSION;
  m.def("get_num_threads", &num_threads,
        "Return the threads of a call that names none: what set_num_threads was given, else TERSOR_NUM_THREADS or\n"
        "OMP_NUM_THREADS in the environment, else what affinity and the cgroup leave to this process.");
  m.def("set_num_threads", &set_num_threads, nb::arg("n"),
        "Set the threads of every later call that names none; results do not depend on it. Raises ValueError unless\n"
        "n is in 1..1024.");
  m.def("default_threads", &default_threads);
  m.def("machine_isa", [] { return kIsaNames[int(machine_isa())]; });
  m.def("active_isa", [] { return kIsaNames[int(active_isa())]; });
  m.def(
      "hold_isa", [](const char* name) { hold_isa(isa_named(name)); }, nb::arg("name"),
      "For tests: run at most this ISA level from now on.");
  m.def("register_torch_ops", &torch_ops::register_torch_ops,
        "Register torch.ops.tersor.* with the torch that this process has imported.");
  m.def("torch_ops_registered", &torch_ops::torch_ops_registered);
#if defined(TERSOR_HAVE_CUDA)
  m.attr("have_cuda") = true;
  m.def("cuda_device_count", &cuda::device_count);
#else
  m.attr("have_cuda") = false;
  m.def("cuda_device_count", [] { return 0; });
#endif
}

}  // namespace tersor::binding
