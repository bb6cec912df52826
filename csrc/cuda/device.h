// The GPUs of this machine, as far as the doors ask for them.
#pragma once

namespace tersor::cuda {

int device_count();  // 0 without a GPU or without a driver

}  // namespace tersor::cuda
