"""Model folders as GGUF files. Page: docs/exchange.md.

export_gguf("MODEL", "model-Q4_0.gguf", "q4_0")
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.compat.exchanged import Exchanged
from tersor.compat.gguf_architecture import (
    ROPE_FACTORS,
    Architecture,
    dropped_window,
    metadata_of,
    of_config,
    rope_factors,
)  # fmt: skip
from tersor.compat.gguf_file import GGUFFile
from tersor.compat.gguf_tokenizer import tokenizer_metadata
from tersor.formats import gguf_blocks, safetensors_file
from tersor.formats.format import parse
from tersor.formats.model_folder import ModelFolder
from tersor.formats.quantized import QuantizedTensor, quantize
from tersor.weights.least_squares import LeastSquares

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("q4_0", "q8_0", "q4_k")  # of a whole file

_FILE_TYPES = {"q4_0": 2, "q8_0": 7, "q4_k": 14}  # llama.cpp's numbers of such files
_BLOCK = {"Q4_0": 32, "Q8_0": 32, "Q4_K": 256}
_HEAD, _EMBEDDING = "output.weight", "token_embd.weight"
_FLOATS = {"F32": np.float32, "F16": np.float16}
_SIZES = {"F32": 4, "F16": 2, "Q4_0": 18 / 32, "Q4_1": 20 / 32, "Q8_0": 34 / 32, "Q4_K": 144 / 256}


@dataclass(frozen=True)
class _Plan:
    """A tensor of the file: its parameter, its type, and whether the folder has it in that type."""

    parameter: str
    kind: str
    copied: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape) * _SIZES[self.kind])


def export_gguf(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    kind: str,
    *,
    importance: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exchanged:
    """Write a model's folder, quantized or not, as a GGUF file with metadata and tokenizer.

    kind: one of KINDS. Matrices that the folder has in q4_0, q4_1, q8_0 or q4_k are copied bit for bit; others are
    dequantized and rounded, the one behind the logits to Q8_0; where a row is no whole number of blocks, Q8_0 or F16
    steps in and a note says so. Vectors are F32. importance: parameter -> [K], the mean square of each input, from
    which scales follow by LeastSquares; without it they have the least squared error of the weights. Needs the package
    gguf.
    Raises ValueError (an architecture, a tokenizer or a kind that is not known), FormatError, OSError.
    """
    if kind not in KINDS:
        raise ValueError(f"GGUF files are of {', '.join(KINDS)}, not {kind!r}")
    import gguf

    target = Path(out)
    with ModelFolder(model) as folder:
        architecture = of_config(folder.config)
        numbers = metadata_of(architecture, folder.config)
        found = Exchanged()
        if (window := dropped_window(architecture, folder.config)) is not None:
            found.notes.append(
                f"the sliding window of {window} tokens is left out: llama.cpp's {architecture.name} has none"
            )
        plans = _plans(folder, architecture, kind, found.notes)
        words = tokenizer_metadata(folder.path, folder.config, found.notes)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        writer = gguf.GGUFWriter(beside, architecture.name)
        try:
            _add_metadata(writer, {**_general(folder, kind), **_behind(architecture, numbers), **words})
            factors = rope_factors(folder.config)
            if factors is not None:
                writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
            for name, plan in plans.items():
                raw = None if plan.kind in _FLOATS else gguf.GGMLQuantizationType[plan.kind]
                dtype: Any = np.dtype(_FLOATS.get(plan.kind, np.uint8))
                shape = plan.shape if raw is None else gguf.quant_shape_to_byte_shape(plan.shape, raw)
                writer.add_tensor_info(name, shape, dtype, plan.nbytes, raw_dtype=raw)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if factors is not None:
                writer.write_tensor_data(factors)
            done, total = 0, sum(plan.nbytes for plan in plans.values())
            for name, plan in plans.items():
                writer.write_tensor_data(_data(folder, architecture, name, plan, importance or {}))
                found.tensors[name] = plan.kind + (" (copied)" if plan.copied else "")
                done += plan.nbytes
                if progress:
                    progress(done, total)
            writer.close()
            os.replace(beside, target)
        except BaseException:
            writer.close()
            beside.unlink(missing_ok=True)
            raise
    rounded = sum(1 for plan in plans.values() if not plan.copied and plan.parameter in folder.rows)
    if rounded:
        found.notes.append(f"{rounded} quantized matrices were dequantized and rounded anew: GGUF does not hold them")
    return dataclasses.replace(found, nbytes=target.stat().st_size)


def read_importance(path: str | os.PathLike[str], model: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Importance by parameter: of a .safetensors file with one vector each, or of llama.cpp's imatrix in GGUF.

    Raises FormatError, ValueError (a vector that no matrix has columns for; none at all), OSError.
    """
    with ModelFolder(model) as folder:
        architecture = of_config(folder.config)
        columns = {name: folder.shape(name)[-1] for name in folder.names() if len(folder.shape(name)) == 2}
    if Path(path).suffix == ".gguf":
        found = _imatrix(path, architecture)
    else:
        arrays, _ = safetensors_file.read(path)
        found = {name: array.astype(np.float32) for name, array in arrays.items()}
    if not found:
        raise ValueError(f"{path} has no importance (in_sum2, counts) for a {architecture.name}")
    for name, array in found.items():
        if array.shape != (columns.get(name),):
            needed = f"[{columns[name]}] is needed" if name in columns else "the model has no such matrix"
            raise ValueError(f"{path}: {name} is {list(array.shape)}, {needed}")
    return found


def _imatrix(path: str | os.PathLike[str], architecture: Architecture) -> dict[str, NDArray[Any]]:
    """Of llama.cpp's file: sums of squares, and of how many tokens."""
    found = {}
    with GGUFFile(path) as file:
        for name, info in file.tensors.items():
            stem, _, what = name.rpartition(".")
            parameter = architecture.to_transformers(stem)
            counted = file.tensors.get(f"{stem}.counts")
            if what != "in_sum2" or not parameter or counted is None:
                continue
            if info.kind != "F32" or counted.kind != "F32" or np.prod(counted.shape) != 1:
                raise _core.FormatError(
                    f"{file.path}: {name} is {info.kind}, its counts {counted.kind} {list(counted.shape)}: "
                    "F32 and one number are needed"
                )
            sums, counts = (file.read(one).view(np.float32) for one in (name, f"{stem}.counts"))
            found[parameter] = sums.reshape(-1) / max(float(counts[0, 0]), 1)
    return found


def _plans(folder: ModelFolder, architecture: Architecture, kind: str, notes: list[str]) -> dict[str, _Plan]:
    # The rows say it where config.json does not: transformers ties no packed matrices.
    tied = bool(folder.config.get("tie_word_embeddings") or folder.rows.get("lm_head.weight", {}).get("tied_to"))
    found: dict[str, _Plan] = {}
    for parameter in folder.names():
        name = architecture.to_gguf(parameter)
        if name is None:
            raise ValueError(f"a {architecture.name} of llama.cpp has no place for {parameter}")
        if tied and name == _HEAD:
            continue
        shape = folder.shape(parameter)
        if len(shape) != 2:
            found[name] = _Plan(parameter, "F32", False, shape)
            continue
        stored = _stored_kind(folder, parameter)
        wanted = "Q8_0" if name == _HEAD or (tied and name == _EMBEDDING) else kind.upper()
        chosen = stored or _fitting(wanted, shape[1])
        if not stored and chosen != wanted:
            notes.append(f"{name} is {chosen}: its rows of {shape[1]} are no multiple of {_BLOCK[wanted]}")
        found[name] = _Plan(parameter, chosen, stored is not None, shape)
    every = (
        stem.format(number) + ".weight"
        for stem in architecture.tensors
        for number in range(folder.config["num_hidden_layers"] if "{}" in stem else 1)
        if not (tied and stem == "output")
    )
    if missing := next((name for name in every if name not in found), None):
        raise ValueError(f"{folder.path} has no {architecture.to_transformers(missing)}")
    if found[_EMBEDDING].shape[0] != folder.config["vocab_size"]:
        told = f"vocab_size is {folder.config['vocab_size']}"
        raise ValueError(f"{told}, the embedding has {found[_EMBEDDING].shape[0]} rows")
    return dict(sorted(found.items(), key=lambda item: item[0] != _EMBEDDING))


def _stored_kind(folder: ModelFolder, parameter: str) -> str | None:
    """The GGUF type of what the folder has, none where it must be rounded."""
    row = folder.rows.get(parameter, {})
    row = folder.rows[row["tied_to"]] if row.get("tied_to") else row
    if not row or row["transforms"] or row["side_terms"]:
        return None
    tensor = folder.get(parameter)
    assert isinstance(tensor, QuantizedTensor)
    try:
        stored = gguf_blocks.kind_of(tensor)
    except ValueError:
        return None
    return stored if tensor.shape[1] % _BLOCK.get(stored, 32) == 0 else None


def _fitting(wanted: str, columns: int) -> str:
    for kind in (wanted, "Q8_0"):
        if columns % _BLOCK[kind] == 0:
            return kind
    return "F16"


def _data(
    folder: ModelFolder, architecture: Architecture, name: str, plan: _Plan, importance: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    tensor = folder.get(plan.parameter)
    order = architecture.rows_in_file(name, plan.shape[0], folder.config)
    if plan.copied:
        assert isinstance(tensor, QuantizedTensor)
        blocks: NDArray[Any] = gguf_blocks.to_blocks(tensor)
    else:
        values = tensor.dequantize(np.float32) if isinstance(tensor, QuantizedTensor) else tensor.astype(np.float32)
        if architecture.is_norm(name):
            values = values + np.float32(1)
        if plan.kind in _FLOATS:
            blocks = _floats(values, plan.kind, plan.parameter)
        else:
            blocks = _rounded(values, plan.kind, importance.get(plan.parameter), plan.parameter)
    return np.ascontiguousarray(blocks if order is None else blocks[order])


def _floats(values: NDArray[np.float32], kind: str, parameter: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = values.astype(_FLOATS[kind])
    if not np.isfinite(found).all():
        raise ValueError(f"{parameter} has numbers that {kind} does not hold")
    return found


def _rounded(
    values: NDArray[np.float32], kind: str, importance: NDArray[Any] | None, parameter: str
) -> NDArray[np.uint8]:
    try:
        if kind == "Q8_0":
            return gguf_blocks.to_blocks(_eight_bits(values))
        if importance is None:
            return gguf_blocks.to_blocks(quantize(values, kind.lower(), clip="mse"))
        return gguf_blocks.to_blocks(LeastSquares().fit(values, kind.lower(), importance))
    except ValueError as error:
        raise ValueError(f"{parameter}: {error}") from None


def _eight_bits(values: NDArray[np.float32]) -> QuantizedTensor:
    """Codes -127 to 127: kernels that take the absolute value of a code in eight bits have no room for -128."""
    if not np.isfinite(values).all():
        raise ValueError("the weights are not finite")
    groups = values.reshape(len(values), -1, 32)
    scales = (np.abs(groups).max(axis=-1) / np.float32(127)).astype(np.float16)
    wide = scales.astype(np.float32)[..., None]
    levels = np.clip(np.rint(groups / np.where(wide == 0, np.float32(1), wide)), -127, 127)
    codes = np.where(wide == 0, np.float32(128), levels + 128).astype(np.uint8).reshape(values.shape)
    shape = (values.shape[0], values.shape[1])
    return QuantizedTensor(format=parse("q8_0"), shape=shape, parts={"codes": codes, "scales": scales})


def _general(folder: ModelFolder, kind: str) -> dict[str, Any]:
    name = folder.config.get("_name_or_path") or folder.path.resolve().name
    return {
        "general.type": "model",
        "general.name": str(name),
        "general.file_type": _FILE_TYPES[kind],
        "general.quantization_version": 2,
    }


def _behind(architecture: Architecture, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{architecture.name}.{key}": value for key, value in numbers.items()}


def _add_metadata(writer: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
