"""Bits for every layer of a model within a budget of bytes. Page: docs/quantize.md, section Bits where they matter."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tersor.budget import DynamicProgramming, EvoPress, Point
from tersor.evaluate.divergence import mean_divergence
from tersor.formats.format import parse
from tersor.formats.int_group import IntGroup
from tersor.formats.quantized import QuantizedTensor, quantize
from tersor.nn.blocks import Layer
from tersor.nn.quantized import array_of_tensor, tensor_of_array
from tersor.nn.sensitivity import Probe, measure_sensitivity, rate_points
from tersor.nn.stages import logits_of
from tersor.weights import LayerRecipe, Recipe, Rule

BITS = (2, 3, 4, 5, 6, 8)
PROBED = (2, 3, 4)  # bits; one probe alone misjudges what lies far from it
ALLOCATORS = ("dp", "evopress")
WINDOWS = 3  # that the model's loss is measured on

Save = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Allocated:
    """A recipe with a rule a layer. rate: bytes of its matrices; predicted: what rounding them to nearest would cost
    the model by the points that were measured, in nats a token, or 1 - cosine."""

    recipe: Recipe
    rate: int
    predicted: float


def allocated(
    model: torch.nn.Module,
    layers: Sequence[Layer],
    recipe: Recipe,
    windows: Sequence[torch.Tensor],
    budget: int,
    *,
    allocator: str = "dp",
    known: Mapping[str, Any] | None = None,
    save: Save | None = None,
) -> Allocated:
    """Give each layer of 2 to 8 bits what lowers the model's loss most for its bytes.

    model: dense, in float32 and evaluation mode, all its weights in memory; it is the same afterwards. layers: those
    to allocate to, for all of which `recipe` has an int_group format. windows: token ids, [length] each. budget: bytes
    of their matrices. allocator: "dp" adds up what layers cost alone; "evopress" goes on from there by the loss of the
    whole. known, save: measurements, fit for JSON, as `save` was told them before; they are not made again.
    Layers are rounded to nearest here, with scales of least squares, whatever the solver will be: all solvers lower the
    costs of layers by much the same factor. Raises ValueError (another format; side terms, whose bytes are not known
    beforehand; a budget that is too small; allocator).
    """
    if allocator not in ALLOCATORS:
        raise ValueError(f"allocators are {', '.join(ALLOCATORS)}, not {allocator!r}")
    chosen = {layer.name: _recipe_of(recipe, layer) for layer in layers}
    found = dict(known or {})
    options, rounded = _options(model, layers, chosen)
    for bits in PROBED:
        key = f"cost at {bits} bits"
        done = dict(found.get(key, {}))

        def tell(name: str, cost: float, key: str = key, done: dict[str, float] = done) -> None:
            done[name] = cost
            found[key] = done
            if save is not None:
                save(found)

        found[key] = measure_sensitivity(
            model,
            windows,
            {name: _other(rounded[name][BITS.index(bits)]) for name in rounded},
            done=done,
            progress=tell,
        )
    probes = {
        name: [Probe(points[BITS.index(bits)].error, found[f"cost at {bits} bits"][name]) for bits in PROBED]
        for name, points in options.items()
    }
    points = rate_points(probes, options)
    allocation = DynamicProgramming().choose(points, budget)
    if allocator == "evopress":
        stages = ((1, 4), (len(windows), 1)) if len(windows) > 1 else ((1, 1),)
        search = EvoPress(loss=_Loss(model, rounded, windows), stages=stages, seed=recipe.seed)
        allocation = search.choose(points, budget)
    rules = tuple(
        Rule(
            pattern=glob.escape(name),
            layer=dataclasses.replace(chosen[name], format=str(_format(chosen[name], BITS[place]))),
        )
        for name, place in allocation.choice.items()
    )
    return Allocated(
        recipe=dataclasses.replace(recipe, rules=(*rules, *recipe.rules)),
        rate=allocation.rate,
        predicted=sum(points[name][place].error for name, place in allocation.choice.items()),
    )


def _recipe_of(recipe: Recipe, layer: Layer) -> LayerRecipe:
    found = recipe.for_layer(layer.name)
    assert found is not None
    if not isinstance(parse(found.format), IntGroup):
        raise ValueError(f"{layer.name}: bits are chosen for integers in groups, not for {found.format}")
    if found.outliers or found.rank or found.transform:
        raise ValueError("bits are chosen without outliers, low rank and transforms, whose bytes are not known before")
    return found


def _format(recipe: LayerRecipe, bits: int) -> IntGroup:
    fmt = parse(recipe.format)
    assert isinstance(fmt, IntGroup)
    return dataclasses.replace(fmt, bits=bits)


def _options(
    model: torch.nn.Module, layers: Sequence[Layer], chosen: Mapping[str, LayerRecipe]
) -> tuple[dict[str, list[Point]], dict[str, list[QuantizedTensor]]]:
    """Bytes and relative errors of each number of bits, and the matrices."""
    options: dict[str, list[Point]] = {}
    rounded: dict[str, list[QuantizedTensor]] = {}
    for layer in layers:
        weight = _parameter(model, layer.name)
        matrix = array_of_tensor(weight.T.contiguous() if layer.module == "conv1d" else weight)
        rounded[layer.name] = [quantize(matrix, _format(chosen[layer.name], bits), clip="mse") for bits in BITS]
        options[layer.name] = [Point(one.nbytes, one.errors["weights"]) for one in rounded[layer.name]]
    return options, rounded


def _other(tensor: QuantizedTensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def made(dense: torch.Tensor) -> torch.Tensor:
        matrix = tensor_of_array(tensor.dequantize(np.float32))
        return matrix if matrix.shape == dense.shape else matrix.T.contiguous()

    return made


def _parameter(model: torch.nn.Module, name: str) -> torch.Tensor:
    path, _, last = name.rpartition(".")
    found: torch.Tensor = getattr(model.get_submodule(path), last).data
    return found


class _Loss:
    """The divergence of the model with a choice of matrices from itself."""

    def __init__(
        self,
        model: torch.nn.Module,
        rounded: Mapping[str, list[QuantizedTensor]],
        windows: Sequence[torch.Tensor],
    ) -> None:
        self._model, self._rounded, self._windows = model, rounded, windows
        with torch.no_grad():
            self._dense = [logits_of(model, window[None])[0] for window in windows]

    def __call__(self, choice: Mapping[str, int], samples: int) -> float:
        own = {name: _parameter(self._model, name).clone() for name in choice}
        try:
            for name, place in choice.items():
                _parameter(self._model, name).copy_(_other(self._rounded[name][place])(own[name]))
            with torch.no_grad():
                return sum(
                    mean_divergence(logits_of(self._model, window[None])[0], wanted, window.numpy())[0]
                    for window, wanted in zip(self._windows[:samples], self._dense, strict=False)
                ) / min(samples, len(self._windows))
        finally:
            for name, weight in own.items():
                _parameter(self._model, name).copy_(weight)
