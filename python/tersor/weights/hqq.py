"""Scales, zeros and minimums without data: half-quadratic splitting on a norm that forgives outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tersor.formats.format import parse
from tersor.formats.int_group import IntGroup
from tersor.formats.quantized import matrix_of
from tersor.weights.solver import stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts
    from tersor.formats.quantized import QuantizedTensor

_NUMBERS = ("scales", "zeros", "minimums")
_BLOCK = 1 << 18  # weights that are solved at once
_STEEPNESS, _GROWTH = 5.0, 1.05  # of the proximal step: beta, and by what it grows a round


@dataclass(frozen=True, kw_only=True)
class HQQ:
    """Half-quadratic quantization, which needs no data. Badri and Shaji, HQQ, 2023 (mobiusml.github.io/hqq_blog).

    Takes turns between errors that a proximal step for the norm shrinks, and the scales, zeros or minimums that are
    best for the weights less these errors; of all rounds each group keeps the numbers of the least norm. Errors are
    measured in steps of the grid, so that the size of weights decides nothing, and scales move beside the zeros. For
    int_group whose scales are floats. norm: p of the lp norm, in (0, 1]. rounds: 1 or more.
    """

    norm: float = 0.7
    rounds: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.norm <= 1:
            raise ValueError(f"the norm is in (0, 1], not {self.norm}")
        if self.rounds < 1:
            raise ValueError(f"rounds are 1 or more, not {self.rounds}")

    def accepted(self, fmt: Format | str) -> IntGroup:
        """Solver.accepted: integers whose scales stand for themselves."""
        grid = parse(fmt)
        if not isinstance(grid, IntGroup) or grid.scale.startswith("super"):
            raise TypeError(f"integers with scales of their own are needed, not {grid}")
        return grid

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve; statistics are not read. Raises TypeError (another format)."""
        grid, matrix = self.accepted(fmt), matrix_of(weight)
        parts = grid.encode(matrix, clip="none", seed=0, threads=threads)
        rows = matrix.reshape(1, -1) if parts["scales"].size == 1 else matrix  # one scale: one group
        size = rows.shape[1] if isinstance(grid.group, str) else grid.group
        full = rows.shape[1] // size * size
        codes = np.empty(rows.shape, np.uint8)
        step = max(1, _BLOCK // rows.shape[1])
        for first in range(0, len(rows), step):
            some = slice(first, first + step)
            for begin, end in ((0, full), (full, rows.shape[1])):  # a row's last group may be shorter
                if begin == end:
                    continue
                block = rows[some, begin:end].astype(np.float32)
                block = block.reshape(len(block), -1, min(size, end - begin))
                groups = slice(begin // size, begin // size + block.shape[1])
                numbers = {name: parts[name][some, groups] for name in _NUMBERS if name in parts}
                found = self._solved(block, _Numbers.read(numbers), grid, parts["scales"].dtype)
                codes[some, begin:end] = found.codes(block, grid).reshape(len(block), -1)
                found.write(numbers)
        return stored(grid, matrix, parts, codes.reshape(matrix.shape), threads)

    def _solved(self, weight: NDArray[np.float32], numbers: _Numbers, grid: IntGroup, dtype: np.dtype[Any]) -> _Numbers:
        """The best numbers for weight [rows, groups, columns]."""
        best, least, steepness = numbers, np.inf, _STEEPNESS
        for _ in range(self.rounds + 1):
            levels = numbers.levels(weight, grid)
            errors = weight - (numbers.scale * levels + numbers.minimum)
            norms = (np.abs(errors) ** np.float32(self.norm)).sum(2, keepdims=True, dtype=np.float64)
            best = best.where(norms < least, numbers)
            least = np.minimum(norms, least)
            step = np.where(numbers.scale == 0, 1, np.abs(numbers.scale))
            size = np.abs(errors) / step
            with np.errstate(divide="ignore"):  # an error of 0 shrinks to 0
                shrunk = np.maximum(size - size ** np.float32(self.norm - 1) / np.float32(steepness), 0)
            numbers = numbers.fitted(weight - np.copysign(shrunk * step, errors), levels, grid, dtype)
            steepness *= _GROWTH
        return best


class _Numbers(NamedTuple):
    """Of groups, each [rows, groups, 1] float32: a weight is scale * level + minimum, a code a level from -zero up."""

    scale: NDArray[np.float32]
    zero: NDArray[np.float32]
    minimum: NDArray[np.float32]

    @classmethod
    def read(cls, parts: Parts) -> _Numbers:
        none = np.zeros_like(parts["scales"])
        return cls(*(parts.get(name, none).astype(np.float32)[:, :, None] for name in _NUMBERS))

    def write(self, parts: dict[str, NDArray[Any]]) -> None:
        for name, numbers in zip(_NUMBERS, self, strict=True):
            if name in parts:
                parts[name][:] = numbers[:, :, 0]

    def where(self, better: NDArray[np.bool_], other: _Numbers) -> _Numbers:
        return _Numbers(*(np.where(better, b, a) for a, b in zip(self, other, strict=True)))

    def levels(self, weight: NDArray[np.float32], grid: IntGroup) -> NDArray[np.float32]:
        """The nearest ones, as the format's page has it."""
        steps = (weight - self.minimum) / np.where(self.scale == 0, 1, self.scale)
        if grid.bits == 1 and grid.mode == "symmetric":
            return np.where(steps >= 0, np.float32(1), np.float32(-1))
        low, high = _range(grid)
        return np.where(self.scale == 0, np.float32(0), np.rint(np.clip(steps, low - self.zero, high - self.zero)))

    def codes(self, weight: NDArray[np.float32], grid: IntGroup) -> NDArray[np.uint8]:
        levels, (low, _) = self.levels(weight, grid), _range(grid)
        if grid.bits == 1 and grid.mode == "symmetric":
            return (levels > 0).astype(np.uint8)
        return (levels + self.zero - np.float32(low)).astype(np.uint8)

    def fitted(
        self, target: NDArray[np.float32], levels: NDArray[np.float32], grid: IntGroup, dtype: np.dtype[Any]
    ) -> _Numbers:
        """Those of least squared distance to `target` with these levels, rounded to what is stored."""
        scale, zero, minimum = self

        def stored_as(numbers: NDArray[Any], before: NDArray[np.float32]) -> NDArray[np.float32]:
            with np.errstate(over="ignore"):
                rounded = numbers.astype(dtype).astype(np.float32)
            return np.where(np.isfinite(rounded), rounded, before)

        with np.errstate(divide="ignore", invalid="ignore"):  # levels that are all the same: the scale stays
            if grid.mode == "minimum":
                off = levels - levels.mean(2, keepdims=True)
                scale = stored_as((off * target).sum(2, keepdims=True) / np.square(off).sum(2, keepdims=True), scale)
                minimum = stored_as((target - scale * levels).mean(2, keepdims=True), minimum)
            else:
                if grid.mode == "zero":
                    places = levels + zero
                    wanted = np.rint((places - target / scale).mean(2, keepdims=True))
                    zero = np.where(np.isfinite(wanted), np.clip(wanted, *_range(grid)), zero)
                    levels = places - zero
                scale = stored_as(
                    (levels * target).sum(2, keepdims=True) / np.square(levels).sum(2, keepdims=True), scale
                )
        return _Numbers(scale, zero, minimum)


def _range(grid: IntGroup) -> tuple[float, float]:
    """The lowest level, whose code is 0 where zero is 0, and the highest."""
    if grid.bits == "ternary":
        return -1.0, 1.0
    count = 2 ** int(grid.bits)
    return (-count / 2, count / 2 - 1) if grid.mode == "symmetric" else (0.0, count - 1.0)
