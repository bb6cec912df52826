"""safetensors.numpy's functions over .tsr files: change the import, keep the code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tersor import checkpoint, fsspec, lossless

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = ["load", "load_file", "open_file", "save", "save_file"]


def save_file(
    tensors: Mapping[str, object],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int | None = None,
    base: checkpoint.Paths = None,
) -> None:
    """Save arrays under their names, exactly.

    tensors: name -> array of any shape; NumPy with ml_dtypes, DLPack or buffers. Strided arrays are saved in row-major
    order. filename: replaced if it is there, once the new file is whole. metadata: text to keep beside the arrays.
    level: 1 (fastest) to 9 (smallest), None for the default, 4. The same arrays and level give the same bytes.
    base: what the tensors are coded against where names, dtypes and sizes agree: a .safetensors, a .tsr, a folder of
    them, or several of these. The file holds their content's hash, not their paths; reading it needs them again.
    Raises TypeError (not an array; a dtype without a number; metadata that is no text), ValueError (level), OSError.
    """
    with fsspec.local_output(filename) as local:
        checkpoint.save_file(_elements(tensors), local, metadata, base, level, 0)


def save(
    tensors: Mapping[str, object],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int | None = None,
    base: checkpoint.Paths = None,
) -> bytes:
    """Return the bytes that `save_file` writes; same arguments, same errors."""
    return checkpoint.save(_elements(tensors), metadata, base, level, 0)


def load_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, base: checkpoint.Paths = None
) -> dict[str, NDArray[Any]]:
    """Load every array of a .tsr file.

    device: "cpu"; safetensors' argument. base: what the file was coded against, one path or several. Returns name ->
    fresh array in the order of the file; bf16 and fp8 have ml_dtypes' dtypes.
    Raises FormatError (not a .tsr file; damaged: says where), ValueError (device), OSError.
    """
    with open_file(filename, device, base=base) as reader:
        return reader.get_tensors()


def load(data: Buffer, *, base: checkpoint.Paths = None) -> dict[str, NDArray[Any]]:
    """Load every array from the bytes that `save` returned, or of a .tsr file. Raises FormatError."""
    return _reader(checkpoint.open_bytes(data, base)).get_tensors()


def open_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, base: checkpoint.Paths = None
) -> checkpoint.TensorReader[NDArray[Any]]:
    """Open a .tsr file: `tersor.safe_open(filename, "np", device)`."""
    if device != "cpu":
        raise ValueError(f'NumPy arrays are on device "cpu", not {device!r}')
    with fsspec.local_input(filename) as local:
        return _reader(checkpoint.open_file(local, base))


def _reader(file: Any) -> checkpoint.TensorReader[NDArray[Any]]:
    return checkpoint.TensorReader(file, _wrap, lambda: 0)


def _wrap(bits: NDArray[Any], dtype: str) -> NDArray[Any]:
    return bits.view(lossless.NUMPY_DTYPES[dtype])


def _elements(tensors: Mapping[str, object]) -> dict[str, lossless.Elements]:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors map names to arrays, found {type(tensors).__name__}")
    elements = {}
    for name, array in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"names of tensors are text, found {name!r}")
        try:
            elements[name] = lossless.elements_of(array)
        except (TypeError, ValueError) as error:
            raise type(error)(f"tensor {name!r}: {error}") from None
    return elements
