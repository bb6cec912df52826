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

ORDERS = ("activations", "columns")
CLIPS = ("none", "mse")


class MissingStatisticsError(ValueError):
    """A solver was given no statistics, or none of any token."""


class Solver(Protocol):
    """Chooses the parts of a format for one matrix; knows neither layers nor models."""

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

    weight: [N, K]. hessian: [K, K] float32, rows and columns in `order`, with a positive number on the diagonal of a
    column that no input reaches. factor: [K, K], R of the damped hessian = R R^T, R upper triangular.
    """

    fmt: GridFormat
    weight: NDArray[Any]
    order: NDArray[np.uint32]
    hessian: NDArray[np.float32]
    factor: NDArray[np.float32]

    @classmethod
    def of(
        cls, weight: object, fmt: Format | str, statistics: Statistics | None, *, order: str, damping: float
    ) -> Problem:
        """Raises TypeError (a format that is no grid), ValueError (statistics of other columns, or not finite)."""
        grid, matrix = parse(fmt), matrix_of(weight)
        if not isinstance(grid, GridFormat):
            raise TypeError(f"a format with a code a weight is needed, not {grid}")
        if statistics is None or statistics.tokens == 0:
            raise MissingStatisticsError("the statistics of a layer's inputs are needed, with one token or more")
        if statistics.columns != matrix.shape[1]:
            raise ValueError(f"statistics of {statistics.columns} columns for a matrix of {matrix.shape[1]}")
        hessian = statistics.hessian
        if not np.isfinite(hessian).all():
            raise ValueError("the statistics are not finite: inputs are too large for float32")
        places = _order(hessian, order)
        hessian = hessian[np.ix_(places, places)]
        diagonal = np.einsum("ii->i", hessian)
        mean = float(diagonal.mean(dtype=np.float64)) or 1.0
        diagonal[diagonal <= 0] = mean
        factor = _damped_factor(hessian.copy(), damping, mean)
        return cls(grid, matrix, places.astype(np.uint32), hessian, factor)

    def stored(self, parts: Parts, codes: NDArray[np.uint8], threads: int) -> QuantizedTensor:
        """The quantized tensor with these codes, its error measured."""
        shape = (self.weight.shape[0], self.weight.shape[1])
        made = QuantizedTensor(
            format=self.fmt,
            shape=shape,
            dtype=next(name for name in DTYPES if NUMPY_DTYPES[name] == self.weight.dtype),
            parts=self.fmt.packed({**parts, "codes": codes}, shape, threads=threads),
        )
        object.__setattr__(made, "errors", {"weights": made.relative_error(self.weight)})
        return made


def _order(hessian: NDArray[np.float32], order: str) -> NDArray[np.intp]:
    if order == "columns":
        return np.arange(len(hessian))
    return np.argsort(-np.diag(hessian), kind="stable")


def _damped_factor(hessian: NDArray[np.float32], damping: float, mean: float) -> NDArray[np.float32]:
    """R; the diagonal grows in place, by a share of `mean` that is ten times as large until there is a factor."""
    diagonal = np.einsum("ii->i", hessian)
    before = diagonal.copy()
    for share in (damping, *(max(damping, 1e-6) * 10.0**i for i in range(1, 8))):
        diagonal[:] = before + np.float32(share * mean)
        try:  # of the matrix turned round, whose lower triangle turned back is an upper one
            return np.ascontiguousarray(np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
    raise ValueError("the statistics have no Cholesky factor, however much is added to their diagonal")
