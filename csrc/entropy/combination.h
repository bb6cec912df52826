// Which k of n: subsets as numbers below C(n, k) (the combinatorial number system; Beckenbach, 1964; enumerative
// coding: Cover, 1973). The subset p_0 < p_1 < ... has the number C(p_0, 1) + C(p_1, 2) + ..., which n does not change.
#pragma once
#include <cstdint>
#include <span>

namespace tersor::entropy::combination {

using Index = unsigned __int128;

// C(n, k); 0 where k > n. Raises bad_call where it is not below 2^128, and says how many bits it takes.
Index count(uint64_t n, uint64_t k);

// The uint64 words of an index, the low one first: 1 where C(n, k) <= 2^64, else 2.
int index_words(uint64_t n, uint64_t k);

// positions: [rows, k], each row strictly increasing in [0, n), else bad_call with the first that is not.
// indexes: [rows, index_words(n, k)].
void encode(std::span<const int64_t> positions, uint64_t n, uint64_t k, std::span<uint64_t> indexes, int threads);

// indexes: [rows, index_words(n, k)], each below C(n, k), else bad_call. positions: [rows, k].
void decode(std::span<const uint64_t> indexes, uint64_t n, uint64_t k, std::span<int64_t> positions, int threads);

}  // namespace tersor::entropy::combination
