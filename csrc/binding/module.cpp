#include "binding/bind.h"

NB_MODULE(_core, m) {
  using namespace tersor::binding;
  m.doc() = "tersor's native core. Private: use the `tersor` package.";
  bind_errors(m);
  bind_process(m);
  bind_arrays(m);
  bind_entropy(m);
  bind_indexed(m);
  bind_integers(m);
  bind_range(m);
  bind_adaptive(m);
  bind_tokens(m);
  bind_integer_lists(m);
  bind_formats(m);
  bind_codebooks(m);
  bind_gemm(m);
  bind_files(m);
  bind_tensor_file(m);
}
