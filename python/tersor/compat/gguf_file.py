"""The header of a GGUF file, versions 2 and 3, little endian. Source: the GGUF page of the ggml project.

The gguf package's reader takes the counts of a damaged file at their word and runs on behind its end; this one checks
each against what is left.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MOST_DIMS = 4
_LEAST_INFO = 24  # bytes of a tensor's row, its name not counted


class TensorInfo(NamedTuple):
    """A tensor of the file. kind: ggml's name of its type. shape: the fastest dim last, in weights."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class GGUFFile:
    """Metadata and tensors of a .gguf file, mapped. A context manager.

    metadata: key -> number, text, bool, list of texts or lists, or array of numbers. tensors: name -> TensorInfo.
    Raises FormatError (no GGUF, cut off, damaged, a type that ggml does not have: which), OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 24:
                raise _core.FormatError(f"{self.path}: {os.fstat(file.fileno()).st_size} bytes are no GGUF file")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        try:
            self.metadata, self.tensors = self._header()
        except (struct.error, ValueError, OverflowError) as error:
            self._map.close()
            raise _core.FormatError(f"{self.path}: the header is damaged: {error}") from None
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._map.close()

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, a fresh array uint8 [rows, bytes of a row]; one row for a vector."""
        info = self.tensors[name]
        rows = math.prod(info.shape[:-1])
        return np.frombuffer(self._map[info.begin : info.begin + info.nbytes], np.uint8).reshape(rows, -1)

    def _header(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        if self._map[:4] != b"GGUF":
            raise _core.FormatError(f"{self.path}: a GGUF file begins with b'GGUF', this with {self._map[:4]!r}")
        self._at = 4
        version, tensors, pairs = self._take("I"), self._take("Q"), self._take("Q")
        if version not in _VERSIONS:
            raise _core.FormatError(f"{self.path}: GGUF of version {version}, one of {_VERSIONS} is needed")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):  # each takes bytes, so that a damaged count ends with them
            key = self._text()
            metadata[key] = self._value(self._take("I"), 4)
        if tensors > self._left() // _LEAST_INFO:
            raise ValueError(f"{tensors} tensors in {self._left()} bytes")
        rows = [self._row() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise ValueError(f"an alignment of {alignment!r}")
        start = -(-self._at // alignment) * alignment
        found: dict[str, TensorInfo] = {}
        told = 0
        for name, shape, number, begin in rows:
            kind, nbytes = _size_of(name, shape, number)
            if name in found:
                raise ValueError(f"two tensors are named {name!r}")
            if start + begin + nbytes > len(self._map):
                raise _core.FormatError(
                    f"{self.path} is cut off: {name} ends at byte {start + begin + nbytes} of {len(self._map)}"
                )
            found[name] = TensorInfo(kind, shape, start + begin, nbytes)
            told += nbytes
        if told > len(self._map) - start:  # a small file must not become a large model
            raise ValueError(f"tensors of {told} bytes in {len(self._map) - start}: some lie over others")
        return metadata, found

    def _row(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dims = self._text(), self._take("I")
        if not 1 <= dims <= _MOST_DIMS:
            raise ValueError(f"tensor {name!r} has {dims} dims, 1 to {_MOST_DIMS} are needed")
        shape = tuple(self._take("Q") for _ in range(dims))[::-1]
        if 0 in shape:
            raise ValueError(f"tensor {name!r} is {list(shape)}")
        return name, shape, self._take("I"), self._take("Q")

    def _left(self) -> int:
        return len(self._map) - self._at

    def _take(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._map, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _text(self) -> str:
        size = self._take("Q")
        if size > self._left():
            raise ValueError(f"a text of {size} bytes in {self._left()}")
        self._at += size
        return self._map[self._at - size : self._at].decode(errors="surrogateescape")

    def _numbers(self, code: str, count: int) -> NDArray[Any]:
        dtype = np.dtype(f"<{code}")
        self._at += count * dtype.itemsize
        return np.frombuffer(self._map[self._at - count * dtype.itemsize : self._at], dtype)

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])
        if kind != _ARRAY or depth == 0:
            raise ValueError(f"a value of the type {kind} at byte {self._at}")
        inner, count = self._take("I"), self._take("Q")
        least = struct.calcsize(f"<{_SCALARS[inner]}") if inner in _SCALARS else 8  # a text's length, or more
        if count > self._left() // least:
            raise ValueError(f"an array of {count} in {self._left()} bytes")
        if inner in _SCALARS:
            return self._numbers(_SCALARS[inner], count)  # Python's own would take thirty times the file's bytes
        return [self._value(inner, depth - 1) for _ in range(count)]


def _size_of(name: str, shape: tuple[int, ...], number: int) -> tuple[str, int]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise _core.FormatError(f"tensor {name!r} is of ggml's type {number}, which is not known here") from None
    weights, nbytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % weights:
        raise ValueError(f"tensor {name!r} has rows of {shape[-1]}, {kind.name} has blocks of {weights}")
    return kind.name, math.prod(shape) // weights * nbytes
