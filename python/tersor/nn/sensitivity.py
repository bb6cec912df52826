"""What an error in one weight costs the whole model. Page: docs/budget.md."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from tersor.budget import Point
from tersor.nn.blocks import blocks_of

_ROWS = 64  # of outputs in float64 at once


def measure_sensitivity(
    model: torch.nn.Module,
    windows: Sequence[Any],
    layers: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    *,
    done: Mapping[str, float] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, float]:
    """What the model's outputs lose by one weight that is not its own, for one weight after the other.

    model: of transformers, in evaluation mode, whose outputs are logits or hidden states. windows: token ids, [length]
    each. layers: the name of a module with a weight, or of a parameter -> the function that makes the other weight of
    a copy of the dense one, of the same shape. done: what was measured before, taken as it is. progress: called with
    each name and its cost as soon as it is known; what it is told makes the `done` of a later call.
    Returns the costs by name: the mean over tokens of the divergence from the model's own prediction, in nats, or of
    1 - cosine of hidden states. The model is the same afterwards, bit for bit, however this ends.
    Memory: the outputs for all windows, of the model and of its blocks: those before a weight's are not computed again.
    Raises ValueError (no windows; a model in training mode; a name that the model lacks; another shape; outputs that
    are not finite, says with which weight).
    """
    if model.training:
        raise ValueError("a model in evaluation mode is needed: model.eval()")
    if not len(windows):
        raise ValueError("one window or more is needed")
    weights = {name: _weight(model, name) for name in layers}
    costs = {name: float(done[name]) for name in layers if done is not None and name in done}
    missing = [name for name in layers if name not in costs]
    if missing:
        with torch.no_grad():
            dense = _Dense(model, [torch.as_tensor(window) for window in windows])
            for name in missing:
                depth = dense.depth(weights[name])
                with _replaced(weights[name], layers[name], name):
                    costs[name] = dense.cost(depth)
                if not math.isfinite(costs[name]):
                    raise ValueError(f"outputs with the other weight of {name} are not finite")
                if progress is not None:
                    progress(name, costs[name])
    return {name: costs[name] for name in layers}


class Probe(NamedTuple):
    """Another weight that was measured."""

    error: float  # relative, ||W' - W|| / ||W||, or of the layer's outputs
    cost: float  # as measure_sensitivity has it


def rate_points(
    probes: Mapping[str, Sequence[Probe]], options: Mapping[str, Sequence[Point]]
) -> dict[str, list[Point]]:
    """Points whose errors are what the options cost the model, for an allocator.

    probes: one or more by name. options: points by name, their errors of the kind that the probes have.
    Small costs go with the square of an error, and add up (Malinovskii et al., HIGGS, arXiv:2411.17525), so one probe
    does for errors near its own. Costs of large errors grow faster: between probes they are taken to go straight with
    the square, outside of them through zero.
    Raises ValueError (a name without a probe; a probe without error).
    """
    found: dict[str, list[Point]] = {}
    for name, points in options.items():
        measured = sorted((probe.error**2, probe.cost) for probe in probes.get(name, ()))
        if not measured or not measured[0][0] > 0:
            raise ValueError(f"{name} needs a probe, each with an error above 0")
        squares, costs = zip((0.0, 0.0), *measured, strict=True)
        found[name] = [Point(rate, _interpolated(error**2, squares, costs)) for rate, error in points]
    return found


def _interpolated(square: float, squares: Sequence[float], costs: Sequence[float]) -> float:
    beyond = max(1.0, square / squares[-1])
    return beyond * float(np.interp(square, squares, costs))


def _weight(model: torch.nn.Module, name: str) -> torch.nn.Parameter:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for candidate in (name, f"{name}.weight"):
        if candidate in parameters:
            return parameters[candidate]
    raise ValueError(f"the model has no weight named {name!r}")


@contextlib.contextmanager
def _replaced(weight: torch.nn.Parameter, other: Callable[[torch.Tensor], torch.Tensor], name: str) -> Iterator[None]:
    dense = weight.data
    made = other(dense.clone())
    if made.shape != dense.shape:
        raise ValueError(f"the other weight of {name} is {list(made.shape)}, {list(dense.shape)} is needed")
    weight.data = made.to(dense.dtype)
    try:
        yield
    finally:
        weight.data = dense


class _Dense:
    """What the model gives for the windows with its own weights, and what each of its blocks gave."""

    def __init__(self, model: torch.nn.Module, windows: list[torch.Tensor]) -> None:
        self._model, self._windows = model, windows
        path, self._blocks = blocks_of(model) or ("", [])
        prefix = f"{path}."
        self._depths: dict[int, int] = {}  # of a weight -> the first block that has it, 0 for one outside as well
        for name, weight in model.named_parameters(remove_duplicate=False):
            found = int(name.removeprefix(prefix).split(".")[0]) if self._blocks and name.startswith(prefix) else 0
            self._depths[id(weight)] = min(found, self._depths.get(id(weight), found))
        self._gave: list[list[Any]] = [[] for _ in windows]
        self._wanted = [self._first(gave, window) for gave, window in zip(self._gave, windows, strict=True)]
        self._skips: dict[int, bool] = {}  # a depth -> whether what lies before may be skipped

    def _first(self, gave: list[Any], window: torch.Tensor) -> torch.Tensor:
        hooks = [
            block.register_forward_hook(lambda block, inputs, output: gave.append(_copy(output)))
            for block in self._blocks
        ]
        try:
            found, _ = _output(self._model, window)
        finally:
            for hook in hooks:
                hook.remove()
        if not torch.isfinite(found).all():
            raise ValueError("outputs of the model itself are not finite")
        return found

    def depth(self, weight: torch.nn.Parameter) -> int:
        """How many blocks need not run for another value of the weight. To be asked while it has its own."""
        depth = self._depths[id(weight)]
        if depth not in self._skips:
            self._skips[depth] = self._may_skip(depth)
        return depth if self._skips[depth] else 0

    def cost(self, depth: int) -> float:
        """Of the weights as they are now, without the first `depth` blocks: a mean over tokens."""
        total, tokens = 0.0, 0
        for gave, window, wanted in zip(self._gave, self._windows, self._wanted, strict=True):
            with _skipped(self._blocks[:depth], gave):
                found, are_logits = _output(self._model, window)
            total += _apart(wanted, found, are_logits=are_logits)
            tokens += len(wanted)
        return total / tokens

    def _may_skip(self, depth: int) -> bool:
        """Whether the blocks behind need nothing of those before but the last one's output: tried on a window."""
        if depth == 0 or any(len(gave) != len(self._blocks) for gave in self._gave):
            return False
        try:
            with _skipped(self._blocks[:depth], self._gave[0]):
                found, _ = _output(self._model, self._windows[0])
            return bool(torch.equal(found, self._wanted[0]))
        except Exception:  # whatever a block says that misses something
            return False


@contextlib.contextmanager
def _skipped(blocks: Sequence[torch.nn.Module], gave: Sequence[Any]) -> Iterator[None]:
    """These blocks give what they gave and compute nothing."""
    own = [block.__dict__.get("forward") for block in blocks]
    try:
        for block, output in zip(blocks, gave, strict=False):
            block.forward = lambda *inputs, _output=output, **options: _copy(_output)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = forward


def _output(model: torch.nn.Module, window: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """[tokens, width], and whether these are logits: hidden states where the model has none."""
    given = model(input_ids=window[None])
    are_logits = "logits" in given
    rows = given.logits if are_logits else given.last_hidden_state
    return rows.reshape(-1, rows.shape[-1]), are_logits


def _copy(output: Any) -> Any:
    """Of its tensors, for a block may write into what it is given."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    return tuple(map(_copy, output)) if isinstance(output, tuple) else output


def _apart(wanted: torch.Tensor, found: torch.Tensor, *, are_logits: bool) -> float:
    """The sum over rows of KL(wanted || found), or of 1 - cosine."""
    total = 0.0
    for a, b in zip(wanted.split(_ROWS), found.split(_ROWS), strict=True):
        if are_logits:
            p, q = torch.log_softmax(a.double(), 1), torch.log_softmax(b.double(), 1)
            total += float(torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum())
        else:
            total += float((1 - torch.cosine_similarity(a.double(), b.double(), 1)).sum())
    return total
