"""Quantized matrices in files, .tsr and safetensors, beside plain arrays. Page: docs/formats/quantized.md."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core, checkpoint
from tersor.formats import format as storage
from tersor.formats import safetensors_file
from tersor.formats.quantized import QuantizedTensor
from tersor.formats.recorded import SIDE_TERMS, TRANSFORMS, Recorded, recorded_from_dict
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = "tersor.quantized"  # of the metadata
VERSION = 1

Tensor = QuantizedTensor | Any  # or an array


def save_file(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int | None = None,
) -> None:
    """Write quantized matrices, and plain arrays beside them, under their names.

    path: ends in .tsr (codes are entropy-coded) or .safetensors (codes are packed). A part that several tensors share,
    as the same array or, where the format says so, with the same content, is stored once. level: of .tsr, 1 to 9.
    Raises ValueError (another suffix; two arrays of one name), TypeError (neither quantized nor an array), OSError.
    """
    symbols = _is_tsr(path)
    arrays: dict[str, NDArray[Any]] = {}
    document: dict[str, Any] = {}
    homes: dict[Any, str] = {}  # what a part is -> where it stands in the file

    def place(name: str, array: NDArray[Any], key: Any) -> str:
        if key in homes:
            return homes[key]
        if name in arrays or name in tensors:
            raise ValueError(f"two arrays would be named {name!r}: rename a tensor")
        homes[key] = name
        arrays[name] = array
        return name

    for name, tensor in tensors.items():
        if not isinstance(tensor, QuantizedTensor):
            arrays[name] = tensor
            continue
        own = tensor.arrays()
        if symbols:
            own |= tensor.format.symbols(tensor.parts, tensor.shape)
        placed = {part: place(f"{name}.{part}", array, _key(tensor, part, array)) for part, array in own.items()}
        document[name] = row_of(tensor, placed, symbols=symbols)
    texts = {**(metadata or {}), KEY: json.dumps({"version": VERSION, "tensors": document}, separators=(",", ":"))}
    if symbols:
        checkpoint.save_file({name: elements_of(array) for name, array in arrays.items()}, path, texts, None, level, 0)
    else:
        safetensors_file.write({name: np.asarray(array) for name, array in arrays.items()}, texts, path)


def load_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what `save_file` wrote: name -> QuantizedTensor, or an array. Shared parts are one array.

    Raises FormatError (damaged: which tensor, what was found and what is needed), ValueError (suffix), OSError.
    """
    if _is_tsr(path):
        reader = checkpoint.TensorReader(
            checkpoint.open_file(path), lambda bits, dtype: bits.view(NUMPY_DTYPES[dtype]), lambda: 0
        )
        with reader:
            arrays, metadata = reader.get_tensors(), reader.metadata() or {}
    else:
        arrays, metadata = safetensors_file.read(path)
    if KEY not in metadata:
        return dict(arrays)
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, row in _document(metadata[KEY]).items():
        try:
            found[name], names = tensor_of_row(row, arrays)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            told = f"no array is named {error}" if isinstance(error, KeyError) else str(error)
            raise _core.FormatError(f"tensor {name!r}: {told}") from None
        used |= names
    return found | {name: array for name, array in arrays.items() if name not in used}


def total_nbytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all quantized matrices in memory, an array that several share counted once."""
    arrays: dict[Any, NDArray[Any]] = {}
    for tensor in tensors.values():
        if isinstance(tensor, QuantizedTensor):
            for part, array in tensor.parts.items():
                arrays[_key(tensor, part, array)] = array
            for one in (*tensor.transforms, *tensor.side_terms):
                arrays.update({id(array): array for array in one.parts().values()})
    return sum(array.nbytes for array in arrays.values())


def row_of(tensor: QuantizedTensor, placed: Mapping[str, str], *, symbols: bool) -> dict[str, Any]:
    """What a file says of a tensor, fit for JSON. placed: names of tensor.arrays() -> the arrays' names in the file."""

    def of_recorded(what: str, some: tuple[Recorded, ...]) -> list[dict[str, Any]]:
        return [
            {**one.to_dict(), "kind": one.kind, "parts": {part: placed[f"{what}{i}.{part}"] for part in one.parts()}}
            for i, one in enumerate(some)
        ]

    return {
        "format": tensor.format.to_dict(),
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "codes": "symbols" if symbols else "packed",
        "activations": tensor.activations,
        "errors": dict(tensor.errors),
        "parts": {part: placed[part] for part in tensor.parts},
        "transforms": of_recorded("transform", tensor.transforms),
        "side_terms": of_recorded("side_term", tensor.side_terms),
    }


def _is_tsr(path: str | os.PathLike[str]) -> bool:
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in (".tsr", ".safetensors"):
        raise ValueError(f"quantized matrices are stored in .tsr and .safetensors files, not {suffix!r}")
    return suffix == ".tsr"


def _key(tensor: QuantizedTensor, part: str, array: NDArray[Any]) -> Any:
    """Equal for parts that are stored once."""
    if part not in tensor.format.shareable:
        return id(array)
    return array.dtype.str, array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).digest()


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
        version, rows = document["version"], document["tensors"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _core.FormatError(f"the metadata {KEY} is damaged: {error}") from None
    if version != VERSION:
        raise _core.FormatError(f"quantized matrices of version {version!r}, {VERSION} is needed")
    if not isinstance(rows, dict):
        raise _core.FormatError(f"the metadata {KEY} is damaged: tensors are an object")
    return rows


def tensor_of_row(row: Any, arrays: Mapping[str, NDArray[Any]]) -> tuple[QuantizedTensor, set[str]]:
    """The tensor of which row_of told, and the names of the arrays that it is made of.

    Raises FormatError, ValueError, KeyError, TypeError, AttributeError and OverflowError for a row that nobody wrote.
    """
    shape = row["shape"]
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n < 1 << 40 for n in shape)):
        raise ValueError(f"the shape of a quantized matrix is [N, K], not {shape!r}")
    rows_columns = (shape[0], shape[1])
    if row["codes"] not in ("packed", "symbols"):
        raise ValueError(f'codes are "packed" or "symbols", not {row["codes"]!r}')
    errors = row["errors"]
    if not all(isinstance(error, (int, float)) and math.isfinite(error) for error in errors.values()):
        raise ValueError(f"errors are numbers, not {errors!r}")
    fmt = storage.from_dict(row["format"])
    parts = {part: arrays[name] for part, name in row["parts"].items()}
    used = set(row["parts"].values())
    if row["codes"] == "symbols":
        parts = fmt.packed(parts, rows_columns)

    def recorded(rows: list[Any], kinds: Mapping[str, str]) -> tuple[Recorded, ...]:
        made = []
        for one in rows:
            own = {part: arrays[name] for part, name in one["parts"].items()}
            used.update(one["parts"].values())
            made.append(recorded_from_dict(one, own, rows_columns, kinds))
        return tuple(made)

    tensor = QuantizedTensor(
        format=fmt,
        shape=rows_columns,
        dtype=row["dtype"],
        parts=parts,
        transforms=recorded(row["transforms"], TRANSFORMS),
        side_terms=recorded(row["side_terms"], SIDE_TERMS),
        activations=row["activations"],
        errors=errors,
    )
    return tensor, used
