// Chooses codebooks, scales and codes of formats with codebooks: seeded k-means on the matrix's own weights, or a
// codebook that is given. Page: docs/formats/codebook.md, section "Ours". The parts do not depend on threads or
// instruction sets.
#pragma once
#include <cstdint>
#include <span>

#include "formats/codebook.h"
#include "solve/grid_fit.h"

namespace tersor::solve {

struct CodebookFit {
  bool least_squares =
      false;  // scales of least squared error: for scalars of a list of smaller ones, for vectors exactly
  std::span<const float> importance{};  // of columns in that choice, as GridFit's; vectors know none
  bool given = false;                   // the part `codebook` holds one already
  uint64_t seed = 0;
  int rounds = 20;  // of Lloyd's
};

// Fill the parts of the format. Raise bad_type and bad_call as grid_fit does, and what formats::data_of raises.
void codebook_fit(const Weights& weights, const formats::ScalarCodebook& format, const CodebookFit& options,
                  std::span<const formats::PartRoom> parts, int threads);
void codebook_fit(const Weights& weights, const formats::VectorCodebook& format, const CodebookFit& options,
                  std::span<const formats::PartRoom> parts, int threads);

}  // namespace tersor::solve
