"""Storage formats of low-bit matrices, and matrices stored in them. Pages: docs/formats/, quantized.md first.

q = tersor.quantize(weight, "int4-g128")          # or formats.int_group(bits=4, group=128)
q.dequantize(), q.bits_per_weight
q.save("weight.tsr")
"""

from __future__ import annotations

from tersor.formats.codebook import ScalarCodebook, VectorCodebook, codebook, vector_codebook
from tersor.formats.files import load_file, save_file, total_nbytes
from tersor.formats.float_group import FloatGroup, float_group
from tersor.formats.format import Format, Part, from_dict, parse
from tersor.formats.int_group import IntGroup, int_group
from tersor.formats.quantized import QuantizedTensor, quantize
from tersor.formats.side_terms import LowRank, Outliers
from tersor.formats.sparse import Sparse, sparse
from tersor.formats.transforms import ChannelScales, Hadamard, Permutation

__all__ = [
    "ChannelScales",
    "FloatGroup",
    "Format",
    "Hadamard",
    "IntGroup",
    "LowRank",
    "Outliers",
    "Part",
    "Permutation",
    "QuantizedTensor",
    "ScalarCodebook",
    "Sparse",
    "VectorCodebook",
    "codebook",
    "float_group",
    "from_dict",
    "int_group",
    "load_file",
    "parse",
    "quantize",
    "save_file",
    "sparse",
    "total_nbytes",
    "vector_codebook",
]
