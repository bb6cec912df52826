"""convert_: a model whose linear and embedding layers are stored in few bits. Page: docs/gemm.md."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tersor.formats import Format, parse, quantize
from tersor.formats.format import ACTIVATIONS
from tersor.nn.quantized import PackedWeight, QuantEmbedding, QuantLinear


@dataclass(frozen=True, kw_only=True)
class ConvertedLayer:
    """What became of a layer."""

    name: str
    format: str  # "" where it stays dense
    nbytes: int  # of the weight as it is stored now; 0 where it is another layer's
    bits_per_weight: float
    error: float  # ||W' - W|| / ||W||; 0 where it stays dense
    tied_to: str = ""  # the layer that has the weight
    reason: str = ""  # why it stays dense


def convert_(
    model: torch.nn.Module,
    fmt: Format | str,
    *,
    skip: str | Sequence[str] = (),
    activations: str | None = None,
    clip: str = "none",
    threads: int = 0,
) -> list[ConvertedLayer]:
    """Store the weights of linear and embedding layers in few bits, in place; they run from these bits.

    model: on the CPU. Modules whose type is exactly torch.nn.Linear become QuantLinear, torch.nn.Embedding
    QuantEmbedding, one after the other, so that memory holds one dense copy more at most; names, hooks and bias stay.
    Layers that share a weight share the packed one. fmt: a Format or its alias, "int4-g128". skip: names or patterns
    ("lm_head", "*.gate") of layers that stay dense. activations: how linear layers read x, None for the format's.
    clip: see tersor.quantize. threads: 0 for get_num_threads().
    A layer that cannot be stored so stays dense: its row says why. Returns a row a layer, in the model's order.
    Raises TypeError (not a module), ValueError (an unknown format or activations; a name in skip that no layer has).
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"a torch.nn.Module is needed, found {type(model).__name__}")
    chosen = parse(fmt)
    if activations is not None and activations not in ACTIVATIONS:
        raise ValueError(f"activations are {', '.join(ACTIVATIONS)}, not {activations!r}")
    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) in (torch.nn.Linear, torch.nn.Embedding) and isinstance(module.weight, torch.nn.Parameter)
    }
    skipped = _skipped(layers, [skip] if isinstance(skip, str) else skip)
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    sharing: dict[int, list[str]] = {}
    for name, module in layers.items():
        sharing.setdefault(id(module.weight), []).append(name)
    rows: dict[str, ConvertedLayer] = {}
    for names in list(sharing.values()):
        same = {name: layers[name] for name in names}
        reason = _reason(same, skipped, holders[id(same[names[0]].weight)])
        if not reason:
            try:
                rows |= _convert(same, chosen, activations, clip, threads)
                continue
            except (ValueError, TypeError) as error:
                reason = str(error)
        rows |= _dense(same, reason)
    return [rows[name] for name in layers]


def _skipped(layers: dict[str, Any], patterns: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(layers, pattern)
        if pattern in layers:
            matching.append(pattern)  # a name may hold what a pattern reads otherwise
        if not matching:
            raise ValueError(f"skip: no linear or embedding layer is named {pattern!r}")
        found.update(matching)
    return found


def _reason(same: dict[str, Any], skipped: set[str], holders: int) -> str:
    """Why layers that share a weight stay dense; "" where nothing speaks against it."""
    weight = next(iter(same.values())).weight
    for name, layer in same.items():
        if name in skipped:
            return "skipped" if len(same) == 1 else f"its weight is that of {name}, which is skipped"
        if isinstance(layer, torch.nn.Embedding) and layer.max_norm is not None:
            return "max_norm changes weights at every call, and packed ones do not change"
        if "forward" in layer.__dict__:
            return f"{name} has a forward of its own"
    if holders > len(same):
        return "another module holds the weight as well"
    if weight.device.type != "cpu":
        return f"the weight is on {weight.device}, low-bit layers run on the CPU"
    return ""


def _convert(
    same: dict[str, Any], fmt: Format, activations: str | None, clip: str, threads: int
) -> dict[str, ConvertedLayer]:
    first = next(iter(same))
    tensor = quantize(same[first].weight.detach(), fmt, clip=clip, threads=threads)
    if activations is not None:
        tensor = dataclasses.replace(tensor, activations=activations)
    row = ConvertedLayer(
        name=first,
        format=str(fmt),
        nbytes=tensor.nbytes,
        bits_per_weight=tensor.bits_per_weight,
        error=tensor.errors["weights"],
    )
    held = PackedWeight(tensor)
    del tensor
    made = {
        name: QuantLinear(held, layer.bias)
        if isinstance(layer, torch.nn.Linear)
        else QuantEmbedding(held, padding_idx=layer.padding_idx)
        for name, layer in same.items()
    }
    for name, layer in same.items():  # nothing can fail from here on
        del layer._parameters["weight"]
        own = {key: value for key, value in made[name].__dict__.items() if key not in layer.__dict__}
        layer.__class__ = type(made[name])
        layer.__dict__.update(own)
    return {name: row if name == first else dataclasses.replace(row, name=name, nbytes=0, tied_to=first)
            for name in same}  # fmt: skip


def _dense(same: dict[str, Any], reason: str) -> dict[str, ConvertedLayer]:
    first = next(iter(same))
    weight = same[first].weight
    return {
        name: ConvertedLayer(
            name=name,
            format="",
            nbytes=weight.nbytes if name == first else 0,
            bits_per_weight=8 * weight.element_size(),
            error=0.0,
            tied_to="" if name == first else first,
            reason=reason,
        )
        for name in same
    }
