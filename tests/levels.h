// Checks that hold on every instruction set level of the machine.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "core/isa.h"

namespace tersor::check {

template <class F>
void each_isa(const F& f) {
  const Isa before = active_isa();
  for (int level = 0; level <= int(machine_isa()); ++level) hold_isa(Isa(level)), f();
  hold_isa(before);
}

// decode fills `size` bytes or raises: all levels agree, in the result and in the refusal.
template <class F>
void alike_on_each_isa(size_t size, const F& decode) {
  std::string want;
  std::vector<uint8_t> result;
  bool first = true;
  each_isa([&] {
    std::vector<uint8_t> got(size);
    const std::string error = error_of([&] { decode(got); });
    if (first) want = error, result = got, first = false;
    CHECK(error.empty() == want.empty());
    if (error.empty()) CHECK(got == result);
  });
}

}  // namespace tersor::check
