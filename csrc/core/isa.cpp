#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tersor {

static Isa detect() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
                    __builtin_cpu_supports("sse4.2");
  unsigned a, b, c, d;
  if (!avx2 || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return Isa::scalar;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (!avx512) return Isa::avx2;
  const bool vbmi = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                    __builtin_cpu_supports("avx512vnni");
  if (!vbmi) return Isa::avx512;
  return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512vbmi;
#else
  return Isa::scalar;
#endif
}

Isa machine_isa() noexcept {
  static const Isa level = detect();
  return level;
}

bool has_avx_vnni() noexcept {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned a, b, c, d;
    return machine_isa() >= Isa::avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
  }();
  return has;
#else
  return false;
#endif
}

bool has_avx512_vnni() noexcept {
#if defined(__x86_64__)
  return machine_isa() >= Isa::avx512 && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

static Isa first_level() noexcept {
  const char* wanted = std::getenv("TERSOR_ISA");
  if (wanted)
    for (int level = 0; level < int(std::size(kIsaNames)); ++level)
      if (std::strcmp(wanted, kIsaNames[level]) == 0 && Isa(level) < machine_isa()) return Isa(level);
  return machine_isa();  // TERSOR_ISA lowers, it never raises
}

static std::atomic<Isa>& level_in_use() noexcept {
  static std::atomic<Isa> level{first_level()};
  return level;
}

Isa active_isa() noexcept { return level_in_use().load(std::memory_order_relaxed); }

void hold_isa(Isa level) {
  TERSOR_REQUIRE(level >= Isa::scalar && level <= machine_isa(), Code::bad_call, "ISA level ", int(level),
                 " asked, this machine runs up to ", kIsaNames[int(machine_isa())]);
  level_in_use().store(level, std::memory_order_relaxed);
}

}  // namespace tersor
