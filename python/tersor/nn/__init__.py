"""Modules whose weights stay compressed or in few bits in memory. Needs PyTorch >= 2.10. Pages: docs/nn.md, gemm.md."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - the sentence below is better than one from deep inside
except ImportError as error:
    raise ImportError("tersor.nn needs PyTorch >= 2.10: pip install 'tersor[torch]'") from error

from tersor.nn.convert import ConvertedLayer, convert_
from tersor.nn.discquant import DiscQuant
from tersor.nn.exact import ExactBytes, ExactEmbedding, ExactLinear, compress_exact_, exact_bytes
from tersor.nn.experts import QuantExperts
from tersor.nn.learned_rounding import LearnedRounding
from tersor.nn.quantized import PackedWeight, QuantEmbedding, QuantLinear

__all__ = [
    "ConvertedLayer",
    "DiscQuant",
    "ExactBytes",
    "ExactEmbedding",
    "ExactLinear",
    "LearnedRounding",
    "PackedWeight",
    "QuantEmbedding",
    "QuantExperts",
    "QuantLinear",
    "compress_exact_",
    "convert_",
    "exact_bytes",
]
