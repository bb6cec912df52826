"""Model folders as compressed-tensors' pack-quantized integers. Page: docs/exchange.md.

export_packed("MODEL", "OUT")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.compat.exchanged import Exchanged, Parts, copy_companions, finished, writing
from tersor.formats.int_group import IntGroup
from tersor.formats.model_folder import Entry, ModelFolder
from tersor.formats.quantized import QuantizedTensor, quantize
from tersor.lossless import NUMPY_DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUPS = (128, 64, 32)
_DTYPES = {"bfloat16": ("BF16", "bf16"), "float16": ("F16", "fp16"), "float32": ("F32", "fp32")}
_EMBEDDINGS = ("embed", "wte", "wpe", "shared", "relative_attention_bias")  # how the last parts of their names read

_Scheme = tuple[int, "int | None", bool]  # bits, columns of a group (None: all of a row), symmetric


def export_packed(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bits: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Exchanged:
    """Write a model's folder, quantized or not, as compressed-tensors' format "pack-quantized".

    Matrices of linear layers that the folder has in int_group of 2 to 8 bits, symmetric or with zeros, in groups or
    rows, are the same bits there. Others are dequantized and rounded to `bits` (4: groups of 128, 8: rows), symmetric,
    with scales in the model's dtype; a note says so of quantized ones. Embeddings and the layer behind the logits stay
    floats unless the folder has the latter quantized. progress: called with (parameters done, parameters in all).
    Raises ValueError (bits; experts; a matrix that linear layers share; no linear layer at all; a dtype that scales do
    not have), FormatError, OSError.
    """
    if bits not in (4, 8):
        raise ValueError(f"bits are 4 or 8, not {bits}")
    found, schemes, dense = Exchanged(), dict[_Scheme, list[str]](), list[str]()
    with ModelFolder(model) as folder, writing(Path(out)) as writer:
        parts = Parts(writer)
        told = str(folder.config.get("dtype") or folder.config.get("torch_dtype") or "float32")
        if told not in _DTYPES:
            raise ValueError(f"the model's dtype is {told}, {', '.join(_DTYPES)} are known")
        dtype, scale = _DTYPES[told]
        names = folder.names()
        for i, name in enumerate(names):
            row, stem = folder.rows.get(name, {}), name.removesuffix(".weight")
            tied = row.get("tied_to")
            if row.get("module") == "expert" or (len(folder.shape(name)) == 3 and ".experts." in name):
                raise ValueError(f"{name} is of experts: export of mixtures is not known")
            if tied and _is_packed(folder, tied, folder.rows[tied]):
                raise ValueError(f"{name} has the matrix of {tied}, and packed layers share none")
            if tied:
                dense.append(stem)
            elif _is_packed(folder, name, row):
                tensor = _integers(name, folder.get(name), bits, scale, found.notes)
                for part, array in _arrays(tensor).items():
                    parts.add(f"{stem}.{part}", Entry(tensor=array))
                schemes.setdefault(_scheme(tensor), []).append(stem)
                found.tensors[name] = str(tensor.format)
            else:
                if len(folder.shape(name)) == 2 and _is_linear(name):
                    dense.append(stem)
                parts.add(name, Entry(tensor=_plain(name, folder.get(name), row, dtype, found.notes)))
                found.tensors[name] = dtype if row else "as it is"
            if progress:
                progress(i + 1, len(names))
        if not schemes:
            raise ValueError(f"{folder.path} has no linear layer that can be packed")
        parts.flush()
        config = {key: value for key, value in folder.config.items() if key != "quantization_config"}
        if any(row.get("tied_to") for row in folder.rows.values()):
            config["tie_word_embeddings"] = True  # which rows said: what is a float again, transformers ties
        if config.get("tie_word_embeddings"):
            dense.append("lm_head")
        writer.finish({**config, "quantization_config": _settings(schemes, dense)})
        copy_companions(folder.path, Path(out))
    return finished(found, Path(out))


def _is_linear(name: str) -> bool:
    stem = name.removesuffix(".weight")
    return name.endswith(".weight") and not any(part in stem.rpartition(".")[2] for part in _EMBEDDINGS)


def _is_packed(folder: ModelFolder, name: str, row: Mapping[str, Any]) -> bool:
    if row:
        return bool(row["module"] == "linear")
    of_conv1d = folder.config.get("model_type") == "gpt2"  # whose matrices are transposed
    return len(folder.shape(name)) == 2 and _is_linear(name) and not name.startswith("lm_head") and not of_conv1d


def _integers(name: str, tensor: Any, bits: int, scale: str, notes: list[str]) -> QuantizedTensor:
    """The matrix as integers that the format has, the same object where it is so already."""
    stored = isinstance(tensor, QuantizedTensor)
    if stored and _fits(tensor):
        made: QuantizedTensor = tensor
        return made
    values = tensor.dequantize(np.float32) if stored else tensor
    columns = values.shape[1]
    group: int | str = "channel" if bits == 8 else next((one for one in _GROUPS if columns % one == 0), "channel")
    made = quantize(values, IntGroup(bits=bits, group=group, scale=scale), clip="mse")
    if stored:
        notes.append(f"{name}: {tensor.format} is dequantized and rounded to {made.format}")
    if bits == 4 and group != 128:
        notes.append(f"{name} has groups of {group}: its rows of {columns} are no multiple of 128")
    return made


def _fits(tensor: QuantizedTensor) -> bool:
    fmt = tensor.format
    if not isinstance(fmt, IntGroup) or tensor.transforms or tensor.side_terms or not isinstance(fmt.bits, int):
        return False
    groups = tensor.parts["scales"].shape[1]
    whole = fmt.group == "channel" or (isinstance(fmt.group, int) and (groups == 1 or tensor.shape[1] % fmt.group == 0))
    return fmt.bits > 1 and fmt.mode in ("symmetric", "zero") and fmt.scale in ("fp16", "bf16", "fp32") and whole


def _scheme(tensor: QuantizedTensor) -> _Scheme:
    fmt = tensor.format
    assert isinstance(fmt, IntGroup)
    assert isinstance(fmt.bits, int)
    many = isinstance(fmt.group, int) and tensor.parts["scales"].shape[1] > 1
    return fmt.bits, fmt.group if many and isinstance(fmt.group, int) else None, fmt.mode == "symmetric"


def _arrays(tensor: QuantizedTensor) -> dict[str, NDArray[Any]]:
    bits, _, symmetric = _scheme(tensor)
    found: dict[str, NDArray[Any]] = {
        "weight_packed": _words(tensor.parts["codes"]),
        "weight_scale": tensor.parts["scales"],
        "weight_shape": np.array(tensor.shape, np.int64),
    }
    if not symmetric:
        zeros = np.ascontiguousarray(tensor.parts["zeros"].T)
        fmt = IntGroup(bits=bits, group="channel")
        packed = fmt.packed({"codes": zeros}, (zeros.shape[0], zeros.shape[1]))["codes"]
        found["weight_zero_point"] = np.ascontiguousarray(_words(packed).T)
    return found


def _words(rows: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Strings of bits [R, bytes], whole words of them."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).view(np.int32)


def _plain(name: str, tensor: Any, row: Mapping[str, Any], dtype: str, notes: list[str]) -> NDArray[Any]:
    if not isinstance(tensor, QuantizedTensor):
        array: NDArray[Any] = tensor
        return array
    notes.append(f"{name}: {tensor.format} is dequantized to {dtype}: only linear layers are packed")
    values = tensor.dequantize(NUMPY_DTYPES[dtype])
    return np.ascontiguousarray(values.T) if row["module"] == "conv1d" else values


def _settings(schemes: Mapping[_Scheme, list[str]], dense: list[str]) -> dict[str, Any]:
    """quantization_config: layers by their names, those of the scheme that most have as "Linear", which comes last."""
    order = sorted(schemes, key=lambda one: (len(schemes[one]), str(one)))
    groups: dict[str, Any] = {}
    for i, (bits, group, symmetric) in enumerate(order):
        groups[f"group_{i}"] = {
            "targets": ["Linear"] if i == len(order) - 1 else sorted(schemes[order[i]]),
            "weights": {
                "num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False,
                "strategy": "group" if group else "channel", "group_size": group,
            },
            "input_activations": None,
            "output_activations": None,
            "format": "pack-quantized",
        }  # fmt: skip
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted(set(dense)),
    }
