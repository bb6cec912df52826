"""Scales of least weighted error, with nothing but how much each column matters: as importance matrices have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats.format import parse
from tersor.formats.int_group import IntGroup
from tersor.formats.quantized import matrix_of
from tersor.lossless import NUMPY_DTYPES
from tersor.weights.solver import MissingStatisticsError, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format
    from tersor.formats.quantized import QuantizedTensor

    Floats = NDArray[np.float32]

_BLOCK = 1 << 20  # weights that are searched at once
_SUPER = {"super6": 63, "super7": 127, "super8": 255}


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """Rounding to nearest under the scale, and minimum, that fit a group best when columns weigh as they matter.

    A column weighs as much as its mean square among inputs, the Hessian's diagonal, which llama.cpp calls an importance
    matrix. Symmetric: the scale that the search of smaller ranges finds (`encode(..., importance=)`), then the best one
    for its codes, by weighted regression. With minimums: codes under `candidates` ranges a group, the regression of
    each, and the best of all. The core's search only draws both ends of a range together, which leaves a quarter more
    weighted error in q4_1 and q4_k where columns differ as inputs do; hence a search of its own for these.
    """

    candidates: int = 19

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates are 1 or more, not {self.candidates}")

    def accepted(self, fmt: Format | str) -> IntGroup:
        """Solver.accepted: int_group of two bits or more, symmetric or with minimums, in groups of some columns."""
        grid = parse(fmt)
        if (
            not isinstance(grid, IntGroup) or grid.mode == "zero" or grid.bits in (1, "ternary")
            or isinstance(grid.group, str) or (grid.scale in _SUPER and grid.mode == "symmetric")
        ):  # fmt: skip
            raise TypeError(f"{grid} has no groups with a scale and perhaps a minimum")
        return grid

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve. Raises TypeError (another format)."""
        if statistics is None or statistics.tokens == 0:
            raise MissingStatisticsError("the statistics of a layer's inputs are needed, with one token or more")
        return self.fit(weight, fmt, np.diag(statistics.hessian), threads=threads)

    def fit(self, weight: object, fmt: Format | str, importance: object, *, threads: int = 0) -> QuantizedTensor:
        """weight: [N, K]. importance: [K], finite, not negative. Raises ValueError, TypeError (another format)."""
        chosen, matrix = self.accepted(fmt), matrix_of(weight)
        columns = np.asarray(importance, np.float32)
        start = chosen.encode(matrix, clip="mse", seed=0, threads=threads, importance=columns)
        codes = chosen.symbols(start, (matrix.shape[0], matrix.shape[1]), threads=threads)["codes"]
        # Columns without any weight would have arbitrary codes: they count a little.
        columns = np.maximum(columns, np.float32(1e-6) * (columns.mean() or np.float32(1)))
        step = max(1, _BLOCK // matrix.shape[1])
        slices = [slice(first, first + step) for first in range(0, len(matrix), step)]
        pieces = [self._rows(matrix[s], chosen, columns, codes[s], start["scales"][s]) for s in slices]
        parts = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        if not all(np.isfinite(array.astype(np.float32)).all() for array in parts.values()):
            raise ValueError("a scale or a minimum is beyond what its dtype holds: bf16 and fp32 hold more than fp16")
        return stored(chosen, matrix, parts, parts["codes"], threads)

    def _rows(
        self, rows: NDArray[Any], fmt: IntGroup, importance: Floats, codes: NDArray[np.uint8], scales: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Parts of some rows, codes a byte each; codes, scales: what to begin from where there are no minimums."""
        assert isinstance(fmt.group, int)
        assert isinstance(fmt.bits, int)
        count, columns = rows.shape
        pad = -columns % fmt.group
        x = np.pad(rows.astype(np.float32), ((0, 0), (0, pad)), mode="edge").reshape(count, -1, fmt.group)
        w = np.pad(importance, (0, pad)).reshape(1, -1, fmt.group)
        top = 2**fmt.bits - 1
        if fmt.mode == "symmetric":
            half = np.float32(2 ** (fmt.bits - 1))
            levels = np.pad(codes, ((0, 0), (0, pad))).reshape(x.shape) - half
            both, squares = (w * x * levels).sum(axis=-1), (w * levels * levels).sum(axis=-1)
            fits = squares > 0
            fitted = np.where(fits, both / np.where(fits, squares, 1), scales.astype(np.float32)).astype(scales.dtype)
            parts: dict[str, NDArray[Any]] = {"scales": fitted}
            codes = _codes(x, fitted.astype(np.float32), -half, top)
        else:
            scale, least = self._minimum(x, w, top, of_one_sign=fmt.scale in _SUPER)
            parts, scale, least = _stored(scale, least, fmt)
            codes = _codes(x - least[..., None], scale, np.float32(0), top)
        return {**parts, "codes": np.ascontiguousarray(codes.reshape(count, -1)[:, :columns])}

    def _minimum(self, x: Floats, w: Floats, top: int, *, of_one_sign: bool) -> tuple[Floats, Floats]:
        """Scales and minimums [N, G] for levels 0 .. top."""
        low, high = x.min(axis=-1), x.max(axis=-1)
        if of_one_sign:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        span = np.where(high == low, np.float32(1), high - low)
        best = np.full(low.shape, np.inf, np.float32)
        scales, leasts = span / top, low
        total, first = np.broadcast_to(w.sum(axis=-1), low.shape), (w * x).sum(axis=-1)
        for shift in _around(self.candidates, 0.1 * top):
            q = np.clip(np.rint((x - low[..., None]) * ((top + shift) / span)[..., None]), 0, top)
            one, two, cross = (w * q).sum(axis=-1), (w * q * q).sum(axis=-1), (w * q * x).sum(axis=-1)
            determinant = total * two - one * one
            fits = determinant > 1e-9 * total * two
            scale = np.where(fits, (total * cross - one * first) / np.where(fits, determinant, 1), span / top)
            least = np.where(fits, (two * first - one * cross) / np.where(fits, determinant, 1), low)
            if of_one_sign:  # a minimum above 0 cannot be stored beside those below
                above = least > 0
                scale = np.where(above, cross / np.where(two == 0, np.float32(1), two), scale)
                least = np.minimum(least, 0)
            error = (w * np.square(scale[..., None] * q + least[..., None] - x)).sum(axis=-1)
            better = (error < best) & (scale >= 0)
            best = np.where(better, error, best)
            scales, leasts = np.where(better, scale, scales), np.where(better, least, leasts)
        return scales.astype(np.float32), leasts.astype(np.float32)


def _around(count: int, reach: float) -> list[np.float32]:
    """count numbers from -reach to reach, the middle one first."""
    return sorted((np.float32(shift) for shift in np.linspace(-reach, reach, count)), key=abs)


def _codes(x: Floats, scale: Floats, zero: np.float32, top: int) -> NDArray[np.uint8]:
    safe = np.where(scale == 0, np.float32(1), scale)[..., None]
    levels = np.where(scale[..., None] == 0, np.float32(0), np.rint(x / safe))
    return np.clip(levels - zero, 0, top).astype(np.uint8)


def _stored(scale: Floats, least: Floats, fmt: IntGroup) -> tuple[dict[str, NDArray[Any]], Floats, Floats]:
    """Parts, and the scales and minimums that they stand for."""
    if fmt.scale not in _SUPER:
        dtype = NUMPY_DTYPES[fmt.parts(1, 1)["scales"].dtype]
        with np.errstate(over="ignore"):  # who called looks
            parts = {"scales": scale.astype(dtype), "minimums": least.astype(dtype)}
        return parts, parts["scales"].astype(np.float32), parts["minimums"].astype(np.float32)
    assert isinstance(fmt.group, int)
    span, most = 256 // fmt.group, _SUPER[fmt.scale]
    parts, found = {}, []
    for name, numbers in ("scales", scale), ("minimums", least):
        rows, groups = numbers.shape
        apart = np.pad(numbers, ((0, 0), (0, -groups % span))).reshape(rows, -1, span)
        largest = np.take_along_axis(apart, np.abs(apart).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        with np.errstate(over="ignore"):
            supers = (largest / most).astype(np.float16)
        wide = supers.astype(np.float32)[..., None]
        small = np.clip(np.rint(apart / np.where(wide == 0, np.float32(1), wide)), 0, most).astype(np.uint8)
        parts[name] = np.ascontiguousarray(small.reshape(rows, -1)[:, :groups])
        parts[f"super_{name}"] = supers
        found.append((wide * small).reshape(rows, -1)[:, :groups])
    return parts, found[0], found[1]
