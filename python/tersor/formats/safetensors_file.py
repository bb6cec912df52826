"""safetensors files: a header in JSON, then the tensors' bytes. https://github.com/huggingface/safetensors"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_MOST_HEADER = 100_000_000  # bytes; safetensors' own limit
_ALIGNMENT = 8


def write(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Write arrays under their names; a file that is there is replaced once the new one is whole. Raises OSError."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so that each is aligned
    target = pathlib.Path(path)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    with whole_file(target, beside) as file:
        found = {name: elements_of(tensors[name]) for name in names}
        write_header(file, {name: (one.dtype, one.shape) for name, one in found.items()}, metadata)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def whole_file(target: pathlib.Path, beside: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file to write, under the name `beside` until it is whole and on disk; it is gone where writing it fails."""
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_header(
    file: IO[bytes], shapes: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> None:
    """Begin a file whose arrays follow in the order of `shapes`: name -> dtype by safetensors' name, and shape."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, shape) in shapes.items():
        end = at + math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)


class Reader:
    """An open file: its header is read and checked, arrays are read one by one. A context manager.

    shapes: name -> dtype by safetensors' name, and shape. Raises FormatError (what is wrong with the file), OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(open(path, "rb"))
            total = os.fstat(self._file.fileno()).st_size
            size = int.from_bytes(self._file.read(8), "little")
            if total < 8 or size > min(_MOST_HEADER, total - 8):
                raise _core.FormatError(f"safetensors: a header of {size} bytes in a file of {total}")
            rows, self.metadata = _header(self._file.read(size))
            self._body, body = 8 + size, total - 8 - size
            for name, dtype, shape, begin, end in rows:
                if not 0 <= begin <= end <= body or end - begin != math.prod(shape) * NUMPY_DTYPES[dtype].itemsize:
                    raise _core.FormatError(
                        f"safetensors: tensor {name!r} is {dtype} {shape} in bytes {begin} to {end} of {body}"
                    )
            if sum(end - begin for *_, begin, end in rows) != body:
                raise _core.FormatError(f"safetensors: {body} bytes of tensors, the header tells of another number")
            self._places = {name: (begin, end) for name, _, _, begin, end in rows}
            self.shapes = {name: (dtype, tuple(shape)) for name, dtype, shape, _, _ in rows}
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def nbytes(self, name: str) -> int:
        """Of an array."""
        begin, end = self._places[name]
        return end - begin

    def read(self, name: str) -> NDArray[Any]:
        """A fresh array. Raises KeyError, FormatError (cut off since the file was opened), OSError."""
        (begin, end), (dtype, shape) = self._places[name], self.shapes[name]
        self._file.seek(self._body + begin)
        data = np.fromfile(self._file, np.uint8, end - begin)
        if data.size != end - begin:
            raise _core.FormatError(f"safetensors: tensor {name!r} is cut off")
        return data.view(NUMPY_DTYPES[dtype]).reshape(shape)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every array by name, and the metadata. Raises FormatError (what is wrong with the file), OSError."""
    with Reader(path) as reader:
        return {name: reader.read(name) for name in reader.shapes}, reader.metadata


def _header(text: bytes) -> tuple[list[tuple[str, str, list[int], int, int]], dict[str, str]]:
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        rows = [(name, *_row(one)) for name, one in header.items()]
        texts = all(isinstance(text, str) for text in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _core.FormatError(f"safetensors: the header is damaged: {error}") from None
    if not texts:
        raise _core.FormatError("safetensors: the header is damaged: metadata is text")
    return rows, metadata


def _row(one: Any) -> tuple[str, list[int], int, int]:
    dtype, shape, (begin, end) = one["dtype"], one["shape"], one["data_offsets"]
    if dtype not in NUMPY_DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(NUMPY_DTYPES)}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or len(shape) > 32:
        raise ValueError(f"a shape of {shape} at {[begin, end]}")
    return dtype, shape, begin, end
