"""Rounding column by column, each error spread over the columns that follow."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.weights.solver import CLIPS, ORDERS, Problem, grid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts
    from tersor.formats.grid_format import GridFormat
    from tersor.formats.quantized import QuantizedTensor


@dataclass(frozen=True, kw_only=True)
class GPTQ:
    """Rounding with second-order error feedback, for grids. Frantar et al., GPTQ, ICLR 2023.

    Computed as LDLQ (Chee et al., QuIP, NeurIPS 2023), which gives the same numbers from one Cholesky factor and no
    inverse. Scales are chosen before, from the weights as they are, so that columns may be taken in any order.
    order: "activations" takes those of the largest mean square first, "columns" as they stand. damping: added to the
    Hessian's diagonal, a share of its mean; ten times as much as often as it has no Cholesky factor. clip: how scales
    are chosen: "none" and "mse" as tersor.quantize takes them; "hessian": least squared error, columns weighing their
    inputs' mean squares; "search": four tries, of which each row keeps the best (at four times the cost).
    """

    order: str = "activations"
    damping: float = 0.01
    clip: str = "mse"

    def __post_init__(self) -> None:
        require_options(self.order, self.damping, self.clip)

    def accepted(self, fmt: Format | str) -> GridFormat:
        """Solver.accepted: a format with a code a weight."""
        return grid_of(fmt)

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve."""
        problem = Problem.of(weight, fmt, statistics, order=self.order, damping=self.damping)
        return problem.stored(*chosen(problem, self.clip, threads), threads)


def chosen(problem: Problem, clip: str, threads: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    """Scales as `clip` says, and their codes, uint8 [N, K].

    "search" solves under the scales of "mse" and of "none", and under those of least squared error for what feedback
    had moved the weights to in either case; each row keeps what leaves its outputs the least error.
    """
    if clip != "search":
        parts = problem.grid(clip, threads)
        return parts, feedback_codes(problem, parts, threads)
    tries = (one for start in ("mse", "none") for one in _tries(problem, start, threads))
    best = functools.reduce(_Solution.merged, tries)
    return best.parts, best.codes


def _tries(problem: Problem, clip: str, threads: int) -> Iterator[_Solution]:
    first = _Solution.of(problem, problem.grid(clip, threads), threads)
    yield first
    moved = problem.weight.astype(np.float32) - first.errors  # and by how much it was moved: 1 on the diagonal cancels
    moved[:, problem.order] += first.errors[:, problem.order] @ problem.feedback
    yield _Solution.of(problem, problem.fmt.encode(moved, clip="mse", seed=0, threads=threads), threads)


@dataclass(frozen=True)
class _Solution:
    """Parts and codes, what these leave of the weights, [N, K], and of each row's outputs, squared, [N]."""

    parts: dict[str, NDArray[Any]]
    codes: NDArray[np.uint8]
    errors: NDArray[np.float32]
    costs: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, parts: dict[str, NDArray[Any]], threads: int) -> _Solution:
        codes = feedback_codes(problem, parts, threads)
        errors = problem.errors(parts, codes, threads)
        placed = errors[:, problem.order]
        costs = np.einsum("nk,nk->n", placed @ problem.hessian, placed, dtype=np.float64)
        return cls(parts, codes, errors, costs)

    def merged(self, other: _Solution) -> _Solution:
        """Of each row the better one; of all rows the same where they share numbers."""
        rows = len(self.codes)
        shared = [name for name, array in self.parts.items() if len(array) != rows]
        better = other.costs < self.costs
        if any((self.parts[name] != other.parts[name]).any() for name in shared):
            better[:] = other.costs.sum() < self.costs.sum()
            shared = []

        def pick(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
            if len(mine) != rows:
                return theirs if better.all() else mine
            return np.where(better.reshape(-1, *[1] * (mine.ndim - 1)), theirs, mine)

        parts = {name: pick(array, other.parts[name]) for name, array in self.parts.items()}
        return _Solution(
            parts, pick(self.codes, other.codes), pick(self.errors, other.errors), pick(self.costs, other.costs)
        )


def feedback_codes(problem: Problem, parts: Parts, threads: int) -> NDArray[np.uint8]:
    """The codes for these scales, uint8 [N, K]."""
    return problem.fmt.choose(problem.weight, parts, problem.feedback, problem.order, threads=threads)[0]


def require_options(order: str, damping: float, clip: str, passes: int = 1) -> None:
    """Raise ValueError for what no solver by columns takes."""
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
    if not 0 <= damping <= 1:
        raise ValueError(f"damping is in [0, 1], not {damping}")
    if clip not in CLIPS:
        raise ValueError(f"clip is one of {', '.join(CLIPS)}, not {clip!r}")
    if passes < 1:
        raise ValueError(f"passes are 1 or more, not {passes}")
