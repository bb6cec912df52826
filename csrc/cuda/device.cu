#include "cuda/device.h"

#include <cuda_runtime.h>

namespace tersor::cuda {

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // namespace tersor::cuda
