"""Transforms of a matrix's columns that are recorded with it. Pages: docs/formats/hadamard.md.

What is stored is W' = W T; a reader may undo it, or give x the counterpart: x W^T = inputs(x) W'^T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ChannelScales", "Hadamard", "Permutation"]


def _float_rows(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """The same as row-major float32 [N, K]; a copy where it is not."""
    found = np.ascontiguousarray(matrix, np.float32)
    if found.ndim != 2:
        raise ValueError(f"a matrix [N, K] is needed, found {list(found.shape)}")
    return found


def _one_part(parts: Mapping[str, NDArray[Any]], name: str, dtypes: tuple[Any, ...], columns: int) -> NDArray[Any]:
    array = parts.get(name)
    if set(parts) != {name} or array is None or array.dtype not in dtypes or array.shape != (columns,):
        found = {part: f"{one.dtype} {list(one.shape)}" for part, one in parts.items()}
        needed = " or ".join(str(np.dtype(dtype)) for dtype in dtypes)
        raise _core.FormatError(f"parts are {found}, {name} {needed} [{columns}] is needed")
    return np.ascontiguousarray(array)


def _no_numbers(numbers: Mapping[str, Any]) -> None:
    if numbers:
        raise ValueError(f"there are no numbers, found {sorted(numbers)}")


@dataclass(frozen=True)
class Hadamard:
    """Rows rotated by an orthonormal Hadamard matrix, in blocks where K has none that we know, after random signs.

    seed: of the signs, 0..2**64 - 1; None: no signs. K = 2^a, or 2^a times 3, 5 or 7 with a >= 2, is one block; any
    other K is cut into blocks of the largest power of two that divides it.
    """

    kind: ClassVar[str] = "hadamard"

    seed: int | None = 0

    def __post_init__(self) -> None:
        known = self.seed is None or (type(self.seed) is int and 0 <= self.seed < 1 << 64)
        if not known:
            raise ValueError(f"a seed is None or in 0..2**64 - 1, not {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {}

    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate each row, [N, K] float32, as W and x are; returns a new matrix."""
        return self._rotated(matrix, False)

    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate each row back."""
        return self._rotated(matrix, True)

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """What x, [M, K], is to be multiplied as."""
        return self.apply(x)

    def _rotated(self, matrix: NDArray[np.float32], inverse: bool) -> NDArray[np.float32]:
        out = np.array(_float_rows(matrix), order="C")
        _core.hadamard(out.ctypes.data, out.shape[0], out.shape[1], self.seed, inverse, 0)
        return out

    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> Hadamard:
        if set(numbers) != {"seed"} or parts:
            raise ValueError(f"a seed and no parts are needed, found {sorted(numbers)} and {sorted(parts)}")
        return cls(numbers["seed"])


@dataclass(frozen=True, eq=False)
class ChannelScales:
    """Columns times a scale each: what is stored is W diag(scales), and x is divided by them.

    scales: [K], fp32 or fp16, finite and not 0. As SmoothQuant (Xiao et al., ICML 2023) and AWQ (Lin et al., MLSys
    2024) choose them.
    """

    kind: ClassVar[str] = "channel_scales"

    scales: NDArray[Any]

    def __post_init__(self) -> None:
        scales = np.ascontiguousarray(self.scales)
        object.__setattr__(self, "scales", scales)
        if scales.ndim != 1 or scales.dtype not in (np.float32, np.float16):
            raise ValueError(f"scales are float32 or float16 [K], not {scales.dtype} {list(scales.shape)}")
        bad = np.flatnonzero(~np.isfinite(scales) | (scales == 0))
        if bad.size:
            raise _core.FormatError(f"scales: number {bad[0]} is {scales[bad[0]]}, finite and not 0 is needed")

    def to_dict(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"scales": self.scales}

    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Multiply the columns of [N, K]; returns a new matrix."""
        return _float_rows(matrix) * self._row(matrix)

    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divide the columns."""
        return _float_rows(matrix) / self._row(matrix)

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """What x, [M, K], is to be multiplied as."""
        return self.undo(x)

    def _row(self, matrix: NDArray[Any]) -> NDArray[np.float32]:
        if matrix.shape[-1] != self.scales.size:
            raise ValueError(f"{self.scales.size} scales for {matrix.shape[-1]} columns")
        return self.scales.astype(np.float32)

    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> ChannelScales:
        _no_numbers(numbers)
        return cls(_one_part(parts, "scales", (np.float32, np.float16), shape[1]))


@dataclass(frozen=True, eq=False)
class Permutation:
    """Columns in another order: column k of what is stored is column order[k] of W, and x is put in the same order.

    order: [K] integers, each of 0..K - 1 once; kept as uint32.
    """

    kind: ClassVar[str] = "permutation"

    order: NDArray[Any]

    def __post_init__(self) -> None:
        order = np.asarray(self.order)
        if order.ndim != 1 or order.dtype.kind not in "iu" or not 0 < order.size < 1 << 32:
            raise ValueError(f"an order is integers [K], not {order.dtype} {list(order.shape)}")
        if order.dtype != np.uint32 and not 0 <= int(order.min()) <= int(order.max()) < order.size:
            raise ValueError(f"an order of {order.size} columns has {order.min()}..{order.max()}")
        order = np.ascontiguousarray(order, np.uint32)
        object.__setattr__(self, "order", order)
        _core.check_permutation(order.ctypes.data, order.size)

    def to_dict(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"order": self.order}

    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the columns of [N, K] in order; returns a new matrix."""
        return self._permuted(matrix, False)

    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put them back."""
        return self._permuted(matrix, True)

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """What x, [M, K], is to be multiplied as."""
        return self.apply(x)

    def _permuted(self, matrix: NDArray[np.float32], inverse: bool) -> NDArray[np.float32]:
        rows = _float_rows(matrix)
        if rows.shape[1] != self.order.size:
            raise ValueError(f"an order of {self.order.size} columns for {rows.shape[1]}")
        out = np.empty_like(rows)
        _core.permute_columns(
            rows.ctypes.data, rows.shape[0], self.order.ctypes.data, rows.shape[1], inverse, out.ctypes.data, 0
        )
        return out

    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> Permutation:
        _no_numbers(numbers)
        return cls(_one_part(parts, "order", (np.dtype(np.uint32),), shape[1]))
