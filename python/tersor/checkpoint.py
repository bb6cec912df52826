"""Files of tensors, read by tensor or by slice. The typed door to `csrc/checkpoint`; page: docs/formats/tsr.md."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer, Self

    from tersor.lossless import Elements

Tensor = TypeVar("Tensor")
Path: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "Path | Iterable[Path] | None"  # base= of every door

# A strided slice is read in blocks of about this many bytes, so that only the result scales with the tensor.
_BLOCK_BYTES = 16 << 20


class TensorReader(Generic[Tensor]):
    """A .tsr file open for reading; what `tersor.safe_open` returns. Immutable: any number of threads may read."""

    def __init__(
        self,
        file: _core.TensorFile,
        wrap: Callable[[NDArray[Any], str], Tensor],
        threads: Callable[[], int],
    ) -> None:
        """wrap: unsigned integers and a dtype's name -> a tensor of that dtype. threads: for one call, 0 for all."""
        if file.origin == "file":
            raise _core.FormatError(
                "tensors are needed, found a compressed file of another kind: decompress restores it"
            )
        self._file: _core.TensorFile | None = file
        self._wrap = wrap
        self._threads = threads
        self._entries = {entry.name: entry for entry in file.entries if entry.kind == "tensor"}
        if not self._entries and file.origin in ("npy", "npz", "torch", "gguf"):
            raise _core.FormatError(
                f"tensors are needed, found a file of kind {file.origin} without any: decompress restores its bytes"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None

    def keys(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._entries)

    def offset_keys(self) -> list[str]:
        """Names of the tensors in the order in which the file holds them."""
        return list(self._entries)

    def metadata(self) -> dict[str, str] | None:
        """The text that was saved beside the tensors; None where there is none."""
        return dict(self._open().metadata) or None

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, whole. Raises KeyError (no such name), FormatError (a damaged chunk)."""
        return self._read([self._entry(name)])[0]

    def get_tensors(self) -> dict[str, Tensor]:
        """All tensors, chunks decoded in parallel across them, in the order of the file."""
        return dict(zip(self._entries, self._read(self._entries.values()), strict=True))

    def get_slice(self, name: str) -> TensorSlice[Tensor]:
        """One tensor to take slices of; nothing is read yet. Raises KeyError."""
        return TensorSlice(self, self._entry(name))

    def _open(self) -> _core.TensorFile:
        if self._file is None:
            raise ValueError("the file is closed")
        return self._file

    def _entry(self, name: str) -> _core.Entry:
        self._open()
        if name not in self._entries:
            raise KeyError(f"no tensor is named {name!r}, the file holds {len(self._entries)} tensors")
        return self._entries[name]

    def _read(self, entries: Iterable[_core.Entry]) -> list[Tensor]:
        file, jobs, results = self._open(), [], []
        for entry in entries:
            bits = np.empty(entry.shape, _unsigned(entry))
            jobs.append((entry.index, 0, bits.ctypes.data, bits.nbytes))
            results.append((bits, entry.dtype))
        file.read(jobs, self._threads())
        return [self._wrap(bits, dtype) for bits, dtype in results]

    def _slice(self, entry: _core.Entry, index: Any) -> Tensor:
        file, picked = self._open(), _normalized(index, entry.shape)
        bits = np.empty([len(axis) for axis, _ in picked], _unsigned(entry))

        def read(begin: int, into: NDArray[Any]) -> None:
            file.read([(entry.index, begin * into.itemsize, into.ctypes.data, into.nbytes)], self._threads())

        _gather(read, entry.shape, [axis for axis, _ in picked], bits, 0)
        kept = tuple(slice(None) if stays else 0 for _, stays in picked)
        return self._wrap(np.asarray(bits[kept]), entry.dtype)


class TensorSlice(Generic[Tensor]):
    """A tensor of an open file; `[...]` reads just the chunks that the slice touches."""

    def __init__(self, reader: TensorReader[Tensor], entry: _core.Entry) -> None:
        self._reader, self._entry = reader, entry

    def get_shape(self) -> list[int]:
        """Sizes of the whole tensor."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """safetensors' name of the dtype, "BF16" for example."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> Tensor:
        """Take integers, slices with any step and `...`, as NumPy does. Raises IndexError, TypeError, FormatError."""
        return self._reader._slice(self._entry, index)


def save(
    tensors: Mapping[str, Elements],
    metadata: Mapping[str, str] | None,
    base: Paths,
    level: int | None,
    threads: int,
) -> bytes:
    """The bytes that `save_file` writes."""
    level = _core.DEFAULT_LEVEL if level is None else level
    return _core.save(_rows(tensors), _text(metadata), paths_of(base), level, threads)


def save_file(
    tensors: Mapping[str, Elements],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None,
    base: Paths,
    level: int | None,
    threads: int,
) -> None:
    """Write a .tsr file of named tensors; one that exists is replaced once the new one is whole."""
    level = _core.DEFAULT_LEVEL if level is None else level
    _core.save_file(os.fsencode(filename), _rows(tensors), _text(metadata), paths_of(base), level, threads)


def open_file(filename: str | os.PathLike[str], base: Paths = None) -> _core.TensorFile:
    """Memory-map a .tsr file and its bases, and check their indices. Raises FormatError, OSError."""
    return _core.TensorFile.open(os.fsencode(filename), paths_of(base))


def open_bytes(data: Buffer, base: Paths = None) -> _core.TensorFile:
    """The same over bytes in memory, which stay alive with the result."""
    return _core.TensorFile.view(data, paths_of(base))


def paths_of(base: Paths) -> list[bytes]:
    """No path, one or several, as the core takes them."""
    if base is None:
        return []
    if isinstance(base, (str, os.PathLike)):
        return [os.fsencode(base)]
    return [os.fsencode(path) for path in base]


def _rows(tensors: Mapping[str, Elements]) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    return [(name, e.dtype, e.shape, e.address, e.nbytes) for name, e in tensors.items()]


def _text(metadata: Mapping[str, str] | None) -> dict[str, str]:
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata maps str to str, found {key!r}: {value!r}")
    return dict(metadata or {})


def _unsigned(entry: _core.Entry) -> np.dtype[Any]:
    return np.dtype(f"u{_core.dtype_bytes(entry.dtype)}")


def _normalized(index: Any, shape: tuple[int, ...]) -> list[tuple[range, bool]]:
    """For every axis what is taken, and whether the axis stays in the result."""
    items = list(index) if isinstance(index, tuple) else [index]
    dots = [i for i, item in enumerate(items) if item is ...]
    if len(dots) > 1 or len(items) - len(dots) > len(shape):
        raise IndexError(f"{len(items)} indices do not fit the shape {list(shape)}")
    at = dots[0] if dots else len(items)
    items[at : at + 1] = [slice(None)] * (len(shape) - len(items) + len(dots))
    return [_axis(item, size, axis) for axis, (item, size) in enumerate(zip(items, shape, strict=True))]


def _axis(item: Any, size: int, axis: int) -> tuple[range, bool]:
    if isinstance(item, slice):
        return range(size)[item], True
    try:
        if isinstance(item, bool):
            raise TypeError
        at = operator.index(item)
    except TypeError:
        raise TypeError(f"indices are integers, slices and ..., found {type(item).__name__}") from None
    if not -size <= at < size:
        raise IndexError(f"index {at} is outside axis {axis} of size {size}")
    return range(at % size, at % size + 1), False


def _gather(
    read: Callable[[int, NDArray[Any]], None],
    shape: tuple[int, ...],
    picked: list[range],
    out: NDArray[Any],
    begin: int,
) -> None:
    """Fill `out` with the picked elements of a row-major tensor that starts `begin` elements into the file's."""
    if out.size == 0:
        return
    if not shape:
        return read(begin, out)
    axis, row = picked[0], math.prod(shape[1:])
    low, high = min(axis), max(axis)
    whole_rows = all(len(later) == size and later.step > 0 for later, size in zip(picked[1:], shape[1:], strict=True))
    if whole_rows and (axis.step == 1 or len(axis) == 1):
        return read(begin + low * row, out)
    stride = abs(axis.step) * row * out.itemsize
    if len(axis) == 1 or stride >= _core.CHUNK_BYTES:  # whole chunks lie between the rows: one by one
        for i, at in enumerate(axis):
            _gather(read, shape[1:], picked[1:], out[i, ...], begin + at * row)  # `...` keeps an array of a scalar
        return
    # The rows lie close: read them with what is between, a block at a time, and pick in memory.
    rows_at_once = max(1, _BLOCK_BYTES // stride)
    later = tuple(_slice_of(r) for r in picked[1:])
    for i in range(0, len(axis), rows_at_once):
        part = axis[i : i + rows_at_once]
        low, high = min(part), max(part)
        block = np.empty((high - low + 1, *shape[1:]), out.dtype)
        read(begin + low * row, block)
        out[i : i + len(part)] = block[(_slice_of(range(part.start - low, part.stop - low, part.step)), *later)]


def _slice_of(indices: range) -> slice:
    stop = indices.stop if indices.stop >= 0 else None
    return slice(indices.start, stop, indices.step)
