// A hash of tables of every family, which machines and compilers must agree on: integers alone decide.
#pragma once
#include <cstdint>
#include <vector>

#include "entropy/distribution.h"

namespace tersor::entropy {

inline uint64_t table_hash() {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  const auto take = [&](const TableSet& set) {
    std::vector<uint8_t> bytes;
    set.serialize(bytes);
    for (const uint8_t byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  };
  std::vector<uint32_t> scales, freedoms;
  for (uint32_t i = 0; i < 64; ++i) {
    scales.push_back(7209 + i * i * i * 16);
    freedoms.push_back(256 + 700 * (i / 8));
  }
  for (const Family family : {Family::gaussian, Family::laplace, Family::logistic}) {
    take(make_tables(family, scales, {}, 16, 0));
    take(make_tables(family, scales, {}, 12, 3));
  }
  take(make_tables(Family::student_t, scales, freedoms, 16, 0));
  std::vector<uint32_t> weights;
  std::vector<int32_t> means;
  for (uint32_t i = 0; i < 64; ++i)
    weights.push_back(1 + i * 977 % 65536), means.push_back(int32_t(i * 99991 % 2000000) - 1000000);
  take(make_mixtures(Family::gaussian, 4, weights, means, scales, {}, 16, 1));
  const double pmf[] = {0.1, 1e-9, 0.25, 3e-7, 0.6, 0.05};
  const Masses masses = masses_of_pmf(-2, pmf, 1e-4);
  take(TableSet::from_masses({&masses, 1}, 16));
  return hash;
}

}  // namespace tersor::entropy
