// The reference.
#include <cmath>

#include "solve/move_columns.h"

namespace tersor::solve {

void move_columns_scalar(const float* errors, const float* factor, size_t count, float* moved) noexcept {
  for (size_t j = 0; j < count; ++j, errors += kLoopRows, factor += kLoopColumns)
    for (size_t c = 0; c < kLoopColumns; ++c)
      for (size_t r = 0; r < kLoopRows; ++r)
        moved[c * kLoopRows + r] = std::fma(errors[r], factor[c], moved[c * kLoopRows + r]);
}

}  // namespace tersor::solve
