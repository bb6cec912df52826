// Formats and their parts as Python hands them over: a dict of numbers, and rows of (name, dtype, shape, address,
// bytes). The bindings of all readers of grids take them from here.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "formats/codebook.h"
#include "formats/grid.h"
#include "formats/parts.h"
#include "formats/sparse.h"

namespace tersor::binding {

using FormatDict = nanobind::typed<nanobind::dict, nanobind::str, nanobind::any>;
using PartRow = std::tuple<std::string, std::string, std::vector<uint64_t>, uintptr_t, size_t>;
using NeedRow = std::tuple<std::string, std::string, std::vector<uint64_t>>;

std::vector<formats::Part> parts_of(const std::vector<PartRow>& rows);
std::vector<formats::PartRoom> rooms_of(const std::vector<PartRow>& rows);
std::vector<NeedRow> rows_of(const std::vector<formats::PartNeed>& needs);

// A member of a format's dict. Raises bad_call where it is missing or of another type.
template <class T>
T number_of(const FormatDict& format, const char* name);
extern template int number_of<int>(const FormatDict&, const char*);
extern template std::string number_of<std::string>(const FormatDict&, const char*);
size_t group_of(const FormatDict& format);  // a number, "channel" or "tensor"

// Codebooks, sparse weights and side terms are in codebooks.cpp.
formats::NumberKind number_kind_of(const std::string& name, const char* what);  // "fp32", "fp16", "bf16"
formats::ScalarCodebook scalar_codebook_of(const FormatDict& format);
formats::VectorCodebook vector_codebook_of(const FormatDict& format);
formats::SparseFormat sparse_format_of(const FormatDict& format);

// The grid of a format that is one, over parts that stay alive with it. Raises bad_call for another family, and what
// the family's grid_of raises. Holds the GIL no longer than it reads the dict.
formats::Grid grid_of(const FormatDict& format, size_t rows, size_t columns, const std::vector<PartRow>& parts,
                      int threads);

}  // namespace tersor::binding
