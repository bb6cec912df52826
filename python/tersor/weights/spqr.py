"""Single weights that stay in 16 bits because rounding them would cost the outputs most."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats import Outliers, quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format

_ROUNDS = 4


def outliers(
    weight: NDArray[Any], fmt: Format | str, statistics: Statistics, share: float, *, damping: float, threads: int = 0
) -> Outliers:
    """The `share` of weights whose rounding costs the outputs most. Dettmers et al., SpQR, arXiv:2306.03078.

    weight: [N, K]. The cost of a weight is (w - q)^2 / [H^-1]_kk, what its error adds where all columns after it make
    up for it as well as they can; q: rounded to nearest in `fmt` with the MSE clip. They are taken in four rounds, each
    with the scales of what the rounds before have left, which is how a weight that only widens the scale of its group
    is found; the paper leaves out one weight of a group at a time. Values are fp16.
    """
    matrix = weight.astype(np.float32)
    importance = _conditional(statistics.hessian, damping)
    mask = np.zeros(matrix.shape, np.bool_)
    count = round(share * matrix.size)
    for taken in range(1, _ROUNDS + 1):
        rest = np.where(mask, np.float32(0), matrix)
        stored = quantize(rest, fmt, clip="mse", threads=threads).dequantize(np.float32, threads=threads)
        cost = np.square(stored - rest) * importance
        cost[mask] = -1
        more = count * taken // _ROUNDS - count * (taken - 1) // _ROUNDS
        # Equal costs go to the first, so that the choice is the same everywhere.
        mask.flat[np.argsort(-cost, axis=None, kind="stable")[:more]] = True
    return Outliers.of_mask(matrix, mask)


def refitted(found: Outliers, left: NDArray[np.float32], statistics: Statistics, *, damping: float) -> Outliers:
    """The same places with the values that are best for the outputs beside the codes that were found.

    left: [N, K], W less what the codes give. Of a row with outliers J their values v are those of the least
    (left - v) H (left - v)^T + damping |v - left_J|^2, damping a share of the mean of H's diagonal.
    """
    hessian = statistics.hessian.astype(np.float64)
    pull = damping * float(np.diag(hessian).mean()) or 1.0
    starts, places = found.row_starts.astype(np.int64), found.columns.astype(np.int64)
    values = left[np.repeat(np.arange(len(left)), np.diff(starts)), places].astype(np.float64)
    for row, (first, end) in enumerate(itertools.pairwise(starts)):
        if first == end:
            continue
        chosen = places[first:end]
        off = left[row].astype(np.float64)
        off[chosen] = 0
        block = hessian[np.ix_(chosen, chosen)]
        block[np.diag_indices(len(chosen))] += pull
        values[first:end] += np.linalg.solve(block, hessian[chosen] @ off)
    filled = np.zeros_like(left)
    mask = np.zeros(left.shape, np.bool_)
    rows = np.repeat(np.arange(len(left)), np.diff(starts))
    filled[rows, places], mask[rows, places] = values, True
    return Outliers.of_mask(filled, mask)


def _conditional(hessian: NDArray[np.float32], damping: float) -> NDArray[np.float32]:
    """1 / [H^-1]_kk for the damped H: the mean square of an input less what the others tell of it."""
    matrix = hessian.astype(np.float64)
    mean = float(np.diag(matrix).mean()) or 1.0
    matrix[np.diag_indices(len(matrix))] += max(damping, 1e-6) * mean
    return (1 / np.diag(np.linalg.inv(matrix))).astype(np.float32)
