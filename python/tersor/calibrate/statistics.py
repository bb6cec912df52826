"""Second moments of what goes into a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tersor.formats.quantized import DTYPES, array_of
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = ["Statistics"]

_ROWS = 4096  # of x in float32 at once
_BLOCK = 1024  # rows of the sum


class Transform(Protocol):
    """What inputs go through where a matrix is stored transformed: formats.Hadamard, ChannelScales, Permutation."""

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]: ...


class Statistics:
    """The mean of x x^T over tokens x: half the Hessian of a layer's squared error, up to the number of tokens.

    columns: K, of x. `hessian` is [K, K] float32, symmetric, zeros before the first token; `tokens` counts them.
    """

    def __init__(self, columns: int) -> None:
        if columns < 1:
            raise ValueError(f"columns are 1 or more, not {columns}")
        self.tokens = 0
        self._sum = np.zeros((columns, columns), np.float32)

    @classmethod
    def of(cls, hessian: NDArray[Any], tokens: int) -> Self:
        """The statistics of so many tokens, of which `hessian`, [K, K], is known.

        Raises ValueError (shape; tokens; a matrix that is not symmetric, within a thousandth of its largest number).
        """
        if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
            raise ValueError(f"a hessian is [K, K], not {list(hessian.shape)}")
        if tokens < 0:
            raise ValueError(f"tokens are 0 or more, not {tokens}")
        with np.errstate(invalid="ignore"):  # numbers that are not finite are a solver's to refuse
            apart = max(
                float(np.abs(hessian[first : first + _BLOCK] - hessian[:, first : first + _BLOCK].T).max())
                for first in range(0, max(1, len(hessian)), _BLOCK)
            )
        if apart > 1e-3 * max(float(hessian.max()), -float(hessian.min())):
            raise ValueError(f"a hessian is symmetric, this one and its transpose are {apart} apart")
        made = cls(len(hessian))
        made.tokens = tokens
        made._sum = hessian.astype(np.float32) * np.float32(max(1, tokens))
        return made

    def transformed(self, transform: Transform) -> Self:
        """The statistics of transform.inputs(x) instead of x. H becomes M^T H M where inputs(x) is x M."""
        once = transform.inputs(self.hessian)
        twice = transform.inputs(np.ascontiguousarray(once.T))
        found = (twice + twice.T) / 2  # rounding leaves it a little unsymmetric
        squares = np.einsum("ii->i", found)
        np.maximum(squares, 0, out=squares)  # and what should be 0 a little below
        return type(self).of(found, self.tokens)

    @property
    def columns(self) -> int:
        """K."""
        return len(self._sum)

    @property
    def hessian(self) -> NDArray[np.float32]:
        """A fresh array [K, K]."""
        return self._sum / np.float32(max(1, self.tokens))

    def update(self, x: object) -> None:
        """Add tokens: [..., K] of float32, float16 or bfloat16 (NumPy, torch on the CPU, DLPack).

        Raises TypeError (dtype), ValueError (K; a number that is not finite: nothing is added then).
        """
        found = elements_of(x)
        if found.dtype not in DTYPES:
            raise TypeError(f"x is {', '.join(DTYPES)}, not {found.dtype}")
        if not found.shape or found.shape[-1] != self.columns:
            raise ValueError(f"x is {list(found.shape)}, [..., {self.columns}] is needed")
        rows = array_of(found).reshape(-1, self.columns)

        def pieces() -> Iterator[NDArray[np.float32]]:
            for first in range(0, len(rows), _ROWS):
                yield rows[first : first + _ROWS].astype(np.float32, copy=False)

        for i, piece in enumerate(pieces()):
            if not np.isfinite(piece).all():
                row, column = np.argwhere(~np.isfinite(piece))[0]
                raise ValueError(f"token {i * _ROWS + row} has {piece[row, column]} in column {column}")
        with np.errstate(over="ignore"):  # infinite moments are a solver's to refuse
            for piece in pieces():
                for first in range(0, self.columns, _BLOCK):  # a whole product would be a second matrix [K, K]
                    self._sum[first : first + _BLOCK] += piece[:, first : first + _BLOCK].T @ piece
        self.tokens += len(rows)
