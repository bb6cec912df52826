"""8-bit symbols through interleaved rANS. Page: docs/formats/rans8.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from tersor import _core
from tersor.entropy import byte_symbols
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from tersor.entropy.table import Table

Out = TypeVar("Out")


def encode(
    symbols: object,
    table: Table | None = None,
    *,
    mode: Literal["alias", "contiguous"] = "alias",
    threads: int = 0,
) -> bytes:
    """Code symbols of 8 bits.

    symbols: an array of one-byte elements (NumPy, torch on the CPU, DLPack, a buffer), any shape, taken in row-major
    order. table: of up to 256 symbols; None makes one from the symbols, which travels in the stream. mode: "alias"
    decodes fastest; "contiguous" encodes fastest, with a table from a sample and an escape for rare symbols.
    threads: 0 for get_num_threads(); the bytes do not depend on it.
    Raises TypeError (elements of more than a byte), ValueError (a symbol that the table does not know, mode).
    Source: Duda, arXiv:1311.2540 (rANS); Giesen, arXiv:1402.3392 (interleaving); Vose, 1991 (alias method).
    """
    found = byte_symbols.given(symbols)
    return _core.rans8_encode(found.address, found.nbytes, None if table is None else table._native, mode, threads)


@overload
def decode(data: Buffer, table: Table | None = None, out: None = None, *, threads: int = 0) -> NDArray[np.uint8]: ...
@overload
def decode(data: Buffer, table: Table | None = None, *, out: Out, threads: int = 0) -> Out: ...
def decode(data: Buffer, table: Table | None = None, out: Any = None, *, threads: int = 0) -> Any:
    """Give back the symbols that encode was given.

    data: what encode returned, in a buffer or any array. table: the one that encode was given, None where it was given
    none. out: a writable array of one-byte elements, row-major, as many as there are symbols. threads: 0 for
    get_num_threads().
    Returns out, or [n] uint8. Raises FormatError (damaged), ValueError (out's size; a table is needed), TypeError
    (data or out is no array).
    """
    source = elements_of(data)
    count = _core.rans8_size(source.address, source.nbytes)
    result, target = byte_symbols.room(out, count)
    _core.rans8_decode(
        source.address, source.nbytes, None if table is None else table._native, target.address, target.nbytes, threads
    )
    return result
