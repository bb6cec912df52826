// The Python module `tersor._core`, one bind_ function a file. Arrays arrive as an address, a dtype's name and a shape,
// because NumPy's bf16 and fp8 have neither DLPack nor a buffer format; python/tersor/lossless.py takes them apart.
#pragma once
#include <nanobind/nanobind.h>

#include <string>
#include <vector>

namespace tersor::binding {

std::vector<std::string> paths_of(const std::vector<nanobind::bytes>& names);  // as the core takes them

void bind_errors(nanobind::module_& m);         // tersor::Error -> Python's exceptions; first, the others raise
void bind_process(nanobind::module_& m);        // version, ISA level, threads, what was built in
void bind_arrays(nanobind::module_& m);         // foreign arrays through DLPack
void bind_entropy(nanobind::module_& m);        // tables, the rans8 stream
void bind_indexed(nanobind::module_& m);        // sets of tables, the indexed stream
void bind_integers(nanobind::module_& m);       // golomb and gap streams, bit packing, combinations
void bind_range(nanobind::module_& m);          // the range coder
void bind_adaptive(nanobind::module_& m);       // the adaptive stream
void bind_tokens(nanobind::module_& m);         // tokens of learned codecs: models, streams, chunks
void bind_integer_lists(nanobind::module_& m);  // lists of Python's integers, and the cdfs of other codecs
void bind_formats(nanobind::module_& m);        // formats of quantized matrices: fit, check, dequantize
void bind_codebooks(nanobind::module_& m);      // formats with codebooks and sparse ones, side terms, rotations
void bind_gemm(nanobind::module_& m);           // packed matrices, y = x W^T
void bind_files(nanobind::module_& m);          // whole files and whole states, in and out of .tsr
void bind_tensor_file(nanobind::module_& m);    // .tsr open for reading

}  // namespace tersor::binding
