"""A model's folder to one in few bits: what `tersor quantize` does. Page: docs/quantize.md."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import tersor.torch
from tersor import FormatError
from tersor.evaluate.language import tokens_of
from tersor.formats.model_folder import ModelFolder, ModelWriter, weight_files, write_json
from tersor.nn.allocating import ALLOCATORS, WINDOWS, allocated
from tersor.nn.blocks import blocks_of, layers_of
from tersor.nn.quantized import array_of_tensor
from tersor.nn.quantizing import CHECKED, LayerResult, Loss, Run
from tersor.nn.stages import Source, drop, load
from tersor.transformers.card import card_of
from tersor.transformers.quantizer import folder_is_quantized
from tersor.weights import Recipe

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FOLDERS_BESIDE = ("1_Pooling", "2_Normalize")  # of sentence-transformers
_TOLD, _TOLD_QUANTIZED = 110, 900  # bytes that a file's header takes for an array, and for a matrix in few bits

# What a model's folder has beside its weights and config.json: a file is copied where it is there.
_BESIDE = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "generation_config", "chat_template",
           "preprocessor", "processor", "spiece", "sentencepiece", "modules", "sentence_bert",
           "config_sentence_transformers", "LICENSE")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a model may take: bits a weight of the matrices in few bits, or bytes of its weight files; one of the two.

    allocator: "dp" or "evopress". Raises ValueError.
    """

    bits_per_weight: float | None = None
    size: int | None = None
    allocator: str = "dp"

    def __post_init__(self) -> None:
        if (self.bits_per_weight is None) == (self.size is None):
            raise ValueError("a target is bits a weight or a size: one of the two")
        if self.bits_per_weight is not None and not 1 <= self.bits_per_weight <= 16:
            raise ValueError(f"bits a weight are 1 to 16, not {self.bits_per_weight}")
        if self.allocator not in ALLOCATORS:
            raise ValueError(f"allocators are {', '.join(ALLOCATORS)}, not {self.allocator!r}")


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """What `quantize` made. bytes: of its weight files; bytes_before: of the source's.

    bits_per_weight: of the matrices that are stored in few bits, every byte of theirs counted. predicted: what an
    allocation said that rounding to nearest would cost, as the loss is told; None without one.
    """

    path: str
    bytes: int
    bytes_before: int
    bits_per_weight: float
    loss: Loss | None
    layers: list[LayerResult]
    predicted: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)


def quantize(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    text: str | None = None,
    target: Target | None = None,
    resume: bool = False,
    overwrite: bool = False,
    threads: int = 0,
    progress: Callable[[LayerResult, int, int], None] | None = None,
) -> QuantizedModel:
    """Store a model's matrices in few bits, block after block; the result loads by transformers' from_pretrained.

    folder: of transformers, weights as .safetensors or .tsr. out: a folder that is made; one that is there must be
    empty, unless overwrite. text: for solvers that want to know a layer's inputs, and to measure the loss on windows
    that they do not see. target: bits are chosen for each layer, with the whole model in memory: nn.allocating.
    resume: go on with a run that was cut off, to the same bytes; where none was, begin.
    threads: 0 for get_num_threads(); their number decides no byte.
    Raises FileNotFoundError, FileExistsError, FormatError (damaged weights), ValueError (a text too short; a recipe
    that needs one; a run begun otherwise; an architecture that transformers does not know).
    """
    here, place = Path(folder), Path(out)
    if not (here / "config.json").is_file():
        raise FileNotFoundError(f"{here}: a folder with config.json is needed")
    if threads < 0:
        raise ValueError(f"threads are 0 or more, not {threads}")
    _require_place(place, here, resume, overwrite)
    model, source = _model(here)
    if text is not None and model.config.is_encoder_decoder:
        raise ValueError(f"{folder} is an encoder with a decoder, which no one text feeds: only rtn and hqq serve it")
    windows = _windows(here, text, recipe, model)
    if target is not None and not len(windows):
        raise ValueError("a target needs a calibration text: what an error costs is measured on it")
    run = {
        "source": _fingerprint(here), "calibration": _hash(windows), "recipe": recipe.dump(),
        "target": target and asdict(target), "version of tersor": tersor.__version__,
    }  # fmt: skip
    if overwrite and not resume and place.exists():
        shutil.rmtree(place)
    writer = ModelWriter(place)
    writer.begin(run)
    notes: dict[str, Any] = {}
    try:
        if target is not None:
            recipe, predicted = _allocated(model, source, recipe, windows, target, writer)
            notes = {"target": run["target"], "predicted": predicted}
        results, loss = Run(model, source, windows, recipe, writer, threads=threads, progress=progress).go()
    except BaseException:
        writer.leave()
        raise
    notes |= {
        "recipe": recipe.dump(),
        "calibration": {"windows": len(windows), "length": windows.shape[1], "sha256": run["calibration"]},
        "measured": None if loss is None else asdict(loss),
    }
    found = [result for result in results if result.format]
    made = QuantizedModel(
        path=str(place),
        bytes=0,
        bytes_before=sum(file.stat().st_size for file in _weight_files(here)),
        bits_per_weight=8 * sum(result.bytes for result in found) / sum(_weights(result) for result in found),
        loss=loss,
        layers=results,
        predicted=notes.get("predicted"),
    )

    def counted() -> QuantizedModel:
        return dataclasses.replace(made, bytes=sum(file.stat().st_size for file in weight_files(place)))

    def beside() -> None:
        for name in sorted(os.listdir(here)):
            if name.startswith(_BESIDE) and (here / name).is_file():
                shutil.copyfile(here / name, place / name)
        for name in _FOLDERS_BESIDE:
            if (here / name).is_dir():
                shutil.copytree(here / name, place / name, dirs_exist_ok=True)
        (place / "README.md").write_text(card_of(counted(), recipe, here.name), encoding="utf-8")

    writer.finish(_config(model, source, results), notes, beside=beside)
    return counted()


def _weights(result: LayerResult) -> float:
    return 8 * result.bytes / result.bits_per_weight


def _config(model: Any, source: Source, results: Sequence[LayerResult]) -> dict[str, Any]:
    """config.json of what was made."""
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    config["architectures"] = [type(model).__name__]
    if any(result.tied_to and not result.reason for result in results):
        config["tie_word_embeddings"] = False  # the rows say it, and transformers ties no packed matrices
    # transformers takes the dtype of the first floats of a file for the model's, and those are scales.
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if (dtype := source.dtype(name)) in _DTYPES:
            counts[dtype] = counts.get(dtype, 0) + parameter.numel()
    if counts:
        config["dtype"] = _DTYPES[max(counts, key=lambda dtype: counts[dtype])]
    return config


def _allocated(
    model: Any, source: Source, recipe: Recipe, windows: np.ndarray[Any, Any], target: Target, writer: ModelWriter
) -> tuple[Recipe, float]:
    """The recipe with a rule a layer, and the loss that they were chosen by. On one core, so that threads decide no
    byte; what was measured lies beside the parts, for a run that goes on."""
    points = writer.parts / "points.json"
    load(model, source, source.names())
    blocks = blocks_of(model)
    prefix = f"{blocks[0]}." if blocks else ""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    head = next((path for path, module in model.named_modules() if module is output and output is not None), "")
    if any(layer.module == "expert" and not layer.reason for layer in layers_of(model)):
        raise ValueError("bits are not chosen for experts: leave out --bpw and --target-size")
    layers = [
        layer
        for layer in layers_of(model)
        if layer.module in ("linear", "conv1d") and not layer.reason and layer.name.startswith(prefix)
        and not layer.tied_to and layer.path != head and recipe.for_layer(layer.name) is not None
    ]  # fmt: skip
    weights = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    if target.size is None:
        assert target.bits_per_weight is not None
        budget = int(target.bits_per_weight * weights / 8)
    else:
        own = {layer.name for layer in layers}
        if recipe.embeddings is not None:
            raise ValueError("a size is met with embeddings as they are: leave out --embeddings, or give --bpw")
        rest = sum(source.array(name).nbytes + _TOLD for name in source.names() if name not in own)
        budget = target.size - rest - _TOLD_QUANTIZED * len(layers)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made = allocated(
            model, layers, recipe, [torch.from_numpy(window) for window in windows[:WINDOWS].astype(np.int64)], budget,
            allocator=target.allocator,
            known=json.loads(points.read_text(encoding="utf-8")) if points.exists() else None,
            save=lambda found: write_json(points, found),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
        drop(model)
    return made.recipe, made.predicted


def _require_place(place: Path, here: Path, resume: bool, overwrite: bool) -> None:
    """Raise where the result must not go; nothing is touched."""
    inside, model = place.resolve(), here.resolve()
    if inside == model or inside in model.parents or model in inside.parents:
        raise ValueError(f"{place}: the result must go elsewhere than the model, neither around it nor into it")
    if not place.exists():
        return
    if not place.is_dir():
        raise FileExistsError(f"{place} is there and no folder")
    is_run, is_whole = (place / ".parts").is_dir(), folder_is_quantized(place)
    if not any(place.iterdir()) or (is_run and resume):
        return
    if not is_run and not is_whole:
        raise FileExistsError(f"{place} is there, and nothing that tersor quantize has made: choose another folder")
    if resume:
        raise FileExistsError(f"{place} is whole: nothing is left to resume")
    if not overwrite:
        raise FileExistsError(f"{place} is there: --resume goes on with a run that was cut off, -f begins anew")


def _model(folder: Path) -> tuple[Any, Source]:
    """The model without its weights, and where they are."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{folder} is quantized already; a dense model is needed")
    names = config.architectures or ["none"]
    if not hasattr(transformers, names[0]):
        raise ValueError(f"{folder}: config.json names the class {names[0]}, which transformers does not know")
    found = getattr(transformers, names[0])
    with torch.device("meta"):
        model = found(config).eval()
    _initialize_buffers(model, model)
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        source = _Files(ModelFolder(folder))
        missing = _needed(model) - set(source.names())
        if not missing:
            return model, source
    return model, _Whole(found, folder, _needed(model))


def _initialize_buffers(module: Any, owner: Any) -> None:
    """Compute the buffers that no file has, as transformers does: by the nearest model that a module is part of."""
    owner = module if isinstance(module, transformers.PreTrainedModel) else owner
    for child in module.children():
        _initialize_buffers(child, owner)
    own = [name for name in module._non_persistent_buffers_set if module._buffers.get(name) is not None]
    for name in own:
        buffer = torch.empty_like(module._buffers[name], device="cpu")
        module._buffers[name] = buffer.fill_(torch.nan) if buffer.is_floating_point() else buffer
    if own:
        owner._init_weights(module)
    if any(module._buffers[name].is_floating_point() and module._buffers[name].isnan().any() for name in own):
        raise ValueError(f"{type(module).__name__} has buffers that transformers does not compute: {', '.join(own)}")


def _needed(model: Any) -> set[str]:
    """Parameters and buffers that a file must have: one name of those that share one."""
    return {name for name, _ in model.named_parameters()} | {
        name for name, _ in model.named_buffers() if name in model.state_dict()
    }


class _Files:
    """A folder's files, array by array."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder, self._names = folder, folder.names()

    def names(self) -> Sequence[str]:
        return self._names

    def array(self, name: str) -> np.ndarray[Any, Any]:
        found = self._folder.get(name)
        assert isinstance(found, np.ndarray)
        return found

    def dtype(self, name: str) -> str:
        return self._folder.dtype(name) if name in self._names else ""


class _Whole:
    """A model that transformers has to load: its names or shapes are not those of the file, or it is .tsr."""

    def __init__(self, model_class: Any, folder: Path, needed: set[str]) -> None:
        from tersor.transformers import from_pretrained

        if any(file.suffix == ".tsr" for file in _weight_files(folder)):
            loaded = from_pretrained(folder, model_class)
        else:
            loaded, info = model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
            if missing := sorted(info["missing_keys"]):
                raise FormatError(f"{folder}: {len(missing)} tensors are missing, {missing[0]} the first")
        self._state = {name: tensor for name, tensor in loaded.state_dict().items() if name in needed}

    def names(self) -> Sequence[str]:
        return list(self._state)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = array_of_tensor(self._state[name])
        return found

    def dtype(self, name: str) -> str:
        tensor = self._state.get(name)
        return "" if tensor is None else tersor.torch._NAMES[tensor.dtype]


def _windows(folder: Path, text: str | None, recipe: Recipe, model: Any) -> np.ndarray[Any, Any]:
    """int64 [samples and those that measure the loss, length], drawn by the recipe's seed; none without a text."""
    if text is None:
        return np.zeros((0, recipe.length), np.int64)
    tokens = tokens_of(transformers.AutoTokenizer.from_pretrained(folder), text)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or recipe.length
    length = min(recipe.length, longest)
    count = len(tokens) // length
    if count < 2:
        raise ValueError(f"the calibration text has {len(tokens)} tokens, {2 * length} are needed for two windows")
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(tokens.max()) >= vocabulary:
        raise ValueError(f"the calibration text has token {int(tokens.max())}, the model knows {vocabulary}")
    chosen = np.random.default_rng(recipe.seed).permutation(count)[: recipe.samples + CHECKED]
    found: np.ndarray[Any, Any] = tokens[: count * length].reshape(count, length)[chosen]
    return found


def _weight_files(folder: Path) -> list[Path]:
    """Raises FileNotFoundError."""
    try:
        return weight_files(folder)
    except FileNotFoundError:
        if found := sorted(folder.glob("*.tsr")):
            return found
        raise FileNotFoundError(f"{folder}: weights in .safetensors or .tsr files are needed") from None


def _fingerprint(folder: Path) -> str:
    """Of a model: its configuration, and the names, sizes and times of its files, which are too large to be read."""
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for file in _weight_files(folder):
        facts = file.stat()
        found.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _hash(windows: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(windows, "<i8").tobytes()).hexdigest()
