"""safetensors files: a header in JSON, then the tensors' bytes. https://github.com/huggingface/safetensors"""

from __future__ import annotations

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_HEADER = 100_000_000  # bytes; safetensors' own limit
_ALIGNMENT = 8


def write(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Write arrays under their names; a file that is there is replaced once the new one is whole. Raises OSError."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in names:
        found = elements_of(tensors[name])
        header[name] = {"dtype": found.dtype, "shape": list(found.shape), "data_offsets": [at, at + found.nbytes]}
        at += found.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    target = pathlib.Path(path)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(beside).chmod(0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        pathlib.Path(beside).unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every array by name, and the metadata. Raises FormatError (what is wrong with the file), OSError."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MOST_HEADER, len(data) - 8):
        raise _core.FormatError(f"safetensors: a header of {size} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        rows = [(name, *_row(one)) for name, one in header.items()]
        texts = all(isinstance(text, str) for text in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _core.FormatError(f"safetensors: the header is damaged: {error}") from None
    if not texts:
        raise _core.FormatError("safetensors: the header is damaged: metadata is text")
    tensors, body = {}, data[8 + size :]
    for name, dtype, shape, begin, end in rows:
        needed = math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
        if not 0 <= begin <= end <= len(body) or end - begin != needed:
            raise _core.FormatError(
                f"safetensors: tensor {name!r} is {dtype} {shape} in bytes {begin} to {end} of {len(body)}"
            )
        tensors[name] = np.frombuffer(body[begin:end], NUMPY_DTYPES[dtype]).reshape(shape).copy()
    if sum(end - begin for *_, begin, end in rows) != len(body):
        raise _core.FormatError(f"safetensors: {len(body)} bytes of tensors, the header tells of another number")
    return tensors, metadata


def _row(one: Any) -> tuple[str, list[int], int, int]:
    dtype, shape, (begin, end) = one["dtype"], one["shape"], one["data_offsets"]
    if dtype not in NUMPY_DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(NUMPY_DTYPES)}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or len(shape) > 32:
        raise ValueError(f"a shape of {shape} at {[begin, end]}")
    return dtype, shape, begin, end


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
