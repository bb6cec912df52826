"""Folders that GPTQ, AWQ or compressed-tensors has quantized, as ours, nothing lost. Page: docs/exchange.md.

import_quantized("Model-GPTQ-Int4", "OUT")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.compat.exchanged import Exchanged, ForeignFolder, Parts, copy_companions, finished, writing
from tersor.formats.int_group import IntGroup
from tersor.formats.model_folder import Entry
from tersor.formats.quantized import QuantizedTensor
from tersor.formats.transforms import Permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]

METHODS = ("gptq", "awq", "compressed-tensors")

_SCALES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
_FLOATS = ("F16", "BF16", "F32")
_AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)  # of eight, in the order of a word's nibbles
_TRANSPOSED = ("gpt2",)  # models whose linear layers hold [K, N]
_NAMES = {"gptq": "qweight", "awq": "qweight", "compressed-tensors": "weight_packed"}


def import_quantized(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Exchanged:
    """Write a folder of GPTQ (both conventions of zeros), AWQ (gemm layout) or pack-quantized integers as one of ours.

    Each matrix keeps its codes, scales and zeros: dequantized in float32 it is what the layout says, bit for bit.
    Columns that activation order has put into other groups are stored in the order of their groups, with a Permutation.
    progress: called with (bytes done, bytes in all).
    Raises FormatError (damaged: which tensor, what is needed; an unknown method or layout), OSError.
    """
    with ForeignFolder(Path(source)) as folder:
        settings = folder.config.get("quantization_config")
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        if method not in METHODS or not isinstance(settings, Mapping):
            raise _core.FormatError(f"{folder.path} is quantized by {method!r}, known are {', '.join(METHODS)}")
        read = {"gptq": _gptq, "awq": _awq, "compressed-tensors": _packed}[method]
        _check_layout(method, settings)
        ending = "." + _NAMES[method]
        stems = {name.removesuffix(ending) for name in folder.names() if name.endswith(ending)}
        parts_of = {f"{stem}.{part}" for stem in stems for part in _PARTS[method]}
        found = Exchanged()
        done, total = 0, sum(folder.nbytes(name) for name in folder.names())
        module = "conv1d" if folder.config.get("model_type") in _TRANSPOSED else "linear"
        with writing(Path(out)) as writer:
            parts = Parts(writer)
            for name in folder.names():
                stem = name.removesuffix(ending)
                if name.endswith(ending):
                    tensor = read(folder, stem, settings)
                    parts.add(f"{stem}.weight", Entry(tensor=tensor, module=module))
                    found.tensors[f"{stem}.weight"] = str(tensor.format)
                elif name not in parts_of:
                    parts.add(name, Entry(tensor=folder.read(name)))
                done += folder.nbytes(name)
                if progress:
                    progress(done, total)
            parts.flush()
            writer.finish({key: value for key, value in folder.config.items() if key != "quantization_config"})
            copy_companions(folder.path, Path(out))
    return finished(found, Path(out))


_PARTS = {
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
    "awq": ("qweight", "qzeros", "scales"),
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"),
}


def _check_layout(method: str, settings: Mapping[str, Any]) -> None:
    if method == "compressed-tensors":
        if settings.get("format") != "pack-quantized":
            raise _core.FormatError(f"compressed-tensors as {settings.get('format')!r}, pack-quantized is known")
        return
    dynamic = settings.get("dynamic") or {}
    if not isinstance(dynamic, Mapping) or any(not str(rule).startswith("-:") for rule in dynamic):
        raise _core.FormatError(f"{method} with settings for some layers ('dynamic'), ones for all are known")
    known = (4,) if method == "awq" else (2, 3, 4, 8)
    if settings.get("bits") not in known:
        raise _core.FormatError(f"{method} of {settings.get('bits')!r} bits, {known} are known")
    if method == "awq" and str(settings.get("version", "gemm")).lower() != "gemm":
        raise _core.FormatError(f"awq in the layout {settings['version']!r}, gemm is known")
    if method == "gptq" and settings.get("checkpoint_format", "gptq") not in ("gptq", "gptq_v2"):
        raise _core.FormatError(f"gptq in the layout {settings['checkpoint_format']!r}, gptq and gptq_v2 are known")


def _gptq(folder: ForeignFolder, stem: str, settings: Mapping[str, Any]) -> QuantizedTensor:
    """qweight [K bits / 32, N]: a column is a string of bits; qzeros [G, N bits / 32]: a row is one; scales [G, N]."""
    bits = int(settings["bits"])
    words = folder.read(f"{stem}.qweight", ["I32"])
    if words.ndim != 2 or 0 in words.shape or words.shape[0] * 32 % bits:
        raise _core.FormatError(f"{folder.path}: {stem}.qweight is {list(words.shape)}, [K * {bits} / 32, N] is needed")
    columns, rows = words.shape[0] * 32 // bits, words.shape[1]
    scales = folder.read(f"{stem}.scales", _FLOATS)
    groups = _groups(folder, f"{stem}.scales", scales, 0, rows, columns, settings.get("group_size"))
    packed = folder.read(f"{stem}.qzeros", ["I32"], (groups, -(-rows * bits // 32)))
    zeros = _unpacked(packed, bits, rows)
    if settings.get("checkpoint_format", "gptq") == "gptq":  # which has one less, and 0 as all ones
        zeros = zeros + np.uint8(1) & np.uint8(2**bits - 1)
    place = f"{stem}.g_idx"
    index = folder.read(place, ["I32"], (columns,)) if place in folder.names() else None
    codes = _unpacked(np.ascontiguousarray(words.T), bits, columns)
    return _matrix(folder, stem, codes, scales.T, zeros.T, bits, index)


def _awq(folder: ForeignFolder, stem: str, settings: Mapping[str, Any]) -> QuantizedTensor:
    """qweight [K, N / 8], qzeros [G, N / 8]: eight columns a word, even ones first; scales [G, N]."""
    words = folder.read(f"{stem}.qweight", ["I32"])
    if words.ndim != 2 or 0 in words.shape:
        raise _core.FormatError(f"{folder.path}: {stem}.qweight is {list(words.shape)}, [K, N / 8] is needed")
    columns, rows = words.shape[0], words.shape[1] * 8
    scales = folder.read(f"{stem}.scales", _FLOATS)
    groups = _groups(folder, f"{stem}.scales", scales, 0, rows, columns, settings.get("group_size"))
    packed = folder.read(f"{stem}.qzeros", ["I32"], (groups, rows // 8))
    return _matrix(folder, stem, _awq_codes(words).T, scales.T, _awq_codes(packed).T, 4, None)


def _packed(folder: ForeignFolder, stem: str, settings: Mapping[str, Any]) -> QuantizedTensor:
    """weight_packed [N, K bits / 32], weight_scale [N, G], weight_zero_point [N bits / 32, G]."""
    shape = folder.read(f"{stem}.weight_shape", ["I64", "I32"], (2,))
    rows, columns = int(shape[0]), int(shape[1])
    words = folder.read(f"{stem}.weight_packed", ["I32"])
    known = _bits_of_groups(settings)
    fits = [bits for bits in known if words.shape == (rows, -(-columns * bits // 32))]
    if not fits or rows < 1 or columns < 1 or fits[0] not in (2, 3, 4, 5, 6, 8):
        raise _core.FormatError(
            f"{folder.path}: {stem}.weight_packed is {list(words.shape)} for [{rows}, {columns}] and {known} bits"
        )
    bits = fits[0]
    scales = folder.read(f"{stem}.weight_scale", _FLOATS)
    if scales.size == 1:
        scales = np.broadcast_to(scales.reshape(1, 1), (rows, 1))
    groups = _groups(folder, f"{stem}.weight_scale", scales, 1, rows, columns, None)
    zeros = np.full((rows, groups), 2 ** (bits - 1), np.uint8)
    if (place := f"{stem}.weight_zero_point") in folder.names():
        packed = folder.read(place, ["I32"], (-(-rows * bits // 32), groups))
        zeros = _unpacked(np.ascontiguousarray(packed.T), bits, rows).T
    place = f"{stem}.weight_g_idx"
    index = folder.read(place, ["I32"], (columns,)) if place in folder.names() else None
    return _matrix(folder, stem, _unpacked(words, bits, columns), scales, zeros, bits, index)


def _bits_of_groups(settings: Mapping[str, Any]) -> list[int]:
    """Of the schemes with integers. Raises FormatError."""
    try:
        schemes = [one.get("weights") or {} for one in (settings.get("config_groups") or {}).values()]
        found = {one["num_bits"] for one in schemes if one.get("type", "int") == "int" and "num_bits" in one}
        return sorted(int(bits) for bits in found)
    except (AttributeError, TypeError, ValueError):
        raise _core.FormatError("config_groups of compressed-tensors are not objects with weights") from None


def _groups(
    folder: ForeignFolder, name: str, scales: NDArray[Any], axis: int, rows: int, columns: int, size: Any
) -> int:
    """How many groups a row has. size: what the settings say of a group, -1 being a row."""
    shape = scales.shape
    if size is not None and not (isinstance(size, int) and (size > 0 or size == -1)):
        raise _core.FormatError(f"{folder.path}: a group of {size!r} columns")
    needed = 0 if size is None else 1 if size == -1 else -(-columns // size)
    if len(shape) != 2 or shape[1 - axis] != rows or not shape[axis] or (needed and shape[axis] != needed):
        wanted = [needed or "groups", rows]
        raise _core.FormatError(f"{folder.path}: {name} is {list(shape)}, {wanted[:: 1 - 2 * axis]} is needed")
    return int(shape[axis])


def _unpacked(words: NDArray[np.int32], bits: int, count: int) -> Codes:
    """Words [R, W] of which each row is a string of bits, lowest first, to uint8 [R, count]."""
    fmt = IntGroup(bits=bits, group="channel")
    packed = np.ascontiguousarray(words.view(np.uint8)[:, : -(-count * bits // 8)])
    if count * bits % 8:
        packed[:, -1] &= np.uint8((1 << count * bits % 8) - 1)
    codes: Codes = fmt.symbols({"codes": packed}, (len(words), count))["codes"]
    return codes


def _awq_codes(words: NDArray[np.int32]) -> Codes:
    """[R, W] to [R, 8 W]."""
    found = np.empty((*words.shape, 8), np.uint8)
    for place, column in enumerate(_AWQ_COLUMNS):
        found[..., column] = words >> 4 * place & 15
    return found.reshape(len(words), -1)


def _matrix(
    folder: ForeignFolder, stem: str, codes: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any], bits: int,
    index: NDArray[Any] | None,
) -> QuantizedTensor:  # fmt: skip
    """codes [N, K]; scales, zeros [N, G]; index [K]: the group of each column."""
    rows, columns = codes.shape
    groups = scales.shape[1]
    order = None
    if index is not None and not 0 <= int(index.min()) <= int(index.max()) < groups:
        raise _core.FormatError(f"{folder.path}: {stem}.g_idx has {index.min()}..{index.max()} for {groups} groups")
    size = -(-columns // groups) if index is None else int(np.bincount(index).max())
    if groups > 1 and size not in (16, 32, 64, 128, 256):
        known = "16, 32, 64, 128, 256 or all are known"
        raise _core.FormatError(f"{folder.path}: {stem} has groups of {size} columns: {known}")
    if index is not None and groups > 1:
        wanted = np.arange(columns) // size
        order = np.argsort(index, kind="stable")
        if not np.array_equal(index[order], wanted):
            raise _core.FormatError(f"{folder.path}: {stem}.g_idx does not put {size} columns into each group")
        order = None if np.array_equal(index, wanted) else order
    symmetric = bool((zeros == 2 ** (bits - 1)).all())
    fmt = IntGroup(
        bits=bits, group=size if groups > 1 else "channel", mode="symmetric" if symmetric else "zero",
        scale=_SCALES[scales.dtype.name], activations="exact",
    )  # fmt: skip
    stored = np.ascontiguousarray(codes if order is None else codes[:, order])
    parts = {"codes": stored, "scales": np.ascontiguousarray(scales)}
    if not symmetric:
        parts["zeros"] = np.ascontiguousarray(zeros)
    try:
        return QuantizedTensor(
            format=fmt,
            shape=(rows, columns),
            dtype={"fp16": "F16", "bf16": "BF16", "fp32": "F32"}[fmt.scale],
            parts=fmt.packed(parts, (rows, columns)),
            transforms=() if order is None else (Permutation(order),),
        )
    except _core.FormatError as error:
        raise _core.FormatError(f"{folder.path}: {stem}: {error}") from None
