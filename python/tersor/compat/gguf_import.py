"""GGUF files as model folders, their matrices as they are. Page: docs/exchange.md.

import_gguf("model-Q4_K_M.gguf", "OUT")
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tersor import _core
from tersor.compat.exchanged import Exchanged, finished, json_of, writing
from tersor.compat.gguf_architecture import ROPE_FACTORS, Architecture, block_number, config_of, of_file
from tersor.compat.gguf_file import GGUFFile
from tersor.compat.gguf_tokenizer import SMOLLM_SPLIT, SPECIAL_TOKENS
from tersor.formats import gguf_blocks
from tersor.formats.model_folder import Entry, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_IGNORED = ("rope_freqs.weight",)  # it becomes a number of the configuration
_LAST_IDS = ("eos_token_id", "eot_token_id", "eom_token_id")


def import_gguf(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Exchanged:
    """Write a GGUF file as a folder of transformers, with the tokenizer that it carries.

    Matrices of gguf_blocks.KINDS keep their codes and scales, rows of queries and keys in transformers' order; F32, F16
    and BF16 stay what they are; other types are dequantized to F32, and a note says so. progress: called with (bytes
    done, bytes in all). Needs the packages gguf and, for a tokenizer, transformers.
    Raises FormatError (a damaged file, an unknown architecture, a tensor that it has not: which), OSError.
    """
    target = Path(out)
    with GGUFFile(source) as file:
        architecture = of_file(file.metadata)
        factors = _factors(file)
        shapes = {name: info.shape for name, info in file.tensors.items()}
        config = config_of(architecture, file.metadata, shapes, factors)
        _check_names(file, architecture, config)
        found = Exchanged()
        total, done = sum(info.nbytes for info in file.tensors.values()), 0
        with writing(target) as writer:
            for number in range(-1, config["num_hidden_layers"]):
                entries = {}
                for name, info in file.tensors.items():
                    if name in _IGNORED or block_number(name) != number:
                        continue
                    parameter = architecture.to_transformers(name)
                    assert parameter is not None  # _check_names
                    module = "embedding" if parameter == _EMBEDDING else "linear"
                    entry = Entry(tensor=_tensor(file, name, architecture, config, found.notes), module=module)
                    entries[parameter] = entry
                    found.tensors[parameter] = str(getattr(entry.tensor, "format", info.kind))
                    done += info.nbytes
                    if progress:
                        progress(done, total)
                embedding = entries.get(_EMBEDDING)
                if embedding and config["tie_word_embeddings"] and not isinstance(embedding.tensor, np.ndarray):
                    entries[_HEAD] = Entry(tensor=None, module="linear", tied_to=_EMBEDDING)
                    config["tie_word_embeddings"] = False  # the row says it, and transformers ties no packed matrices
                writer.write_part(number + 1, entries)
            writer.finish(config)
            _write_generation(file, target)
            _write_tokenizer(file, target, found.notes)
    return finished(found, target)


def _check_names(file: GGUFFile, architecture: Architecture, config: dict[str, Any]) -> None:
    layers = config["num_hidden_layers"]
    for name, info in file.tensors.items():
        known = name in _IGNORED or architecture.to_transformers(name) is not None
        if not known or not -1 <= block_number(name) < layers:
            raise _core.FormatError(
                f"{file.path}: tensor {name} ({info.kind}) has no place in a {architecture.name} of {layers} blocks"
            )
        dims = 1 if name.endswith(("norm.weight", ".bias")) or name in _IGNORED else 2
        if len(info.shape) != dims:
            what = "a vector" if dims == 1 else "a matrix"
            raise _core.FormatError(f"{file.path}: tensor {name} is {list(info.shape)}, {what} is needed")
        if dims == 1 and info.kind not in _PLAIN:
            raise _core.FormatError(f"{file.path}: tensor {name} is {info.kind}, a vector of floats is needed")
        if info.kind not in (*_PLAIN, *gguf_blocks.KINDS) and not _can_dequantize(info.kind):
            raise _core.FormatError(f"{file.path}: tensor {name} is {info.kind}, which is not known here")
    for stem in architecture.tensors:
        for number in range(layers) if "{}" in stem else [0]:
            name = stem.format(number) + ".weight"
            if name not in file.tensors and name != "output.weight":
                raise _core.FormatError(f"{file.path} has no tensor {name}")


def _can_dequantize(kind: str) -> bool:
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    try:
        weights, nbytes = gguf.GGML_QUANT_SIZES[number]
        gguf.quants.dequantize(np.zeros((1, nbytes), np.uint8), number)
    except NotImplementedError:
        return False
    return bool(weights > 1)


def _factors(file: GGUFFile) -> NDArray[np.float32] | None:
    if ROPE_FACTORS not in file.tensors:
        return None
    if file.tensors[ROPE_FACTORS].kind != "F32":
        raise _core.FormatError(f"{file.path}: tensor {ROPE_FACTORS} is {file.tensors[ROPE_FACTORS].kind}, not F32")
    factors: NDArray[np.float32] = file.read(ROPE_FACTORS).view(np.float32)[0]
    return factors


def _tensor(file: GGUFFile, name: str, architecture: Architecture, config: dict[str, Any], notes: list[str]) -> Any:
    info, blocks = file.tensors[name], file.read(name)
    order = architecture.rows_in_file(name, info.shape[0], config)
    if len(info.shape) == 1:
        blocks = blocks.reshape(info.shape[0], -1)
    if order is not None:
        back = np.empty_like(blocks)
        back[order] = blocks
        blocks = back
    if info.kind in _PLAIN:
        array: NDArray[Any] = blocks.view(_PLAIN[info.kind]).reshape(info.shape)
        return array - array.dtype.type(1) if architecture.is_norm(name) else array
    try:
        if info.kind in gguf_blocks.KINDS:
            return gguf_blocks.from_blocks(blocks, info.kind)
    except _core.FormatError as error:
        raise _core.FormatError(f"{file.path}: tensor {name}: {error}") from None
    import gguf

    notes.append(f"{name}: {info.kind} is dequantized to F32")
    values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[info.kind])
    return values.astype(np.float32).reshape(info.shape)


def _write_generation(file: GGUFFile, out: Path) -> None:
    keys = [f"tokenizer.ggml.{key}" for key in _LAST_IDS]
    last = sorted({file.metadata[key] for key in keys if isinstance(file.metadata.get(key), int)})
    ids: dict[str, Any] = {"eos_token_id": last if len(last) > 1 else last[0]} if last else {}
    for ours, key in ("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id"):
        if isinstance(file.metadata.get(f"tokenizer.ggml.{key}"), int):
            ids[ours] = file.metadata[f"tokenizer.ggml.{key}"]
    write_json(out / "generation_config.json", ids)


def _write_tokenizer(file: GGUFFile, out: Path, notes: list[str]) -> None:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        notes.append("the file has no tokenizer")
        return
    try:
        from transformers import AutoTokenizer
    except ImportError:
        notes.append("no tokenizer is written: that needs the package transformers")
        return
    try:
        with tempfile.TemporaryDirectory() as alone:  # what lies beside the file is none of its own
            (Path(alone) / "model.gguf").symlink_to(file.path.resolve())
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
        tokenizer.save_pretrained(str(out))
    except Exception as error:  # whatever a library of that size raises for a vocabulary that it does not know
        notes.append(f"no tokenizer is written: transformers says {error}")
        return
    _correct_tokenizer(file, out)


def _correct_tokenizer(file: GGUFFile, out: Path) -> None:
    """transformers' tokenizers bring tokens of their own, and know few of llama.cpp's ways to split a text."""
    tokens = file.metadata["tokenizer.ggml.tokens"]
    document, settings = json_of(out / "tokenizer.json"), json_of(out / "tokenizer_config.json")
    document["added_tokens"] = [one for one in document.get("added_tokens", ()) if one["id"] < len(tokens)]
    for ours, theirs in SPECIAL_TOKENS:
        number = file.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            settings[f"{ours}_token"] = tokens[number]
        else:
            settings.pop(f"{ours}_token", None)
    if file.metadata.get("tokenizer.ggml.pre") == "smollm":
        document["pre_tokenizer"] = SMOLLM_SPLIT
    write_json(out / "tokenizer.json", document)
    write_json(out / "tokenizer_config.json", settings)
