"""CompressAI's `compressai.ans` (1.2.8) on the indexed stream: same classes, same arguments, streams of its own.

from tersor.compat.compressai_ans import BufferedRansEncoder, RansDecoder, RansEncoder  # was: compressai.ans

or, for the models of CompressAI as they are, `tersor.compat.compressai_ans.install()` before a model is made.

The bytes are not CompressAI's: what one has coded the other cannot read. docs/learned_codecs.md says what is gained.

Every method takes the same tables, one for each value of an index:
cdfs: [n, length], cumulative frequencies in 2**16 slots, from 0 to 65536. cdfs_sizes: [n], how many values of each row
count. offsets: [n], the symbol of each row's first interval. The last interval is the escape's, by which every other
32-bit integer is coded. All arguments are lists, as CompressAI passes them, NumPy arrays or torch tensors (moved to the
CPU); arrays and tensors are read where they lie, which saves most of the time that is left.
Raises TypeError (no integers), ValueError (counts that differ, an index without a table, a cdf that does not rise from
0 to 65536 or has no interval but the escape's).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.compat.compressai_models import install, installed, uninstall
from tersor.entropy import Decoder, Encoder, TableSet, decode_indexed, encode_indexed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["BufferedRansEncoder", "RansDecoder", "RansEncoder", "install", "installed", "uninstall"]

_MOST_TABLES = 4096  # of one TableSet
_MOST_KEPT = 16


def _array(values: Any, what: str) -> NDArray[Any]:
    """Integers as an array; lists become int32."""
    if isinstance(values, (list, tuple)):
        found = np.empty(len(values), np.int32)
        _core.read_integer_list(
            values if isinstance(values, list) else list(values), what, found.ctypes.data, found.size
        )
        return found
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what} are integers, not {array.dtype}")
    return array


def _array32(values: Any, what: str) -> NDArray[np.int32]:
    array = _array(values, what)
    if array.dtype != np.int32 and array.size and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise ValueError(f"{what} have 32 bits, found {int(array.min())} to {int(array.max())}")
    return np.ascontiguousarray(array, dtype=np.int32)


def _as_given(symbols: NDArray[np.int32], indexes: Any) -> Any:
    """Symbols in the container in which the indexes came."""
    if isinstance(indexes, (list, tuple)):
        return _core.integer_list(symbols.ctypes.data, symbols.size)
    if hasattr(indexes, "detach"):
        import torch

        return torch.from_numpy(symbols)
    return symbols


class _Tables:
    """The tables of a call, in sets of at most 4096 that are built when the first symbol asks for them."""

    def __init__(self, packed: bytes, count: int) -> None:
        self.packed = packed
        self.count = count
        self._sets: dict[int, TableSet] = {}

    def one_set(self) -> TableSet | None:
        return self._set(0) if self.count <= _MOST_TABLES else None

    def parts(self, indexes: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], TableSet]]:
        """Where the symbols of each set are, their indexes in it, the set: the order of symbols in the stream."""
        if indexes.size and not (int(indexes.min()) >= 0 and int(indexes.max()) < self.count):
            raise ValueError(f"indexes name {self.count} tables, found {int(indexes.min())} to {int(indexes.max())}")
        numbers = indexes // _MOST_TABLES
        for number in np.unique(numbers):
            where = np.flatnonzero(numbers == number)
            yield where, indexes[where] - number * _MOST_TABLES, self._set(int(number))

    def _set(self, number: int) -> TableSet:
        if number not in self._sets:
            first = number * _MOST_TABLES
            count = min(_MOST_TABLES, self.count - first)
            self._sets[number] = TableSet(_core.table_set_of_cdfs(self.packed, first, count))
        return self._sets[number]


_kept: OrderedDict[bytes, _Tables] = OrderedDict()  # by content, the least recently used first
_lock = threading.Lock()


class _Coder:
    """Remembers the tables of the last call, which are most often those of the next."""

    def __init__(self) -> None:
        self._last: _Tables | None = None

    def _tables(self, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> _Tables:
        sizes, lows = _array32(cdfs_sizes, "cdfs_sizes").reshape(-1), _array32(offsets, "offsets").reshape(-1)
        sides = sizes.ctypes.data, sizes.size, lows.ctypes.data, lows.size
        if isinstance(cdfs, (list, tuple)):
            rows = [row if isinstance(row, list) else _array(row, "cdfs").tolist() for row in cdfs]
            packed = _core.pack_cdf_lists(rows, *sides)
        else:
            array = _array32(cdfs, "cdfs")
            if array.ndim != 2:
                raise ValueError(f"cdfs have two dimensions, not {array.ndim}")
            packed = _core.pack_cdf_array(array.ctypes.data, array.shape[0], array.shape[1], *sides)
        if self._last is None or self._last.packed != packed:
            self._last = _find(packed, sizes.size)
        return self._last


def _find(packed: bytes, count: int) -> _Tables:
    with _lock:
        tables = _kept.pop(packed, None) or _Tables(packed, count)
        if count <= _MOST_TABLES:  # more of them are one call's own, as a mixture's are
            _kept[packed] = tables
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return tables


def _read(read: Callable[[Any, TableSet], Any], indexes: NDArray[Any], tables: _Tables) -> NDArray[np.int32]:
    table_set = tables.one_set()
    if table_set is not None:
        symbols: NDArray[np.int32] = read(indexes, table_set)
        return symbols
    symbols = np.empty(indexes.shape, np.int32)
    for where, own, table_set in tables.parts(indexes.reshape(-1)):
        symbols.reshape(-1)[where] = read(own, table_set)
    return symbols


class BufferedRansEncoder(_Coder):
    """Gathers the symbols of several calls for one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = Encoder()

    def encode_with_indexes(self, symbols: Any, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> None:
        """Append integers, each by the table that its index names. A call that raises has written nothing."""
        values, at = _array(symbols, "symbols"), _array(indexes, "indexes")
        tables = self._tables(cdfs, cdfs_sizes, offsets)
        table_set = tables.one_set()
        if table_set is not None:
            self._encoder.write(values, at, table_set)
            return
        if values.size != at.size:
            raise ValueError(f"{at.size} indexes for {values.size} symbols")
        values = _array32(values, "symbols").reshape(-1)
        for where, own, table_set in list(tables.parts(at.reshape(-1))):
            self._encoder.write(values[where], own, table_set)

    def flush(self) -> bytes:
        """The stream of all that was written; the encoder is empty again."""
        return self._encoder.finish()


class RansEncoder(_Coder):
    """Codes the symbols of one call as one stream."""

    def encode_with_indexes(self, symbols: Any, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> bytes:
        """Code integers, each by the table that its index names. Returns the stream."""
        table_set = self._tables(cdfs, cdfs_sizes, offsets).one_set()
        if table_set is not None:
            return encode_indexed(_array(symbols, "symbols"), _array(indexes, "indexes"), table_set)
        encoder = BufferedRansEncoder()
        encoder._last = self._last
        encoder.encode_with_indexes(symbols, indexes, cdfs, cdfs_sizes, offsets)
        return encoder.flush()


class RansDecoder(_Coder):
    """Reads streams whole, or piece by piece for context models.

    Symbols come in the container of the indexes, of int32 and in their shape: a list for a list. Raises FormatError (a
    damaged stream), ValueError (more symbols than the stream holds).
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream: Decoder | None = None

    def decode_with_indexes(self, encoded: bytes, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> Any:
        """Give back the first symbols of a stream, as many as there are indexes."""
        at, tables, decoder = _array(indexes, "indexes"), self._tables(cdfs, cdfs_sizes, offsets), Decoder(encoded)
        table_set = tables.one_set()
        if table_set is not None and len(decoder) == at.size:
            return _as_given(decode_indexed(encoded, at, table_set), indexes)  # by all threads
        return _as_given(_read(decoder.read, at, tables), indexes)

    def set_stream(self, encoded: bytes) -> None:
        """Take a stream, for decode_stream to begin with."""
        self._stream = Decoder(encoded)

    def decode_stream(self, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> Any:
        """Give back the next symbols of the stream, as many as there are indexes."""
        if self._stream is None:
            raise ValueError("decode_stream needs a stream: call set_stream first")
        tables = self._tables(cdfs, cdfs_sizes, offsets)
        return _as_given(_read(self._stream.read, _array(indexes, "indexes"), tables), indexes)
