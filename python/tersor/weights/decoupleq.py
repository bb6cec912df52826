"""Codes and scales in turn: codes by coordinate descent, then the scales that are best for them, a row's at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.weights.coordinate_descent import improved
from tersor.weights.gptq import chosen, require_options
from tersor.weights.solver import Problem, grid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts
    from tersor.formats.grid_format import GridFormat
    from tersor.formats.quantized import QuantizedTensor

_SYSTEMS = 1 << 26  # bytes of the rows' systems of equations at once
_PASSES = 5  # of descent after scales have moved
_RIDGE = 1e-3  # that the diagonals of these systems grow by: without it few tokens carry scales anywhere
_NOTHING = 1e-7  # of a diagonal's mean: what float32 has left of sums that should be 0


@dataclass(frozen=True, kw_only=True)
class DecoupleQ:
    """Coordinate descent in turn with the best scales for its codes. Guo et al., decoupleQ, arXiv:2404.12759.

    Begins with what CoordinateDescent with the same options finds, and raises the error of no row's outputs (but by
    what float32 rounds away). Scales move where a format stores them as fp16, bf16 or fp32, for a row or a group of
    columns; elsewhere (powers of two, super-scales, one scale for all) this is CoordinateDescent. rounds: at most;
    fewer where no scale moves any more. passes, order, damping, clip: those of CoordinateDescent.
    """

    rounds: int = 4
    passes: int = 20
    order: str = "activations"
    damping: float = 0.01
    clip: str = "search"

    def __post_init__(self) -> None:
        require_options(self.order, self.damping, self.clip, self.passes)
        if self.rounds < 1:
            raise ValueError(f"rounds are 1 or more, not {self.rounds}")

    def accepted(self, fmt: Format | str) -> GridFormat:
        """Solver.accepted: a format with a code a weight."""
        return grid_of(fmt)

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve."""
        problem = Problem.of(weight, fmt, statistics, order=self.order, damping=self.damping)
        parts, codes = chosen(problem, self.clip, threads)
        codes = improved(problem, parts, codes, self.passes, threads)
        for _ in range(self.rounds):
            parts, moved = fitted_numbers(problem, parts, codes, threads)
            if not moved:
                break
            codes = improved(problem, parts, codes, _PASSES, threads)
        return problem.stored(parts, codes, threads)


def fitted_numbers(
    problem: Problem, parts: Parts, codes: NDArray[np.uint8], threads: int
) -> tuple[dict[str, NDArray[Any]], int]:
    """The parts with the scales and minimums of least error for these codes, and of how many rows they are others.

    With w = s d + e, d the levels of the codes and e a row's errors, the best change of all numbers s of a row at once
    solves (d H d^T) change = d H e^T. The diagonal is a thousandth larger, which leaves a change smaller but no less a
    descent, and to further rounds what is missing. It is rounded to the dtype in which numbers are stored and taken
    where the error has fallen in spite of that.
    """
    names = [name for name in ("scales", "minimums") if name in parts]
    rows, columns = problem.weight.shape
    moves = all(parts[name].dtype.name in ("float16", "bfloat16", "float32") for name in names)
    if not names or not moves or "super_scales" in parts or (parts["scales"].shape[0] != rows):
        return dict(parts), 0
    found = {name: array.copy() if name in names else array for name, array in parts.items()}
    groups = found["scales"].shape[1]
    group = columns if groups == 1 else int(problem.fmt.to_dict()["group"])
    starts = np.arange(0, columns, group)
    errors = problem.errors(parts, codes, threads)
    packed = problem.fmt.packed({**parts, **_units(parts), "codes": codes}, (rows, columns), threads=threads)
    levels = problem.decoded(packed, threads)
    places = np.argsort(problem.order)
    hessian = problem.hessian[np.ix_(places, places)]  # columns of a group beside each other
    moved = 0
    for rows_here in _slices(rows, 8 * (len(names) * groups) ** 2):
        here = [levels[rows_here], np.ones((1, columns), np.float32)][: len(names)]
        pull = errors[rows_here] @ hessian
        gradient = np.concatenate([_sums(one * pull, starts) for one in here], axis=1)
        system = _system(here, hessian, starts, len(gradient))
        before = np.concatenate([found[name][rows_here] for name in names], axis=1)
        with np.errstate(over="ignore"):
            after = (before + _solved(system, gradient)).astype(before.dtype)
        change = after.astype(np.float64) - before.astype(np.float64)
        with np.errstate(invalid="ignore"):
            risen = np.einsum("ni,nij,nj->n", change, system, change) - 2 * np.einsum("ni,ni->n", change, gradient)
        better = risen < 0  # false for what is not finite
        after[~better] = before[~better]
        moved += int(better.sum())
        for i, name in enumerate(names):
            found[name][rows_here] = after[:, i * groups : (i + 1) * groups]
    return found, moved


def _units(parts: Parts) -> dict[str, NDArray[Any]]:
    """Scales of 1 and minimums of 0, with which a code is worth its level."""
    units = {"scales": np.ones_like(parts["scales"])}
    if "minimums" in parts:
        units["minimums"] = np.zeros_like(parts["minimums"])
    return units


def _slices(rows: int, row_bytes: int) -> Iterator[slice]:
    step = max(1, _SYSTEMS // row_bytes)
    return (slice(first, min(rows, first + step)) for first in range(0, rows, step))


def _sums(numbers: NDArray[Any], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.add.reduceat(numbers, starts, axis=1, dtype=np.float64)
    return found


def _system(
    design: list[NDArray[np.float32]], hessian: NDArray[np.float32], starts: NDArray[np.intp], rows: int
) -> NDArray[np.float64]:
    """d H d^T of each row, [rows, n, n]; the numbers are those of the first of `design` by group, then of the next."""
    groups = len(starts)
    system = np.empty((rows, len(design) * groups, len(design) * groups))
    ends = [*starts[1:], len(hessian)]
    for i, one in enumerate(design):
        for g, (first, end) in enumerate(zip(starts, ends, strict=True)):
            pull = one[:, first:end] @ hessian[first:end]
            for j, other in enumerate(design):
                system[:, i * groups + g, j * groups : (j + 1) * groups] = _sums(pull * other, starts)
    return system


def _solved(system: NDArray[np.float64], gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """The change of each row; numbers that decide nothing stay."""
    diagonal: NDArray[np.float64] = np.einsum("nii->ni", system)
    least = _NOTHING * diagonal.mean(1, keepdims=True)
    held = system.copy()
    np.einsum("nii->ni", held)[:] += np.where(diagonal > least, _RIDGE * diagonal, 1.0)
    solved = np.linalg.solve(held, gradient[:, :, None])[:, :, 0].astype(np.float64, copy=False)
    solved[diagonal <= least] = 0
    return solved
