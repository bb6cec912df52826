"""Codebooks of powers: levels that lie closer where there are more weights, by one exponent a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats.codebook import ScalarCodebook
from tersor.formats.format import parse
from tersor.formats.quantized import matrix_of
from tersor.lossless import NUMPY_DTYPES
from tersor.weights.gptq import feedback_codes, require_options
from tersor.weights.solver import Problem, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format
    from tersor.formats.quantized import QuantizedTensor

_LEAST, _MOST = 0.5, 3.0  # exponents
_STEPS = 16  # of the search, which leave 1/1000 of the interval
_SEARCHED = 1 << 20  # weights, of rows at equal distances
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Nupes:
    """Levels sign(c) |c|^a with an exponent for the tensor. Yvinec et al., NUPES, arXiv:2308.05600.

    As in PowerQuant (ICLR 2023). For a scalar codebook with one table for the tensor. The exponent is that of the least
    squared error of the rounded weights, found by golden section; with statistics columns weigh their inputs' mean
    squares there and codes are GPTQ's on the table, without them codes are the nearest. clip: "none", "mse" or
    "hessian". order, damping: those of GPTQ.
    """

    order: str = "activations"
    damping: float = 0.01
    clip: str = "mse"

    def __post_init__(self) -> None:
        require_options(self.order, self.damping, self.clip)
        if self.clip == "search":
            raise ValueError("clip is one of none, mse, hessian, not 'search'")

    def accepted(self, fmt: Format | str) -> ScalarCodebook:
        """Solver.accepted: a scalar codebook with one table."""
        grid = parse(fmt)
        if not isinstance(grid, ScalarCodebook) or grid.scope != "tensor":
            raise TypeError(f'a scalar codebook of scope "tensor" is needed, not {grid}')
        return grid

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve; statistics may be None. Raises TypeError (another format)."""
        grid, matrix = self.accepted(fmt), matrix_of(weight)
        problem = None
        importance = np.ones(matrix.shape[1], np.float32)
        if statistics is not None:
            problem = Problem.of(matrix, grid, statistics, order=self.order, damping=self.damping)
            importance = problem.importance
        exponent = best_exponent(matrix, grid, importance, threads)
        parts = grid.encode(
            matrix,
            clip="none" if self.clip == "none" else "mse",
            seed=0,
            threads=threads,
            importance=importance if self.clip == "hessian" else None,
            codebook=power_levels(grid, exponent),
        )
        if problem is None:
            codes = grid.symbols(parts, (matrix.shape[0], matrix.shape[1]), threads=threads)["codes"]
            return stored(grid, matrix, parts, codes, threads)
        return problem.stored(parts, feedback_codes(problem, parts, threads), threads)


def power_levels(grid: ScalarCodebook, exponent: float) -> NDArray[Any]:
    """The table of sign(c) |c|^exponent, rising: [1, levels] of the table's dtype, the lowest -1."""
    steps = np.arange(grid.levels) - grid.levels // 2
    part = grid.parts(1, 1)["codebook"]
    levels = np.sign(steps) * np.abs(steps / (grid.levels // 2)) ** exponent
    return levels.reshape(part.shape).astype(NUMPY_DTYPES[part.dtype])


def best_exponent(matrix: NDArray[Any], grid: ScalarCodebook, importance: NDArray[np.float32], threads: int) -> float:
    """The exponent whose levels leave the least error, columns weighing as they are important."""
    rows = max(1, _SEARCHED // matrix.shape[1])
    some = np.ascontiguousarray(matrix[:: -(-len(matrix) // rows)])
    wanted = some.astype(np.float32)
    decoded = np.empty_like(wanted)

    def error(exponent: float) -> float:
        parts = grid.encode(some, clip="none", seed=0, threads=threads, codebook=power_levels(grid, exponent))
        grid.decode(parts, (some.shape[0], some.shape[1]), decoded, threads=threads)
        return float((np.square(decoded - wanted).sum(0, dtype=np.float64) * importance).sum())

    low, high = _LEAST, _MOST
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    errors = [error(one) for one in inner]
    for _ in range(_STEPS):
        if errors[0] <= errors[1]:
            high = inner[1]
            inner = [high - _GOLDEN * (high - low), inner[0]]
            errors = [error(inner[0]), errors[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + _GOLDEN * (high - low)]
            errors = [errors[1], error(inner[1])]
    return inner[errors.index(min(errors))]
