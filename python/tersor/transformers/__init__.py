"""Models of transformers: from folders of `.tsr` files, and in few bits. Needs transformers >= 5 and PyTorch >= 2.10.

With this module imported, transformers' own `from_pretrained` loads what `tersor quantize` wrote: docs/model_folder.md.
It has no hook for a file format of weights (its quantizers say how a layer computes, not where its bytes lie), so those
of `.tsr` files are decoded first and handed to its `from_pretrained`.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

try:
    import torch
    import transformers
except ImportError as error:
    raise ImportError(
        "tersor.transformers needs PyTorch >= 2.10 and transformers >= 5: pip install 'tersor[transformers]'"
    ) from error

import tersor.torch
from tersor._core import FormatError
from tersor.formats.model_folder import rows_of_config, weight_files
from tersor.nn.quantized import read_exactly
from tersor.transformers.quantizer import TersorConfig, TersorQuantizer, folder_is_quantized

__all__ = [
    "ModelFacts",
    "TersorConfig",
    "TersorQuantizer",
    "from_pretrained",
    "load_for_evaluation",
    "load_with_tokenizer",
    "model_facts",
]

_WHOLE = ("model.tsr", "model.safetensors.tsr")
_INDEX = ("model.tsr.index.json", "model.safetensors.index.json", "model.safetensors.tsr.index.json")
_OTHER_WEIGHTS = (*_WHOLE, "model-*.tsr", "pytorch_model.bin", "pytorch_model-*.bin")  # the first that a folder has


def from_pretrained(
    folder: str | os.PathLike[str], model_class: Any = None, *, dtype: torch.dtype | str = "auto"
) -> Any:
    """Load a model from a folder with config.json and its weights as .tsr or in few bits, for evaluation, on the CPU.

    folder: holds model.tsr or model.safetensors.tsr, or an index of transformers' with its shards; a shard that the
    index calls X.safetensors may be X.safetensors.tsr or X.tsr. Tokenizers are loaded from there as ever.
    model_class: a class of transformers, an Auto class too; None for the one that config.json names.
    dtype: "auto" for the checkpoint's own, or what transformers' `dtype` takes.
    Returns the model; one of .tsr files has the same parameters and logits, bit for bit, as from .safetensors files.
    Raises FileNotFoundError (no weights; a shard), FormatError (damaged; tensors missing), ValueError (no class),
    OSError.
    """
    here = Path(folder)
    if folder_is_quantized(here):
        config = transformers.AutoConfig.from_pretrained(here)
        return _class_for(config, model_class, here).from_pretrained(here, dtype=dtype)
    model, _ = _from_tsr(here, model_class, dtype)
    return model


def _from_tsr(here: Path, model_class: Any, dtype: torch.dtype | str) -> tuple[Any, dict[str, Any]]:
    """The model, and what transformers says of its loading."""
    config = transformers.AutoConfig.from_pretrained(here)
    found = _class_for(config, model_class, here)
    state = _weights(here)
    model, info = found.from_pretrained(None, config=config, state_dict=state, dtype=dtype, output_loading_info=True)
    if model.can_generate() and (here / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(here)
    model.name_or_path = str(here)
    return model, info


class ModelFacts(NamedTuple):
    """What a folder's model is, before it is loaded: its class, whether that is a causal language model, the bytes of
    the files with its weights, and how many weights there are, tied ones once."""

    architecture: str
    is_causal: bool
    nbytes: int
    weights: int

    @property
    def bits_per_weight(self) -> float:
        """Of all that the files hold, headers and scales too."""
        return 8 * self.nbytes / self.weights


def model_facts(folder: str | os.PathLike[str]) -> ModelFacts:
    """Read config.json and the files' sizes; no weights are loaded.

    Raises FileNotFoundError (no folder; no weights), FormatError (a damaged index), ValueError (a class that
    transformers lacks), OSError.
    """
    here = _existing(folder)
    config = transformers.AutoConfig.from_pretrained(here)
    found = _class_for(config, None, here)
    files = next((paths for pattern in _OTHER_WEIGHTS if (paths := list(here.glob(pattern)))), None)
    if files is None or any(here.glob("*.safetensors")):
        files = weight_files(here)
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in found(config).parameters())
    rows = rows_of_config(config.to_dict(), str(here)) if folder_is_quantized(here) else {}
    for row in rows.values():  # transformers ties nothing in a model in few bits: its rows do
        if row.get("tied_to"):
            weights -= math.prod(rows[row["tied_to"]]["shape"])
    return ModelFacts(found.__name__, _is_causal(config), sum(path.stat().st_size for path in files), weights)


def load_for_evaluation(folder: str | os.PathLike[str]) -> tuple[Any, Any]:
    """A model in float32, whatever it is stored in, and its tokenizer: what is measured is the model, not arithmetic.

    folder: see load_with_tokenizer, whose errors are raised. Layers in few bits read their inputs exactly, whatever is
    recorded.
    """
    model, tokenizer = load_with_tokenizer(folder, torch.float32)
    read_exactly(model)
    return model, tokenizer


def load_with_tokenizer(folder: str | os.PathLike[str], dtype: torch.dtype | str = "auto") -> tuple[Any, Any]:
    """A model in evaluation mode and its tokenizer, from a folder on this machine.

    folder: as `from_pretrained` takes it, or one with .safetensors. A causal language model comes with its head, any
    other model without, see `model_facts`. dtype: as there.
    Raises FileNotFoundError (no folder: transformers would look for it on a server), FormatError (tensors missing,
    which transformers would fill with random numbers), and what loading raises.
    """
    here = _existing(folder)
    causal = _is_causal(transformers.AutoConfig.from_pretrained(here))
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    tokenizer = transformers.AutoTokenizer.from_pretrained(here)
    if any((here / name).is_file() for name in (*_WHOLE, *_INDEX)) and not any(here.glob("*.safetensors")):
        model, info = _from_tsr(here, auto, dtype)
    else:
        model, info = auto.from_pretrained(here, dtype=dtype, output_loading_info=True)
    # A checkpoint with another head has no pooler, and the states before it are what is measured.
    if missing := sorted(name for name in info["missing_keys"] if causal or not name.startswith("pooler.")):
        raise FormatError(f"{folder}: {len(missing)} tensors are missing, {missing[0]} the first")
    return model.eval(), tokenizer


def _existing(folder: str | os.PathLike[str]) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: a folder with a model is needed")
    return Path(folder)


def _is_causal(config: Any) -> bool:
    """By the class that config.json names: AutoModelForCausalLM would serve an encoder's configuration, too."""
    served = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return any(name in served.values() for name in config.architectures or ())


def _class_for(config: Any, model_class: Any, folder: Path) -> Any:
    if model_class is None:
        names = config.architectures or ["none"]
        if not hasattr(transformers, names[0]):
            raise ValueError(f"{folder}: config.json names the class {names[0]}, which transformers lacks: name one")
        return getattr(transformers, names[0])
    if hasattr(model_class, "from_config"):  # an Auto class: which model it picks, asked without memory for weights
        with torch.device("meta"):
            return type(model_class.from_config(config))
    return model_class


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    for name in _WHOLE:
        if (folder / name).is_file():
            return _loaded(folder / name)
    index = next((folder / name for name in _INDEX if (folder / name).is_file()), None)
    if index is None:
        raise FileNotFoundError(f"{folder} has none of {', '.join(_WHOLE + _INDEX)}")
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{index}: an index with a weight_map is needed: {error!r}") from None
    state: dict[str, torch.Tensor] = {}
    for shard in sorted({str(place) for place in places.values()}):
        state |= _loaded(_shard(folder, shard))
    if missing := sorted(places.keys() - state.keys()):
        raise FormatError(f"{index} names {len(missing)} tensors that no shard holds, {missing[0]!r} the first")
    return state


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file under all their names: save_model keeps the other names of shared ones in the metadata."""
    with tersor.torch.open_file(path) as reader:
        state, others = reader.get_tensors(), reader.metadata() or {}
    return state | {name: state[kept] for name, kept in others.items() if kept in state and name not in state}


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name:  # a name is data: it must not lead out of the folder
        raise FormatError(f"{folder}: the index names the shard {name!r}, a file name is needed")
    names = (name, f"{name}.tsr", f"{name.removesuffix('.safetensors')}.tsr")
    for candidate in names:
        if candidate.endswith(".tsr") and (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder} has no shard {names[1]} and no {names[2]}")
