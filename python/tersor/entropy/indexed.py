"""Integers through rANS, each with the table that its index names. Page: docs/formats/indexed.md.

tables = TableSet.gaussian(scales)
data = encode_indexed(symbols, indexes, tables)
assert (decode_indexed(data, indexes, tables) == symbols).all()
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from tersor import _core
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from tersor.entropy.table_set import TableSet

Out = TypeVar("Out")

_INDEX_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int32))


def _integers(values: Any, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int32)  # an empty list is one of floats to NumPy
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what} are integers, not {array.dtype}")
    return array


def _as_int32(values: Any, what: str) -> NDArray[np.int32]:
    """Symbols or means in order, as the core takes them."""
    array = _integers(values, what)
    if array.size and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise ValueError(f"{what} have 32 bits, found {int(array.min())} to {int(array.max())}")
    return np.ascontiguousarray(array, dtype=np.int32)


def _as_indexes(values: Any, tables: TableSet) -> NDArray[Any]:
    array = _integers(values, "indexes")
    if array.dtype in _INDEX_DTYPES:
        return np.ascontiguousarray(array)
    if array.size and not (int(array.min()) >= 0 and int(array.max()) < len(tables)):
        raise ValueError(f"indexes name {len(tables)} tables, found {int(array.min())} to {int(array.max())}")
    return np.ascontiguousarray(array, dtype=np.int32)


def _as_means(values: Any) -> NDArray[np.int32] | None:
    return None if values is None else _as_int32(values, "means (see TableSet.quantize_means)")


def _result(out: Any, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The array that the core can write to: `out`, or one to be copied there."""
    if out is None:
        return np.empty(shape, np.int32)
    out = _target(out)
    if out.dtype.kind not in "iu":
        raise TypeError(f"out holds integers, not {out.dtype}")
    if out.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"out has shape {out.shape}, the indexes {tuple(shape)}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return out if out.dtype == np.int32 and out.flags.c_contiguous else np.empty(shape, np.int32)


def _target(out: Any) -> NDArray[Any]:
    """The memory of `out` as an array; what NumPy could only copy is refused."""
    if isinstance(out, np.ndarray):
        return out
    if hasattr(out, "__dlpack__"):
        return np.asarray(out)  # torch's tensors, which share their memory with it
    try:
        return np.asarray(memoryview(out))
    except TypeError:
        raise TypeError(f"out is an array, not {type(out).__name__}") from None


def _deliver(result: NDArray[np.int32], out: Any) -> Any:
    if out is None:
        return result
    target = _target(out)
    if not np.shares_memory(target, result):
        limits = np.iinfo(target.dtype)
        if result.size and not (limits.min <= int(result.min()) and int(result.max()) <= limits.max):
            raise ValueError(f"out holds {target.dtype}, the symbols go from {result.min()} to {result.max()}")
        target[...] = result.reshape(target.shape)
    return out


def encode_indexed(symbols: Any, indexes: Any, tables: TableSet, *, means: Any = None, threads: int = 0) -> bytes:
    """Code integers, each by the table that its index names.

    symbols: integers of 32 bits, any shape, in row-major order; those that a table does not list go by its escape.
    indexes: as many integers below len(tables); uint8, uint16 and int32 are taken as they are, others are copied.
    tables: a TableSet. means: None, or as many integers that count 1 / tables.fractions (TableSet.quantize_means): a
    symbol is coded as its distance from the mean's whole part, by the table of the mean's fraction. Codecs that round
    y - mean need none: their symbols lie around 0 already. threads: 0 for get_num_threads(); the bytes do not depend on
    it. All are NumPy arrays, torch tensors on the CPU, or whatever np.asarray takes.
    Returns the stream, without the tables, indexes and means. Raises TypeError (no integers), ValueError (counts that
    differ, an index without a table, a symbol of over 32 bits).
    Source: Duda, arXiv:1311.2540 (rANS); Giesen, arXiv:1402.3392 (interleaving).
    """
    data = _core.indexed_encode(symbols, indexes, tables._native, means, threads)
    if data is None:
        arrays = _as_int32(symbols, "symbols"), _as_indexes(indexes, tables), tables._native, _as_means(means)
        data = _core.indexed_encode(*arrays, threads)
        assert data is not None
    return data


@overload
def decode_indexed(
    data: Buffer, indexes: Any, tables: TableSet, *, means: Any = None, out: None = None, threads: int = 0
) -> NDArray[np.int32]: ...
@overload
def decode_indexed(
    data: Buffer, indexes: Any, tables: TableSet, *, means: Any = None, out: Out, threads: int = 0
) -> Out: ...
def decode_indexed(
    data: Buffer, indexes: Any, tables: TableSet, *, means: Any = None, out: Any = None, threads: int = 0
) -> Any:
    """Give back the symbols that encode_indexed, or an Encoder, was given.

    data: the stream, in a buffer or any array. indexes, tables, means: as they were given for encoding; from others
    come wrong symbols or a FormatError. out: a writable array of as many integers; None for a fresh one.
    Returns out, or int32 in the shape of indexes. Raises FormatError (damaged), TypeError and ValueError as
    encode_indexed does, ValueError (the stream holds another number of symbols; out's size, or symbols that its dtype
    cannot hold).
    """
    source = elements_of(data)
    shape = np.shape(indexes)
    result = _result(out, shape)
    if not _core.indexed_decode(source.address, source.nbytes, indexes, tables._native, means, result, threads):
        arrays = _as_indexes(indexes, tables), tables._native, _as_means(means)
        _core.indexed_decode(source.address, source.nbytes, *arrays, result, threads)
    return _deliver(result, out)


def _bytes(data: Any) -> bytes:
    source = elements_of(data)
    return ctypes.string_at(source.address, source.nbytes)


class Encoder:
    """Codes integers that come call by call, with a set of tables for each call.

    rANS codes the last symbol first, so the symbols are kept until finish: four bytes each, 24 more for an escape and
    48 for a call with another set than the one before.
    """

    __slots__ = ("_native",)

    def __init__(self) -> None:
        self._native = _core.IndexedEncoder()

    def write(self, symbols: Any, indexes: Any, tables: TableSet, *, means: Any = None) -> Encoder:
        """Append symbols; arguments and errors are encode_indexed's. A call that raises has written nothing.

        Returns itself, so that calls can be chained.
        """
        if not self._native.write(symbols, indexes, tables._native, means):
            arrays = _as_int32(symbols, "symbols"), _as_indexes(indexes, tables), tables._native, _as_means(means)
            self._native.write(*arrays)
        return self

    def __len__(self) -> int:
        """Symbols written."""
        return self._native.symbols

    def finish(self, *, threads: int = 0) -> bytes:
        """The stream of all that was written; the encoder is empty again.

        Raises OSError or MemoryError where memory is short; what was written is kept then.
        """
        return self._native.finish(threads)


class Decoder:
    """Reads a stream call by call, in pieces of any size: a network may compute the next indexes in between.

    data: what encode_indexed or Encoder.finish returned. Raises FormatError.
    """

    __slots__ = ("_native",)

    def __init__(self, data: Buffer) -> None:
        self._native = _core.IndexedDecoder(data if isinstance(data, bytes) else _bytes(data))

    def read(self, indexes: Any, tables: TableSet, *, means: Any = None, out: Any = None) -> Any:
        """Give back the next symbols, as many as there are indexes; arguments and results are decode_indexed's.

        Raises FormatError (damaged: also by every later call, until seek leaves the damage behind), ValueError (more
        symbols than are left). Damage in a chunk may show only at its end. Where the dtype of `out` cannot hold a
        symbol the position has moved all the same.
        """
        if out is not None and self._native.read(indexes, tables._native, means, out):
            return out
        if out is None and type(indexes) is np.ndarray:
            result = np.empty(indexes.shape, np.int32)
        else:
            result = _result(out, np.shape(indexes))
        if not self._native.read(indexes, tables._native, means, result):
            self._native.read(_as_indexes(indexes, tables), tables._native, _as_means(means), result)
        return result if out is None else _deliver(result, out)

    def __len__(self) -> int:
        """Symbols in the stream."""
        return self._native.symbols

    @property
    def position(self) -> int:
        """Symbols that are read."""
        return self._native.position

    @property
    def chunk(self) -> int:
        """Symbols a chunk: what can be decoded without what stands before it."""
        return self._native.chunk

    def seek(self, symbol: int) -> None:
        """Go on with the chunk that begins with this symbol. Raises ValueError where none does."""
        if symbol < 0:
            raise ValueError(f"a decoder goes to symbols from 0 on, not to {symbol}")
        self._native.seek(symbol)
