"""Subsets of k among n as numbers below C(n, k), in up to 128 bits.

index = combination.encode(np.array([1, 5, 6]), 8)
assert combination.decode(index, 8, 3).tolist() == [1, 5, 6]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["count", "decode", "encode"]

_WORD = 64


def count(n: int, k: int) -> int:
    """Tell in how many ways k of n can be chosen; below 2**128.

    n, k: 0..2**63. Returns 0 where k > n. Raises ValueError (out of range; 2**128 or more, and says how many bits).
    """
    low, high = _core.combination_count(*_checked(n, k))
    return low | high << _WORD


def encode(positions: ArrayLike, n: int, *, threads: int = 0) -> Any:
    """Number the subsets p_0 < p_1 < ... of 0..n-1 by C(p_0, 1) + C(p_1, 2) + ...: exact, from 0 to count(n, k) - 1.

    positions: [k] or [rows, k] integers, each row strictly increasing. n: 0..2**63. threads: 0 for get_num_threads().
    Returns an int for [k]; for [rows, k] the numbers as [rows] uint64 where count(n, k) <= 2**64, else [rows, 2]
    uint64, the low word first.
    Raises TypeError (no integers), ValueError (not increasing or out of range, the first with its place; count(n, k) of
    2**128 or more).
    Source: Beckenbach, 1964 (the combinatorial number system); Cover, 1973 (enumerative coding).
    """
    rows = np.asarray(positions)
    if rows.dtype.kind not in "iu" and rows.size:
        raise TypeError(f"positions are integers, not {rows.dtype}")
    if rows.ndim not in (1, 2):
        raise ValueError(f"positions have shape [k] or [rows, k], not {list(rows.shape)}")
    if rows.dtype == np.uint64 and rows.size and int(rows.max()) >> 63:
        raise ValueError(f"position {int(rows.max())} is not below {n}")
    plain = np.ascontiguousarray(rows, np.int64)
    k = plain.shape[-1]
    _checked(n, k)
    words = _core.combination_words(n, k)
    height = 1 if plain.ndim == 1 else plain.shape[0]
    indexes = np.empty((height, words), np.uint64)
    _core.combination_encode(plain.ctypes.data, height, n, k, indexes.ctypes.data, threads)
    if plain.ndim == 1:
        return sum(int(word) << _WORD * place for place, word in enumerate(indexes[0]))
    return indexes if words > 1 else indexes[:, 0]


@overload
def decode(index: int, n: int, k: int, *, threads: int = 0) -> NDArray[np.int64]: ...
@overload
def decode(index: ArrayLike, n: int, k: int, *, threads: int = 0) -> NDArray[np.int64]: ...
def decode(index: Any, n: int, k: int, *, threads: int = 0) -> NDArray[np.int64]:
    """Give back the positions that encode was given.

    index: an int, or as encode returns it for rows: [rows] or, where count(n, k) > 2**64, [rows, 2] uint64.
    n, k: as they were. threads: 0 for get_num_threads().
    Returns [k] int64 for an int, else [rows, k]. Raises TypeError (no integers), ValueError (an index that is not below
    count(n, k), with its row; shapes; count(n, k) of 2**128 or more).
    """
    _checked(n, k)
    words = _core.combination_words(n, k)
    if isinstance(index, (int, np.integer)):
        number = int(index)
        if not 0 <= number < 1 << _WORD * words:
            raise ValueError(f"index {number} is not in 0..C({n}, {k}) - 1 = {count(n, k) - 1}")
        rows = np.array([[number >> _WORD * place & (1 << _WORD) - 1 for place in range(words)]], np.uint64)
    else:
        rows = np.asarray(index)
        if rows.dtype.kind not in "iu":
            raise TypeError(f"indexes are integers, not {rows.dtype}")
        if rows.dtype.kind == "i" and rows.size and int(rows.min()) < 0:
            raise ValueError(f"indexes are not negative, found {int(rows.min())}")
        if rows.ndim != words or (words > 1 and rows.shape[1] != words):
            shape = "[rows, 2]" if words > 1 else "[rows]"
            raise ValueError(f"indexes have shape {shape} for C({n}, {k}), not {list(rows.shape)}")
        rows = np.ascontiguousarray(rows, np.uint64).reshape(-1, words)
    if rows.shape[0] * k >= 1 << 48:
        raise ValueError(f"{rows.shape[0]} subsets of {k} positions are more than memory holds")
    positions = np.empty((rows.shape[0], k), np.int64)
    _core.combination_decode(rows.ctypes.data, rows.shape[0], n, k, positions.ctypes.data, threads)
    return positions[0] if isinstance(index, (int, np.integer)) else positions


def _checked(n: int, k: int) -> tuple[int, int]:
    if not (0 <= n <= 1 << 63 and 0 <= k <= 1 << 63):
        raise ValueError(f"n is {n} and k is {k}, 0..2**63 are allowed")
    return n, k
