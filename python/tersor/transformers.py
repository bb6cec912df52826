"""Models of transformers from folders of `.tsr` files. Needs transformers >= 5 and PyTorch >= 2.10.

transformers has no hook for a file format of weights (its quantizers say how a layer computes, not where its bytes
lie), so the weights are decoded first and handed to its own `from_pretrained`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

try:
    import torch
    import transformers
except ImportError as error:
    raise ImportError(
        "tersor.transformers needs PyTorch >= 2.10 and transformers >= 5: pip install 'tersor[transformers]'"
    ) from error

import tersor.torch
from tersor._core import FormatError

__all__ = ["from_pretrained", "load_for_evaluation"]

_WHOLE = ("model.tsr", "model.safetensors.tsr")
_INDEX = ("model.tsr.index.json", "model.safetensors.index.json", "model.safetensors.tsr.index.json")


def from_pretrained(
    folder: str | os.PathLike[str], model_class: Any = None, *, dtype: torch.dtype | str = "auto"
) -> Any:
    """Load a model from a folder with config.json and its weights as .tsr, in evaluation mode, on the CPU.

    folder: holds model.tsr or model.safetensors.tsr, or an index of transformers' with its shards; a shard that the
    index calls X.safetensors may be X.safetensors.tsr or X.tsr. Tokenizers are loaded from there as ever.
    model_class: a class of transformers, an Auto class too; None for the one that config.json names.
    dtype: "auto" for the checkpoint's own, or what transformers' `dtype` takes.
    Returns the model: the same parameters and logits, bit for bit, as from the .safetensors files.
    Raises FileNotFoundError (no weights; a shard), FormatError (damaged; tensors missing), ValueError (no class),
    OSError.
    """
    here = Path(folder)
    config = transformers.AutoConfig.from_pretrained(here)
    found = _class_for(config, model_class, here)
    state = _weights(here)
    model = found.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    if model.can_generate() and (here / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(here)
    model.name_or_path = str(here)
    return model


def load_for_evaluation(folder: str | os.PathLike[str], dtype: torch.dtype | str = torch.float32) -> tuple[Any, Any]:
    """A causal language model in evaluation mode and its tokenizer, from a folder on this machine.

    folder: as `from_pretrained` takes it, or one with .safetensors. dtype: as there; float32, whatever the model is
    stored in, measures the model and not the arithmetic. Raises FileNotFoundError (no folder: transformers
    would look for it on a server), FormatError (tensors missing, which transformers would fill with random numbers),
    and what loading raises.
    """
    here = Path(folder)
    if not here.is_dir():
        raise FileNotFoundError(f"{folder}: a folder with a model is needed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(here)
    if any((here / name).is_file() for name in (*_WHOLE, *_INDEX)) and not any(here.glob("*.safetensors")):
        return from_pretrained(here, dtype=dtype).eval(), tokenizer
    model, info = transformers.AutoModelForCausalLM.from_pretrained(here, dtype=dtype, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise FormatError(f"{folder}: {len(missing)} tensors are missing, {missing[0]} the first")
    return model.eval(), tokenizer


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
