// LibTorch's stable C ABI for operators (torch >= 2.10), looked up at run time in the libtorch_cpu.so that the process
// has imported: one binary serves every torch, and the module loads where there is none.
//
// An operator gets a stack of 64-bit values. Tensor arguments are owned handles, and one that is not deleted leaks
// silently, so they go into a Tensor (tensor.h) at once; so do lists into a List. Integers, doubles and bools are bit
// copies, dtypes torch's numbers. Results go to the
// bottom of the stack. An operator reports an error by a C++ exception, which torch turns into a RuntimeError.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tersor::torch_ops {

struct TensorHandle;
struct LibraryHandle;
struct ListHandle;
inline constexpr uint64_t kTargetVersion = uint64_t(2) << 56 | uint64_t(10) << 48;  // the ABI as of torch 2.10
using Boxed = void (*)(uint64_t* stack, uint64_t inputs, uint64_t outputs);

// Declarations and look-up come from one list, so they cannot drift apart.
#define TERSOR_TORCH_FUNCTIONS(X)                                                                              \
  X(int32_t, aoti_torch_library_init_def, (const char*, const char*, uint32_t, LibraryHandle**))               \
  X(int32_t, aoti_torch_library_init_impl, (const char*, const char*, const char*, uint32_t, LibraryHandle**)) \
  X(int32_t, aoti_torch_library_def, (LibraryHandle*, const char*))                                            \
  X(int32_t, torch_library_impl, (LibraryHandle*, const char*, Boxed, uint64_t))                               \
  X(int32_t, torch_get_num_threads, (uint32_t*))                                                               \
  X(int32_t, torch_parallel_for, (int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*))        \
  X(int32_t, torch_call_dispatcher, (const char*, const char*, uint64_t*, uint64_t))                           \
  X(int32_t, aoti_torch_memory_format_contiguous_format, ())                                                   \
  X(int32_t, torch_new_list_reserve_size, (size_t, ListHandle**))                                              \
  X(int32_t, torch_list_size, (ListHandle*, size_t*))                                                          \
  X(int32_t, torch_list_get_item, (ListHandle*, size_t, uint64_t*))                                            \
  X(int32_t, torch_list_push_back, (ListHandle*, uint64_t))                                                    \
  X(int32_t, torch_delete_list, (ListHandle*))                                                                 \
  X(int32_t, aoti_torch_empty_strided,                                                                         \
    (int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t, TensorHandle**))                      \
  X(int32_t, aoti_torch_delete_tensor_object, (TensorHandle*))                                                 \
  X(int32_t, aoti_torch_get_data_ptr, (TensorHandle*, void**))                                                 \
  X(int32_t, aoti_torch_get_dim, (TensorHandle*, int64_t*))                                                    \
  X(int32_t, aoti_torch_get_size, (TensorHandle*, int64_t, int64_t*))                                          \
  X(int32_t, aoti_torch_get_numel, (TensorHandle*, int64_t*))                                                  \
  X(int32_t, aoti_torch_get_dtype, (TensorHandle*, int32_t*))                                                  \
  X(int32_t, aoti_torch_is_contiguous, (TensorHandle*, bool*))

// Our dtype, torch's getter of its number. U16, U32, U64 and F8_E8M0 came to torch in different releases: one that is
// absent is simply never met.
#define TERSOR_TORCH_DTYPES(X)               \
  X(BOOL, aoti_torch_dtype_bool)             \
  X(U8, aoti_torch_dtype_uint8)              \
  X(I8, aoti_torch_dtype_int8)               \
  X(I16, aoti_torch_dtype_int16)             \
  X(U16, aoti_torch_dtype_uint16)            \
  X(F16, aoti_torch_dtype_float16)           \
  X(BF16, aoti_torch_dtype_bfloat16)         \
  X(I32, aoti_torch_dtype_int32)             \
  X(U32, aoti_torch_dtype_uint32)            \
  X(F32, aoti_torch_dtype_float32)           \
  X(F64, aoti_torch_dtype_float64)           \
  X(I64, aoti_torch_dtype_int64)             \
  X(U64, aoti_torch_dtype_uint64)            \
  X(C64, aoti_torch_dtype_complex64)         \
  X(F8_E5M2, aoti_torch_dtype_float8_e5m2)   \
  X(F8_E4M3, aoti_torch_dtype_float8_e4m3fn) \
  X(F8_E8M0, aoti_torch_dtype_float8_e8m0fnu)

struct Api {
#define X(result, name, arguments) result(*name) arguments = nullptr;
  TERSOR_TORCH_FUNCTIONS(X)
#undef X
#define X(dtype, name) int32_t dtype = -1;  // torch's number of it
  TERSOR_TORCH_DTYPES(X)
#undef X
};

const Api& api() noexcept;  // filled by load_api
void load_api();            // raises environment, naming what this torch lacks

}  // namespace tersor::torch_ops
