// torch.ops.tersor.*: operators registered from inside the one native module, without torch at build time.
#pragma once

namespace tersor::torch_ops {

// Once per process, under the GIL, after `import torch`. Raises environment when torch is not loaded or too old.
void register_torch_ops();
bool torch_ops_registered() noexcept;

}  // namespace tersor::torch_ops
