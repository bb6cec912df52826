"""Modules whose weights stay compressed in memory. Needs PyTorch >= 2.10. Page: docs/nn.md."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - the sentence below is better than one from deep inside
except ImportError as error:
    raise ImportError("tersor.nn needs PyTorch >= 2.10: pip install 'tersor[torch]'") from error

from tersor.nn.exact import ExactBytes, ExactEmbedding, ExactLinear, compress_exact_, exact_bytes

__all__ = ["ExactBytes", "ExactEmbedding", "ExactLinear", "compress_exact_", "exact_bytes"]
