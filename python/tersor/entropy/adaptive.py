"""Nibbles and bytes under models that follow the data. Page: docs/formats/adaptive.md.

data = adaptive.encode(symbols, bits=4)
assert (adaptive.decode(data) == symbols).all()
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


def encode(symbols: object, *, bits: int = 8, order: int = 0, rate: int = 7) -> bytes:
    """Code symbols of 4 or 8 bits under a model that learns them while it codes, so that no table travels.

    symbols: an array of one-byte elements (NumPy, torch on the CPU, DLPack, a buffer), any shape, taken in row-major
    order; below 16 with bits=4, one a byte. order: 1 for probabilities in the context of the symbol before. rate: 4..9,
    a symbol moves its probabilities by 2^-rate of what they are off, by more in the beginning. 4 or 5 follow what
    changes; 7 costs up to 0.05 bits a nibble over the entropy of what stays the same, 9 up to 0.02.
    Returns the stream. One thread: a symbol's model is what those before it have left.
    Raises TypeError (elements of more than a byte), ValueError (bits, order, rate; a symbol above 15 with bits=4).
    Source: Moffat, Neal and Witten, 1998 (adaptive models); Duda, arXiv:1311.2540 (rANS); Giesen, arXiv:1402.3392
    (interleaving).
    """
    found = byte_symbols.given(symbols)
    return _core.adaptive_encode(found.address, found.nbytes, bits, order, rate)


@overload
def decode(data: Buffer, out: None = None) -> NDArray[np.uint8]: ...
@overload
def decode(data: Buffer, out: Out) -> Out: ...
def decode(data: Buffer, out: Any = None) -> Any:
    """Give back the symbols that encode was given.

    data: what encode returned, in a buffer or any array. out: a writable array of one-byte elements, row-major, as many
    as there are symbols.
    Returns out, or [n] uint8. Raises FormatError (damaged), ValueError (out's size), TypeError (data or out is no
    array).
    """
    source = elements_of(data)
    count = _core.adaptive_size(source.address, source.nbytes)
    result, target = byte_symbols.room(out, count)
    _core.adaptive_decode(source.address, source.nbytes, target.address, target.nbytes)
    return result
