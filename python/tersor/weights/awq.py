"""Scales of columns: those whose inputs are large are made large before rounding, and their inputs small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats import ChannelScales, quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format

_EXPONENTS = 20  # of the search: 0, 1/20, ... 19/20
_ROWS = 512  # that the search looks at: rows are alike in what their columns meet
_SMALLEST, _LARGEST = 2.0**-14, 65504.0  # normal numbers of fp16


def channel_scales(
    weight: NDArray[Any], fmt: Format | str, statistics: Statistics, *, threads: int = 0
) -> ChannelScales | None:
    """The scales s = (root mean square of the inputs)^a whose a is best for the outputs. Lin et al., AWQ, MLSys 2024.

    weight: [N, K]. a: one of 20 numbers from 0 on below 1, by the error of the outputs over the statistics' inputs,
    weights rounded to nearest in `fmt` with the MSE clip; of at most 512 rows. Scales are fp16, of geometric mean
    between their ends 1. None where a = 0, which scales nothing, is best. The paper takes the mean of |x|.
    """
    some = np.ascontiguousarray(weight[:: -(-len(weight) // _ROWS)], np.float32)
    hessian = statistics.hessian
    best: ChannelScales | None = None
    least = np.inf
    for step in range(_EXPONENTS):
        scales = _scales(_root_mean_square(hessian) ** (step / _EXPONENTS)) if step else None
        stored = quantize(some, fmt, clip="mse", threads=threads, transforms=() if scales is None else (scales,))
        off = stored.dequantize(np.float32, threads=threads) - some
        error = float(np.einsum("nk,nk->", off @ hessian, off, dtype=np.float64))
        if error < least:
            least, best = error, scales
    return best


def smoothing(weight: NDArray[Any], statistics: Statistics, exponent: float = 0.5) -> ChannelScales:
    """The scales that leave inputs and weights alike in range. Xiao et al., SmoothQuant, ICML 2023.

    weight: [N, K]. s = rms(x)^exponent / max|w|^(1 - exponent) by columns: the larger the exponent, the more of the
    inputs' range goes into the weights. The paper takes the maximum of |x|, which statistics do not have.
    """
    if not 0 <= exponent <= 1:
        raise ValueError(f"an exponent is in [0, 1], not {exponent}")
    most = np.abs(weight.astype(np.float32)).max(0).astype(np.float64)
    rms = _root_mean_square(statistics.hessian)
    return _scales(rms**exponent / np.where(most > 0, most, 1) ** (1 - exponent))


def _root_mean_square(hessian: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each column's inputs; of one that none reaches the mean of all others."""
    rms = np.sqrt(np.maximum(np.diag(hessian), 0).astype(np.float64))
    reached = rms > 0
    return np.where(reached, rms, rms[reached].mean() if reached.any() else 1.0)


def _scales(numbers: NDArray[np.float64]) -> ChannelScales:
    middle = np.sqrt(numbers.max()) * np.sqrt(numbers.min())
    return ChannelScales(np.clip(numbers / middle, _SMALLEST, _LARGEST).astype(np.float16))
