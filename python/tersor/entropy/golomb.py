"""Integers in Golomb and Rice codes. Page: docs/formats/golomb.md.

data = golomb.encode(values)
assert (golomb.decode(data) == values).all()
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


def encode(values: object, parameter: int | None = None, *, signed: bool = False, threads: int = 0) -> bytes:
    """Code integers that are the likelier the smaller they are, each in a whole number of bits.

    values: an array of integers of 8 to 64 bits (NumPy, torch on the CPU, DLPack, a buffer), any shape, taken in
    row-major order; not below 0 unless signed, which folds 0, -1, 1, -2 ... to 0, 1, 2, 3 ... parameter: the divisor,
    1..2**56; a power of two is Rice's code. None takes for every 32768 values the one that costs 512 of them least.
    threads: 0 for get_num_threads(); the bytes do not depend on it.
    A quotient of 16 or more costs 17 bits and a few bytes, so that one huge value among small ones is cheap.
    Raises TypeError (no integers), ValueError (a negative value, which it names, with its place; parameter).
    Source: Golomb, 1966; Rice, 1979; Gallager and van Voorhis, 1975 (the best divisor).
    """
    found = elements_of(values)
    if parameter is not None and not 1 <= parameter <= 1 << 56:
        raise ValueError(f"parameter is {parameter}, 1..2**56 are allowed")
    return _core.golomb_encode(found.dtype, found.address, math.prod(found.shape), parameter or 0, signed, threads)


@overload
def decode(data: Buffer, out: None = None, *, threads: int = 0) -> NDArray[np.uint64] | NDArray[np.int64]: ...
@overload
def decode(data: Buffer, out: Out, *, threads: int = 0) -> Out: ...
def decode(data: Buffer, out: Any = None, *, threads: int = 0) -> Any:
    """Give back the values that encode was given.

    data: what encode returned, in a buffer or any array. out: a writable array of integers, row-major, as many as there
    are values. threads: 0 for get_num_threads().
    Returns out, or [n] uint64, int64 where the values are signed; n is at most 8 times the bytes.
    Raises FormatError (damaged), ValueError (out's size; a value that it cannot hold), TypeError (data or out is no
    array, out not of integers).
    """
    source = elements_of(data)
    count, signed = _core.golomb_told(source.address, source.nbytes)
    result = np.empty(count, np.int64 if signed else np.uint64) if out is None else out
    target = elements_of(result, writable=True)
    if math.prod(target.shape) != count:
        raise ValueError(f"out has shape {list(target.shape)}, {count} values are needed")
    _core.golomb_decode(source.address, source.nbytes, target.dtype, target.address, count, threads)
    return result
