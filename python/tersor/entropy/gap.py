"""The indexes of a sparse support in codes of their gaps. Page: docs/formats/golomb.md.

data = gap.encode(np.flatnonzero(mask), mask.size)
assert (gap.decode(data) == np.flatnonzero(mask)).all()
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from tersor import _core
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

Out = TypeVar("Out")

__all__ = ["decode", "encode"]


def encode(positions: object, size: int, *, threads: int = 0) -> bytes:
    """Code which of `size` places are taken, in nearly as few bits as a random support of that density has.

    positions: strictly increasing integers in [0, size), an array of 32 or 64 bits (NumPy, torch on the CPU, DLPack, a
    buffer), any shape, taken in row-major order. size: at most 2**63. threads: 0 for get_num_threads(); the bytes do
    not depend on it.
    Where more than half are taken the others are coded; never more bytes than a bitmap and 24.
    Raises TypeError (no such integers), ValueError (not increasing, out of range: names the first and its place).
    Source: Golomb, 1966; Gallager and van Voorhis, 1975.
    """
    found = elements_of(positions)
    if not 0 <= size <= 1 << 63:
        raise ValueError(f"size is {size}, 0..2**63 are allowed")
    return _core.gap_encode(found.dtype, found.address, math.prod(found.shape), size, threads)


@overload
def decode(data: Buffer, out: None = None, *, threads: int = 0) -> NDArray[np.int64]: ...
@overload
def decode(data: Buffer, out: Out, *, threads: int = 0) -> Out: ...
def decode(data: Buffer, out: Any = None, *, threads: int = 0) -> Any:
    """Give back the positions that encode was given.

    data: what encode returned, in a buffer or any array. out: a writable array of 32- or 64-bit integers, row-major, as
    many as there are positions. threads: 0 for get_num_threads().
    Returns out, or [n] int64; n is at most 2**16 times the bytes.
    Raises FormatError (damaged), ValueError (out's size; size - 1 does not fit it), TypeError (data or out is no array,
    out not of such integers).
    """
    source = elements_of(data)
    _, count = _core.gap_told(source.address, source.nbytes)
    result = np.empty(count, np.int64) if out is None else out
    target = elements_of(result, writable=True)
    if math.prod(target.shape) != count:
        raise ValueError(f"out has shape {list(target.shape)}, {count} positions are needed")
    _core.gap_decode(source.address, source.nbytes, target.dtype, target.address, count, threads)
    return result
