"""8-bit symbols in Huffman codes, in a layout for many threads. Page: docs/formats/huffman.md.

data = huffman.encode(symbols)
assert (huffman.decode(data) == symbols).all()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from tersor import _core
from tersor.entropy import byte_symbols
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

Out = TypeVar("Out")

__all__ = ["decode", "encode"]


def encode(symbols: object, *, threads: int = 0) -> bytes:
    """Code symbols of 8 bits. Larger than tersor.entropy.encode makes them, for decoders without a multiplication.

    symbols: an array of one-byte elements (NumPy, torch on the CPU, DLPack, a buffer), any shape, taken in row-major
    order. threads: 0 for get_num_threads(); the bytes do not depend on it.
    Returns the stream, which holds its code: lengths of at most 12 bits, optimal for the symbols, to a thousandth.
    Raises TypeError (elements of more than a byte).
    Source: Huffman, 1952; Larmore and Hirschberg, 1990 (package-merge); Zhang et al., arXiv:2504.11651 (gaps).
    """
    found = byte_symbols.given(symbols)
    return _core.huffman_encode(found.address, found.nbytes, threads)


@overload
def decode(data: Buffer, out: None = None, *, threads: int = 0) -> NDArray[np.uint8]: ...
@overload
def decode(data: Buffer, out: Out, *, threads: int = 0) -> Out: ...
def decode(data: Buffer, out: Any = None, *, threads: int = 0) -> Any:
    """Give back the symbols that encode was given.

    data: what encode returned, in a buffer or any array. out: a writable array of one-byte elements, row-major, as many
    as there are symbols. threads: 0 for get_num_threads().
    Returns out, or [n] uint8. Raises FormatError (damaged), ValueError (out's size), TypeError (data or out is no
    array).
    """
    source = elements_of(data)
    count = _core.huffman_size(source.address, source.nbytes)
    result, target = byte_symbols.room(out, count)
    _core.huffman_decode(source.address, source.nbytes, target.address, target.nbytes, threads)
    return result
