// What this machine can do at most: reads of memory, and the peaks of its multipliers. Built at bench time with the
// system's compiler; no part of tersor. Each function runs one thread's share and says nothing of time: roofs.c's caller
// gives how long, and roof_rate gives back work a second over all threads.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define FOR(features) __attribute__((target(features), noinline))
#endif

enum { kRead, kVnni, kBf16, kFma, kRoofs };
enum { kAccumulators = 12, kMostThreads = 256 };  // more than any latency times throughput, and no register is spilled
#define HUGE_PAGE ((size_t)2 << 20)

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

// Memory as packed matrices have it: from a huge page's start on, in huge pages where the system gives them; written
// once, so that it is there. NULL where there is none. Kept until the process ends.
uint8_t* roof_memory(size_t bytes) {
  uint8_t* at =
      mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return NULL;
  at += -(uintptr_t)at % HUGE_PAGE;
#ifdef MADV_HUGEPAGE
  madvise(at, bytes, MADV_HUGEPAGE);
#endif
  for (size_t i = 0; i < bytes; i += 4096) at[i] = 1;
  return at;
}

#if defined(__x86_64__)
// One stream from front to back: several were slower.
FOR("avx512f") static uint64_t read512(const uint8_t* data, size_t bytes) {
  __m512i sum[8] = {0};
  for (size_t i = 0; i + 512 <= bytes; i += 512)
    for (int lane = 0; lane < 8; ++lane)
      sum[lane] = _mm512_or_si512(sum[lane], _mm512_load_si512((const void*)(data + i + 64 * lane)));
  for (int lane = 1; lane < 8; ++lane) sum[0] = _mm512_or_si512(sum[0], sum[lane]);
  return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}

// `loops` times 12 independent instructions. Assembly and a name for every accumulator keep each in its register.
#define PEAK(name, features, vector, instruction)                                                                 \
  FOR(features) static uint64_t name(size_t loops) {                                                              \
    vector s = {0}, a = s, b = s, c = s, d = s, e = s, f = s, g = s, h = s, i = s, j = s, k = s, l = s;           \
    for (size_t loop = 0; loop < loops; ++loop)                                                                   \
      __asm__ volatile(                                                                                           \
          instruction " %12, %12, %0\n\t" instruction " %12, %12, %1\n\t" instruction " %12, %12, %2\n\t"         \
          instruction " %12, %12, %3\n\t" instruction " %12, %12, %4\n\t" instruction " %12, %12, %5\n\t"         \
          instruction " %12, %12, %6\n\t" instruction " %12, %12, %7\n\t" instruction " %12, %12, %8\n\t"         \
          instruction " %12, %12, %9\n\t" instruction " %12, %12, %10\n\t" instruction " %12, %12, %11"           \
          : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k),    \
            "+v"(l)                                                                                               \
          : "v"(s));                                                                                              \
    a += b + c + d + e + f + g + h + i + j + k + l;                                                               \
    return (uint64_t)a[0];                                                                                        \
  }
PEAK(vnni512, "avx512f,avx512vnni", __m512i, "vpdpbusd")
PEAK(bf16512, "avx512f,avx512bf16", __m512, "vdpbf16ps")
PEAK(fma512, "avx512f", __m512, "vfmadd231ps")
PEAK(fma256, "avx2,fma", __m256, "vfmadd231ps")
#endif

static uint64_t read_words(const uint8_t* data, size_t bytes) {
  const uint64_t* words = (const uint64_t*)data;
  uint64_t sum[8] = {0};
  for (size_t i = 0; i + 8 <= bytes / 8; i += 8)
    for (int lane = 0; lane < 8; ++lane) sum[lane] |= words[i + (size_t)lane];
  return sum[0] | sum[1] | sum[2] | sum[3] | sum[4] | sum[5] | sum[6] | sum[7];
}

// Operations that one accumulator's instruction does: a product and a sum are two. 0: this CPU, or this build, has none.
static size_t operations(int roof) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (roof == kVnni) return __builtin_cpu_supports("avx512vnni") ? 128 : 0;
  if (roof == kBf16) return __builtin_cpu_supports("avx512bf16") ? 64 : 0;
  if (roof == kFma) return __builtin_cpu_supports("avx512f") ? 32 : __builtin_cpu_supports("fma") ? 16 : 0;
#endif
  return roof == kRead;
}

int roof_is_there(int roof) { return operations(roof) != 0; }

struct share {
  int roof;
  const uint8_t* data;
  size_t amount;  // bytes to read, or loops of instructions
  int* missing;    // threads that have not come yet
  double start, end;
};

static volatile uint64_t sink;

static void* work(void* given) {
  struct share* mine = given;
  // No barrier that sleeps: who is woken is often put on the core of who woke it, and then both take turns.
  __atomic_sub_fetch(mine->missing, 1, __ATOMIC_ACQ_REL);
  while (__atomic_load_n(mine->missing, __ATOMIC_ACQUIRE) > 0) continue;
  mine->start = now();
  uint64_t result = 0;
#if defined(__x86_64__)
  if (mine->roof == kRead && __builtin_cpu_supports("avx512f"))
    result = read512(mine->data, mine->amount);
  else if (mine->roof == kVnni)
    result = vnni512(mine->amount);
  else if (mine->roof == kBf16)
    result = bf16512(mine->amount);
  else if (mine->roof == kFma)
    result = __builtin_cpu_supports("avx512f") ? fma512(mine->amount) : fma256(mine->amount);
  else
#endif
    result = read_words(mine->data, mine->amount);
  mine->end = now();
  sink = result;
  return NULL;
}

// Bytes or operations a second of `threads` threads at once. amount: bytes of `data` that are read once, in equal
// shares; or operations of each thread. 0 where the roof is not there or a thread cannot be had.
double roof_rate(int roof, int threads, const uint8_t* data, size_t amount) {
  const size_t each = operations(roof) * kAccumulators;
  if (threads < 1 || threads > kMostThreads || each == 0) return 0;
  struct share shares[kMostThreads];
  pthread_t handles[kMostThreads];
  int missing = threads;
  const size_t part = roof == kRead ? amount / (size_t)threads / 4096 * 4096 : amount / each;
  for (int i = 0; i < threads; ++i)
    shares[i] = (struct share){roof, roof == kRead ? data + part * (size_t)i : NULL, part, &missing, 0, 0};
  for (int i = 1; i < threads; ++i)
    if (pthread_create(&handles[i], NULL, work, &shares[i]) != 0) abort();  // those that wait cannot be called back
  work(&shares[0]);
  double start = shares[0].start, end = shares[0].end;
  for (int i = 1; i < threads; ++i) {
    pthread_join(handles[i], NULL);
    if (shares[i].start < start) start = shares[i].start;
    if (shares[i].end > end) end = shares[i].end;
  }
  return (double)(roof == kRead ? part : part * each) * threads / (end - start);
}
