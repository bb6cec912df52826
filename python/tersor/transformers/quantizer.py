"""tersor as a quantization method of transformers: folders of docs/model_folder.md by its own from_pretrained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

import tersor.torch
from tersor import FormatError
from tersor.formats.files import VERSION, tensor_of_row
from tersor.formats.model_folder import METHOD, array_names, marked, places_of, rows_of_config, stem
from tersor.formats.quantized import QuantizedTensor
from tersor.formats.safetensors_file import Reader
from tersor.nn.experts import PARAMETERS, QuantExperts
from tersor.nn.quantized import PackedWeight, QuantEmbedding, QuantLinear, array_of_tensor

_MARK = torch.zeros(0, dtype=torch.uint8)


@register_quantization_config(METHOD)
class TersorConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """quantization_config of a folder's config.json: docs/model_folder.md."""

    def __init__(self, layers: Mapping[str, Any] | None = None, version: int = VERSION, **notes: Any) -> None:
        """notes: what stands beside the rows, kept as it is. Raises FormatError."""
        notes.pop("quant_method", None)
        self.quant_method = METHOD
        self.version = version
        self.layers = dict(layers or {})
        self.notes = notes
        rows_of_config({"quantization_config": self.to_dict()}, "config.json")

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {"quant_method": METHOD, "version": self.version, **self.notes, "layers": self.layers}


@register_quantizer(METHOD)
class TersorQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts layers of tersor.nn in the place of a model's own."""

    requires_calibration = True  # tersor quantize makes the folder; nothing is quantized while a model is loaded

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Raise ValueError for another device than the CPU."""
        devices = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
        if any(str(device) not in ("None", "cpu", "auto") for device in devices):
            raise ValueError(f"low-bit layers run on the CPU, the device map asks for {sorted(map(str, devices))}")

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if device_map == "auto" else device_map

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        return False

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Iterable[str] | None = None, **kwargs: Any
    ) -> Any:
        """Layers whose rows are there wait for their arrays, which transformers loads as it loads any."""
        shapes: dict[str, Any] = {}
        for file in checkpoint_files or ():
            with Reader(file) as reader:
                shapes |= reader.shapes
        rows = self.quantization_config.layers
        if not shapes:
            raise ValueError("a model in few bits is loaded from its folder, without state_dict")
        if missing := sorted(array_names(rows) - shapes.keys()):
            raise FormatError(f"{len(missing)} arrays of quantized matrices are missing, {missing[0]!r} the first")
        for path, own in _by_module(rows).items():
            _replace(model, path, _Waiting(_module(model, path), path, own, rows, shapes))
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        made: dict[str, Any] = {}
        ties: list[tuple[str, _Waiting, str]] = []
        for path, waiting in [*model.named_modules()]:
            if not isinstance(waiting, _Waiting):
                continue
            if waiting.tied_to:
                ties.append((path, waiting, waiting.tied_to))
                continue
            made[path] = waiting.packed()
            _replace(model, path, made[path])
        for path, waiting, target in ties:
            _replace(model, path, waiting.tied(made[stem(target)].packed_weight))
        for name, parameter in model.named_parameters():
            if parameter.is_meta:
                raise FormatError(f"{name} is in no file")
        return model

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """What save_pretrained writes: a matrix that several layers share once, and the marks."""
        state = dict(model.state_dict())
        rows = self.quantization_config.layers
        for path, module in model.named_modules():  # what was set since they were loaded
            if isinstance(module, QuantLinear):
                for name in (f"{path}.weight", path):
                    if name in rows and not rows[name].get("tied_to"):
                        rows[name] = {**rows[name], "activations": module.activations}
        for name, row in rows.items():
            if row.get("tied_to"):
                for key in [key for key in state if key.startswith(stem(name) + ".") and not key.endswith(".bias")]:
                    del state[key]
            else:
                state[marked(name, row["module"])] = _MARK.clone()
        return state, {}  # no rows in the files: shards may part a matrix, and config.json has them all

    @property
    def is_compileable(self) -> bool:
        return True

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True  # adapters are; the matrices are frozen


class _Waiting(torch.nn.Module):  # type: ignore[misc]
    """A layer's arrays by the names that the file has, while they are loaded; `layer` is what it stands for."""

    def __init__(
        self,
        layer: torch.nn.Module,
        path: str,
        rows: Mapping[str, Mapping[str, Any]],
        all_rows: Mapping[str, Mapping[str, Any]],
        shapes: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.rows, self.path = dict(rows), path
        self.tied_to = next((str(row["tied_to"]) for row in rows.values() if row.get("tied_to")), "")
        object.__setattr__(self, "layer", layer)  # no child: its parameter is not in the file
        for name, row in rows.items():
            _require_fit(layer, name, row, all_rows[row["tied_to"]] if row.get("tied_to") else row)
            for place in places_of(row):
                dtype, shape = shapes[place]
                self._register(place.removeprefix(f"{path}."), tersor.torch._DTYPES[dtype], shape)
            if not row.get("tied_to"):
                self._register(marked(name, row["module"]).removeprefix(f"{path}."), torch.uint8, (0,))
        if getattr(layer, "bias", None) is not None:
            self.bias = layer.bias

    def _register(self, place: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        *inner, name = place.split(".")
        at: torch.nn.Module = self
        for one in inner:
            if one not in at._modules:
                at.add_module(one, torch.nn.Module())
            at = at._modules[one]
        if name not in at._buffers:
            at.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"))

    def packed(self) -> torch.nn.Module:
        """The layer of tersor.nn; the arrays that were loaded are gone from here."""
        if any(row["module"] == "expert" for row in self.rows.values()):
            _require_all(self.layer, self.path, self.rows)
            tensors: dict[str, list[QuantizedTensor]] = {}
            for name in sorted(self.rows, key=lambda name: int(name.rpartition(".")[2])):
                tensors.setdefault(marked(name, "expert").rpartition(".")[2], []).append(self._tensor(name))
            return QuantExperts.of(self.layer, tensors)
        (name,) = self.rows
        return self.tied(PackedWeight(self._tensor(name)))

    def tied(self, held: PackedWeight) -> torch.nn.Module:
        """The layer over a matrix that another has packed."""
        if isinstance(self.layer, torch.nn.Embedding):
            return QuantEmbedding(held, padding_idx=self.layer.padding_idx, dtype=self.layer.weight.dtype)
        return QuantLinear(held, getattr(self, "bias", None))

    def _tensor(self, name: str) -> QuantizedTensor:
        row = self.rows[name]
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for place in places_of(row):
            *inner, last = place.removeprefix(f"{self.path}.").split(".")
            module = self.get_submodule(".".join(inner))
            arrays[place] = array_of_tensor(module._buffers.pop(last))
        try:
            return tensor_of_row(row, arrays)[0]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise FormatError(f"{name}: {error}") from None


def _by_module(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Module -> its rows: one, or those of every expert."""
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        path = marked(name, "expert").rpartition(".")[0] if row["module"] == "expert" else stem(name)
        found.setdefault(path, {})[name] = row
    return found


def _require_fit(layer: torch.nn.Module, name: str, row: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise FormatError unless the model's parameter is of the shape of `given`: the row, or what it is tied to."""
    parameter = getattr(layer, marked(name, row["module"]).rpartition(".")[2], None)
    shape = None if parameter is None else tuple(parameter.shape)
    if shape is not None and row["module"] == "expert":
        shape = shape[1:]
    if shape is not None and row["module"] == "conv1d":
        shape = shape[::-1]
    if shape != tuple(given["shape"]):
        raise FormatError(f"{name} is {list(given['shape'])} in the file, the model has {list(shape or ())}")


def _require_all(layer: torch.nn.Module, path: str, rows: Mapping[str, Any]) -> None:
    """Raise FormatError unless every expert has both matrices."""
    wanted = {f"{path}.{name}.{i}" for name in PARAMETERS for i in range(int(layer.num_experts))}
    if rows.keys() != wanted:
        told = sorted(rows.keys() ^ wanted)[0]
        raise FormatError(
            f"{path}: all matrices of its experts are needed and no others, {told} is not as it should be"
        )


def _module(model: torch.nn.Module, path: str) -> torch.nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise FormatError(f"the folder has a quantized matrix of {path!r}, which the model has not") from None


def _replace(model: torch.nn.Module, path: str, module: torch.nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module.train(model.training)


def folder_is_quantized(folder: Path) -> bool:
    """Whether config.json names this method."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    except (OSError, ValueError, AttributeError):
        return False
    return isinstance(found, dict) and found.get("quant_method") == METHOD
