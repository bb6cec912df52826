"""Integers of 1 to 16 bits, packed without gaps or header. Page: docs/formats/bitpack.md.

data = bitpack.encode(values, 3)
assert (bitpack.decode(data, 3, values.size) == values).all()
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from tersor import _core
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

Out = TypeVar("Out")

__all__ = ["decode", "encode"]


def encode(values: object, bits: int, *, threads: int = 0) -> bytes:
    """Put the lowest `bits` bits of each value behind those of the one before, low bits first.

    values: an array of integers in [0, 2**bits) (NumPy, torch on the CPU, DLPack, a buffer), any shape, taken in
    row-major order; uint8 and uint16 are taken as they are, others are copied. bits: 1..16, for uint8 1..8.
    threads: 0 for get_num_threads().
    Returns ceil(n * bits / 8) bytes and nothing else: the reader must know n and bits.
    Raises TypeError (no integers), ValueError (a value that does not fit, with its place; bits).
    """
    found = elements_of(values)
    if found.dtype not in ("U8", "U16"):
        found = elements_of(_narrow(values, found.dtype, bits))
    return _core.bitpack_encode(found.dtype, found.address, math.prod(found.shape), bits, threads)


def _narrow(values: Any, dtype: str, bits: int) -> NDArray[np.uint16]:
    if dtype[0] not in "IU":
        raise TypeError(f"integers are needed, found {dtype}")
    array = values if isinstance(values, np.ndarray) else np.from_dlpack(values)
    flat = array.ravel()
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < 1 << 16:
        place = int(np.argmax((flat < 0) | (flat >= 1 << 16)))
        raise ValueError(f"value {int(flat[place])} at place {place} does not fit {bits} bits")
    return flat.astype(np.uint16)


@overload
def decode(
    data: Buffer, bits: int, count: int, dtype: DTypeLike | None = None, out: None = None, *, threads: int = 0
) -> NDArray[Any]: ...
@overload
def decode(
    data: Buffer, bits: int, count: int | None = None, dtype: None = None, *, out: Out, threads: int = 0
) -> Out: ...
def decode(
    data: Buffer,
    bits: int,
    count: int | None = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    *,
    threads: int = 0,
) -> Any:
    """Give back the values that encode was given.

    data: ceil(count * bits / 8) bytes, in a buffer or any array. bits: 1..16. count: of the values; out's where it is
    None. dtype: uint8 or uint16; None takes the smaller one that holds the bits. out: a writable array of one of the
    two, row-major. threads: 0 for get_num_threads().
    Returns out, or [count]. Raises FormatError (data of another length), ValueError (bits, count; neither count nor
    out), TypeError (data or out is no array, or of another dtype).
    """
    source = elements_of(data)
    if out is None:
        if count is None or not 0 <= count <= 8 * source.nbytes:
            raise ValueError(f"count is {count}, 0..{8 * source.nbytes} are possible in {source.nbytes} bytes")
        result = np.empty(count, (np.uint8 if bits <= 8 else np.uint16) if dtype is None else dtype)
    else:
        result = out
    target = elements_of(result, writable=True)
    length = math.prod(target.shape)
    if count is not None and length != count:
        raise ValueError(f"out has shape {list(target.shape)}, {count} values are needed")
    if out is not None and dtype is not None and NUMPY_DTYPES[target.dtype] != dtype:
        raise TypeError(f"out is {target.dtype}, {np.dtype(dtype)} is asked for")
    _core.bitpack_decode(source.address, source.nbytes, bits, target.dtype, target.address, length, threads)
    return result
