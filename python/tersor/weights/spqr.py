"""Single weights that stay in 16 bits because rounding them would cost the outputs most."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats import Outliers, parse, quantize
from tersor.weights.solver import damped_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format

_ROUNDS = 4
_BLOCK = 256  # columns of an inverse factor that are found at once
_LEAST_DAMPING = 1e-6  # columns that no input reaches have no inverse without


def outliers(
    weight: NDArray[Any], fmt: Format | str, statistics: Statistics, share: float, *, damping: float, threads: int = 0
) -> Outliers:
    """The `share` of weights that the outputs gain most by keeping. Dettmers et al., SpQR, arXiv:2306.03078.

    weight: [N, K]. An error of a weight costs (w - q)^2 / [H^-1]_kk of the damped H, which is what it adds where all
    other columns make up for it as well as they can; q: rounded to nearest in `fmt` with the MSE clip. The weights of
    largest magnitude in each group cost what the whole group is spared without them, since they widen its scale, and
    all others what they cost themselves. They are taken in four rounds, each with the scales of what the rounds before
    have left; the paper leaves out one weight of a group at a time. Values are fp16.
    """
    matrix = weight.astype(np.float32)
    importance = _conditional(statistics.hessian, damping)
    mask = np.zeros(matrix.shape, np.bool_)
    group = min(_group(parse(fmt)), matrix.shape[1])
    count = round(share * matrix.size)
    extremes = max(1, round(share * group / _ROUNDS))
    for taken in range(1, _ROUNDS + 1):
        rest = np.where(mask, np.float32(0), matrix)
        extreme = _largest(rest, group, extremes, threads) & (rest != 0)
        cost, without = (
            np.square(quantize(one, fmt, clip="mse", threads=threads).dequantize(np.float32, threads=threads) - one)
            * importance
            for one in (rest, np.where(extreme, np.float32(0), rest))
        )
        starts = np.arange(0, matrix.shape[1], group)
        spared = np.add.reduceat(cost - without, starts, axis=1) / extremes
        cost = np.maximum(cost, np.where(extreme, spared.repeat(group, axis=1)[:, : matrix.shape[1]], 0))
        cost[mask] = 0
        more = count * taken // _ROUNDS - count * (taken - 1) // _ROUNDS
        mask |= _largest(cost.reshape(1, -1), cost.size, more, threads).reshape(cost.shape) & (cost > 0)
    return Outliers.of_mask(matrix, mask)


def refitted(found: Outliers, left: NDArray[np.float32], statistics: Statistics, *, damping: float) -> Outliers:
    """The same places with the values that are best for the outputs beside the codes that were found.

    left: [N, K], W less what the codes give. Of a row with outliers J their values v are those of the least
    (left - v) H (left - v)^T + damping |v - left_J|^2, damping a share of the mean of H's diagonal.
    """
    hessian = statistics.hessian.astype(np.float64)
    pull = max(damping, _LEAST_DAMPING) * float(np.diag(hessian).mean()) or 1.0
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


def _group(fmt: Format) -> int:
    """Columns that share a scale in `fmt`; those of a row where they are more, or where there is none."""
    group = getattr(fmt, "group", None)
    return group if isinstance(group, int) else sys.maxsize


def _largest(numbers: NDArray[np.float32], span: int, keep: int, threads: int) -> NDArray[np.bool_]:
    """True for the `keep` largest magnitudes of every `span` columns of a row, the first of equal ones."""
    found = np.ascontiguousarray(numbers)
    mask = np.empty(found.shape, np.bool_)
    rows, columns = found.shape
    _core.keep_largest(found.ctypes.data, rows, columns, span, keep, mask.ctypes.data, threads)
    return mask


def _conditional(hessian: NDArray[np.float32], damping: float) -> NDArray[np.float32]:
    """1 / [H^-1]_kk for the damped H: the mean square of an input less what the others tell of it.

    Of H = R R^T, [H^-1]_kk is the squared norm of column k of R^-1, which is made of block columns and never whole.
    """
    mean = float(np.diag(hessian).mean(dtype=np.float64)) or 1.0
    factor, _ = damped_factor(hessian, max(damping, _LEAST_DAMPING), mean)
    starts = range(0, len(factor), _BLOCK)
    corners = {
        at: np.linalg.inv(factor[at : at + _BLOCK, at : at + _BLOCK].astype(np.float64)).astype(np.float32)
        for at in starts
    }
    norms = np.empty(len(factor))
    for first in starts:
        end = min(first + _BLOCK, len(factor))
        inverse = np.zeros((end, end - first), np.float32)
        inverse[first:] = corners[first]
        for at in reversed(range(0, first, _BLOCK)):
            below = at + _BLOCK
            inverse[at:below] = -corners[at] @ (factor[at:below, below:end] @ inverse[below:])
        norms[first:end] = np.square(inverse, dtype=np.float64).sum(0)
    return (1 / norms).astype(np.float32)
