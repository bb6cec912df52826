"""The protocol of solvers, and what those that go column by column share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tersor.formats.format import parse
from tersor.formats.grid_format import GridFormat
from tersor.formats.quantized import DTYPES, QuantizedTensor, matrix_of
from tersor.lossless import NUMPY_DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts

_BLOCK = 256  # columns of a factor that are found at once
ORDERS = ("activations", "columns")
CLIPS = ("none", "mse", "hessian", "search")


class MissingStatisticsError(ValueError):
    """A solver was given no statistics, or none of any token."""


class Solver(Protocol):
    """Chooses the parts of a format for one matrix; knows neither layers nor models."""

    def accepted(self, fmt: Format | str) -> Format:
        """The format that is meant. Raises TypeError: what this solver needs, and that this is none."""
        ...

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """weight: [N, K] as tersor.quantize takes it. statistics: of the inputs, K columns.

        The same arguments give the same parts for any number of threads. Raises MissingStatisticsError, and what
        tersor.quantize raises.
        """
        ...


@dataclass(frozen=True)
class Problem:
    """A matrix, a grid for it and the statistics that it was chosen for, columns in the order of solving.

    weight: [N, K]. importance: [K], of columns as they stand: their mean squares. hessian: [K, K] float32, rows and
    columns in `order`, with a positive number on the diagonal of a column that no input reaches, and damped where there
    are fewer tokens than columns: there are changes then that no token sees, and nothing else would bound them.
    feedback: [K, K], R of the damped hessian = R R^T, R upper triangular, its columns divided by their diagonal: how
    far the error of the one in place j moves the one in place k, and 1 where these are the same.
    """

    fmt: GridFormat
    weight: NDArray[Any]
    order: NDArray[np.uint32]
    importance: NDArray[np.float32]
    hessian: NDArray[np.float32]
    feedback: NDArray[np.float32]

    @classmethod
    def of(
        cls, weight: object, fmt: Format | str, statistics: Statistics | None, *, order: str, damping: float
    ) -> Problem:
        """Raises TypeError (a format that is no grid), ValueError (statistics of other columns, or none of inputs)."""
        grid, matrix = grid_of(fmt), matrix_of(weight)
        hessian = hessian_for(matrix, statistics)
        importance = np.diag(hessian).copy()
        places = np.arange(len(hessian)) if order == "columns" else np.argsort(-importance, kind="stable")
        hessian = hessian[np.ix_(places, places)]
        diagonal = np.einsum("ii->i", hessian)
        mean = float(diagonal.mean(dtype=np.float64)) or 1.0
        diagonal[diagonal <= 0] = mean
        feedback, added = damped_factor(hessian, damping, mean)
        feedback /= np.diag(feedback).copy()
        if statistics is not None and statistics.tokens < len(hessian):
            diagonal += added
        return cls(grid, matrix, places.astype(np.uint32), importance, hessian, feedback)

    def grid(self, clip: str, threads: int) -> dict[str, NDArray[Any]]:
        """Parts with the scales that `clip` chooses: "none", "mse" or "hessian"."""
        importance = self.importance if clip == "hessian" else None
        clip = "none" if clip == "none" else "mse"
        return self.fmt.encode(self.weight, clip=clip, seed=0, threads=threads, importance=importance)

    def decoded(self, parts: Parts, threads: int) -> NDArray[np.float32]:
        """What parts with packed codes are worth, [N, K]."""
        out = np.empty((self.weight.shape[0], self.weight.shape[1]), np.float32)
        self.fmt.decode(parts, self.weight.shape, out, threads=threads)
        return out

    def errors(self, parts: Parts, codes: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
        """The weights less what these codes are worth, [N, K]."""
        shape = (self.weight.shape[0], self.weight.shape[1])
        packed = self.fmt.packed({**parts, "codes": codes}, shape, threads=threads)
        found: NDArray[np.float32] = self.weight.astype(np.float32) - self.decoded(packed, threads)
        return found

    def stored(self, parts: Parts, codes: NDArray[np.uint8], threads: int) -> QuantizedTensor:
        """The quantized tensor with these codes, its error measured."""
        return stored(self.fmt, self.weight, parts, codes, threads)


def grid_of(fmt: Format | str) -> GridFormat:
    """The format that is meant. Raises TypeError where its weights have no code each."""
    grid = parse(fmt)
    if not isinstance(grid, GridFormat):
        raise TypeError(f"a format with a code a weight is needed, not {grid}")
    return grid


def hessian_for(matrix: NDArray[Any], statistics: Statistics | None) -> NDArray[np.float32]:
    """The statistics' second moments, a fresh array [K, K]. Raises MissingStatisticsError, ValueError."""
    if statistics is None or statistics.tokens == 0:
        raise MissingStatisticsError("the statistics of a layer's inputs are needed, with one token or more")
    if statistics.columns != matrix.shape[1]:
        raise ValueError(f"statistics of {statistics.columns} columns for a matrix of {matrix.shape[1]}")
    hessian = statistics.hessian
    if not (finite := np.isfinite(hessian)).all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"the statistics are not finite, {hessian[row, column]} at [{row}, {column}]: products of inputs are too "
            "large for float32, or not numbers"
        )
    if (least := float(np.diag(hessian).min())) < 0:
        raise ValueError(f"the statistics have a mean square of {least}, and none of real inputs is below 0")
    return hessian


def stored(
    fmt: GridFormat, weight: NDArray[Any], parts: Parts, codes: NDArray[np.uint8], threads: int
) -> QuantizedTensor:
    """The quantized tensor of weight [N, K] with these numbers and codes, uint8 [N, K], its error measured."""
    shape = (weight.shape[0], weight.shape[1])
    made = QuantizedTensor(
        format=fmt,
        shape=shape,
        dtype=next(name for name in DTYPES if NUMPY_DTYPES[name] == weight.dtype),
        parts=fmt.packed({**parts, "codes": codes}, shape, threads=threads),
    )
    object.__setattr__(made, "errors", {"weights": made.relative_error(weight)})
    return made


def damped_factor(hessian: NDArray[np.float32], damping: float, mean: float) -> tuple[NDArray[np.float32], np.float32]:
    """R, upper triangular, of the damped hessian = R R^T, and what the diagonal grew by.

    That is a share of `mean`, ten times as large again and again until there is a factor.
    """
    turned = np.empty_like(hessian)
    for share in (damping, *(max(damping, 1e-6) * 10.0**i for i in range(1, 8))):
        turned[:] = hessian[::-1, ::-1]  # its lower triangle turned back is an upper one
        added = np.float32(share * mean)
        np.einsum("ii->i", turned)[:] += added
        try:
            _factorize(turned)
        except np.linalg.LinAlgError:
            continue
        return np.ascontiguousarray(turned[::-1, ::-1]), added
    raise ValueError("the statistics have no Cholesky factor, however much is added to their diagonal")


def _factorize(matrix: NDArray[np.float32]) -> None:
    """Leave the lower Cholesky factor in place of the matrix, block column by block column.

    NumPy's own takes three matrices of doubles beside the one it is given; here these are of a block. Raises
    LinAlgError: the matrix is then half done.
    """
    for first in range(0, len(matrix), _BLOCK):
        last = min(first + _BLOCK, len(matrix))
        below = matrix[first:, first:last]
        below -= matrix[first:, :first] @ matrix[first:last, :first].T
        corner = np.linalg.cholesky(matrix[first:last, first:last].astype(np.float64))
        matrix[first:last, first:last] = corner
        matrix[last:, first:last] = matrix[last:, first:last] @ np.linalg.inv(corner).T.astype(np.float32)
        matrix[first:last, last:] = 0
