// torch.ops.tersor.*: operators registered from inside the one native module, without torch at build time.
#pragma once
#include "core/pool.h"

namespace tersor::torch_ops {

// Once per process, under the GIL, after `import torch`. Raises environment when torch is not loaded or too old.
void register_torch_ops();
bool torch_ops_registered() noexcept;

// torch's own threads for the pool's work: they spin for a while behind every operator, and ours would have to wait for
// a core. Null where torch is not there, and in the child of a fork, where its threads are not.
Executor torch_threads() noexcept;

// torch.set_num_threads and tersor.set_num_threads are both obeyed.
int torch_num_threads();

}  // namespace tersor::torch_ops
