#include "entropy/combination.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/bits.h"
#include "core/pool.h"

namespace tersor::entropy::combination {
namespace {

constexpr size_t kMostEntries = size_t(1) << 16;  // of a table: 1 MiB
constexpr size_t kGrain = 256;                    // rows of a thread

std::string decimal(Index value) {
  std::string digits;
  do digits.push_back(char('0' + int(value % 10)));
  while (value /= 10);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// a * b / divisor, which is whole; false where it is not below 2^128. No product on the way is larger than the result
// or the product of two words.
bool multiply(Index a, uint64_t b, uint64_t divisor, Index& result) {
  const Index rest = a % divisor * b / divisor;
  return !__builtin_mul_overflow(a / divisor, Index(b), &result) && !__builtin_add_overflow(result, rest, &result);
}

bool binomial(uint64_t n, uint64_t k, Index& result) {
  result = k <= n;
  // By its shorter side it grows with every step, at least as 4^j / (2j + 1): it is done or too large after 70.
  k = std::min(k, n - k);
  for (uint64_t j = 0; j < k && result != 0; ++j)
    if (!multiply(result, n - j, j + 1, result)) return false;
  return true;
}

// What the element of rank i adds when it stands d above the least it can be: C(i + d, i + 1), for d <= n - k. All are
// at most C(n, k).
class Binomials {
 public:
  Binomials(uint64_t n, uint64_t k) : width_(n - k + 1) {
    if (k == 0 || width_ > kMostEntries / k) return;
    table_.resize(size_t(k * width_));
    for (size_t d = 0; d < width_; ++d) table_[d] = d;
    for (size_t at = size_t(width_); at < table_.size(); ++at)
      table_[at] = table_[at - width_] + (at % width_ ? table_[at - 1] : 0);
  }
  Index at(uint64_t i, uint64_t d) const {
    if (!table_.empty()) return table_[size_t(i * width_ + d)];
    Index result = 0;
    if (d > 0) binomial(i + d, i + 1, result);
    return result;
  }
  // The largest d, at most `most`, for which at(i, d) <= index.
  uint64_t last_within(uint64_t i, uint64_t most, Index index) const {
    uint64_t low = 0, high = most;
    while (low < high) {
      const uint64_t middle = high - (high - low) / 2;
      if (at(i, middle) <= index)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }

 private:
  uint64_t width_;
  std::vector<Index> table_;
};

// Rows of both sides, which must be as many.
size_t rows_of(size_t positions, uint64_t n, uint64_t k, size_t words, size_t words_a_row) {
  TERSOR_REQUIRE(k <= n, Code::bad_call, "subsets of ", k, " among ", n);
  const size_t rows = words / words_a_row;
  TERSOR_REQUIRE(words % words_a_row == 0 && positions == checked_mul(rows, k, "positions"), Code::bad_call, positions,
                 " positions and ", words, " words of indexes; ", k, " and ", words_a_row, " a row are needed");
  return rows;
}

}  // namespace

Index count(uint64_t n, uint64_t k) {
  Index result;
  if (binomial(n, k, result)) return result;
  const double bits =
      (std::lgamma(double(n) + 1) - std::lgamma(double(k) + 1) - std::lgamma(double(n - k) + 1)) / std::log(2.0);
  fail(Code::bad_call, "C(", n, ", ", k, ") takes about ", uint64_t(std::ceil(bits)), " bits, at most 128 are allowed");
}

int index_words(uint64_t n, uint64_t k) { return count(n, k) <= Index(1) << 64 ? 1 : 2; }

void encode(std::span<const int64_t> positions, uint64_t n, uint64_t k, std::span<uint64_t> indexes, int threads) {
  const size_t words = size_t(index_words(n, k)), rows = rows_of(positions.size(), n, k, indexes.size(), words);
  const Binomials binomials(n, k);
  parallel_for(rows, kGrain, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const int64_t* const of = positions.data() + row * k;
      Index index = 0;
      uint64_t least = 0;
      for (uint64_t i = 0; i < k; ++i) {
        const uint64_t position = uint64_t(of[i]);  // below 0: above every n that is allowed
        TERSOR_REQUIRE(position < n, Code::bad_call, "position ", of[i], " at place ", i, " of row ", row,
                       " is not below ", n);
        TERSOR_REQUIRE(position >= least, Code::bad_call, "position ", of[i], " at place ", i, " of row ", row,
                       " is not above the ", least - 1, " before it");
        least = position + 1;
        if (position - i <= n - k) index += binomials.at(i, position - i);
      }
      indexes[row * words] = uint64_t(index);
      if (words == 2) indexes[row * words + 1] = uint64_t(index >> 64);
    }
  });
}

void decode(std::span<const uint64_t> indexes, uint64_t n, uint64_t k, std::span<int64_t> positions, int threads) {
  const Index subsets = count(n, k);
  const size_t words = size_t(index_words(n, k)), rows = rows_of(positions.size(), n, k, indexes.size(), words);
  const Binomials binomials(n, k);
  parallel_for(rows, kGrain, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      Index index = indexes[row * words];
      if (words == 2) index |= Index(indexes[row * words + 1]) << 64;
      TERSOR_REQUIRE(index < subsets, Code::bad_call, "index ", decimal(index), " of row ", row, ", below C(", n, ", ",
                     k, ") = ", decimal(subsets), " is needed");
      uint64_t d = n - k;
      for (uint64_t i = k; i-- > 0;) {
        d = binomials.last_within(i, d, index);
        index -= binomials.at(i, d);
        positions[row * k + i] = int64_t(i + d);
      }
    }
  });
}

}  // namespace tersor::entropy::combination
