// Device bodies are written once, as templates over a Warp: nvcc compiles them for the GPU, the host compiler for
// tests.
//
// A body does per-lane work only inside w.each(lambda), keeps per-lane values in Warp::reg<T> and lets lanes meet only
// in ballot, rank, count and sum. On the device reg<T> is one register and each() calls the lambda once with the lane's
// number; on the host reg<T> is 32 values and each() is a loop over the lanes.
// Between two meetings stands exactly one each(): lanes of a GPU run it in any order, the host runs it in lane order.
// The host proves indices, state updates and bounds; races, alignment and occupancy need a GPU.
// C++17, since CMake 3.25 does not know CUDA20 for nvcc 13.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define TERSOR_HD __host__ __device__ __forceinline__
#else
#define TERSOR_HD inline
#endif

namespace tersor::cuda {

inline constexpr uint32_t kWarpLanes = 32;

struct HostWarp {
  template <class T>
  struct reg {
    T value[kWarpLanes];
    T& operator[](uint32_t lane) noexcept { return value[lane]; }
    const T& operator[](uint32_t lane) const noexcept { return value[lane]; }
  };
  template <class F>
  void each(F&& f) const {
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) f(lane);
  }
  uint32_t ballot(const reg<bool>& vote) const noexcept {  // bit l: lane l's vote
    uint32_t mask = 0;
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) mask |= uint32_t(vote[lane]) << lane;
    return mask;
  }
  uint32_t count(uint32_t mask) const noexcept { return uint32_t(__builtin_popcount(mask)); }
  uint32_t rank(uint32_t mask, uint32_t lane) const noexcept {  // votes of the lanes before this one
    return count(mask & ((uint32_t(1) << lane) - 1));
  }
  float sum(reg<float> values) const noexcept {  // of all lanes, by halves: the same bits as the device's
    for (uint32_t apart = kWarpLanes / 2; apart; apart /= 2)
      for (uint32_t lane = 0; lane < apart; ++lane) values[lane] += values[lane + apart];
    return values[0];
  }
};

#if defined(__CUDACC__)
struct DeviceWarp {  // all 32 lanes of the warp take part in every ballot
  template <class T>
  struct reg {
    T value;  // one lane's: its number is ignored
    __device__ __forceinline__ T& operator[](uint32_t) { return value; }
    __device__ __forceinline__ const T& operator[](uint32_t) const { return value; }
  };
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
    f(threadIdx.x % kWarpLanes);
  }
  __device__ __forceinline__ uint32_t ballot(const reg<bool>& vote) const {
    return __ballot_sync(0xffffffffu, vote.value);
  }
  __device__ __forceinline__ uint32_t count(uint32_t mask) const { return uint32_t(__popc(mask)); }
  __device__ __forceinline__ uint32_t rank(uint32_t mask, uint32_t lane) const {
    return count(mask & ((uint32_t(1) << lane) - 1));
  }
  __device__ __forceinline__ float sum(reg<float> values) const {  // every lane gets it
    for (uint32_t apart = kWarpLanes / 2; apart; apart /= 2)
      values.value += __shfl_xor_sync(0xffffffffu, values.value, apart);
    return values.value;
  }
};
#endif

}  // namespace tersor::cuda
