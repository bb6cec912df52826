"""A module that runs with other weights than its own, and gradients for these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

__all__ = ["Call", "Loss", "Substituted", "batches"]

Call: TypeAlias = "tuple[tuple[Any, ...], Mapping[str, Any]]"  # what a module is called with
Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"  # of outputs and targets, a number a row


def batches(count: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of 0 .. count - 1 without end: every number once before any comes again, in a drawn order."""
    chance = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch:
            waiting += chance.permutation(count).tolist()
        yield waiting[:batch]
        del waiting[:batch]


class Substituted:
    """A module of which some layers meet other weights, for as long as a call takes; its own stay as they are.

    module: in evaluation mode. shapes: by the name of a layer, those of its weight as [N, K]; of transformers' Conv1D,
    which keeps [K, N], it is the transpose. Raises ValueError (a layer that the module has not, another shape, training
    mode).
    """

    def __init__(self, module: torch.nn.Module, shapes: Mapping[str, tuple[int, int]]) -> None:
        if module.training:
            raise ValueError("the module is in training mode, eval() is needed: its outputs must not depend on chance")
        if not shapes:
            raise ValueError("no layer is named, one or more are needed")
        self._module = module
        found = dict(module.named_modules())
        self._turned = {name: type(found.get(name)).__name__ == "Conv1D" for name in shapes}
        for name, shape in shapes.items():
            weight = getattr(found.get(name), "weight", None)
            if not isinstance(weight, torch.Tensor):
                raise ValueError(f"the module has no layer {name!r} with a weight")
            if tuple(self._oriented(name, weight).shape) != tuple(shape):
                raise ValueError(
                    f"{name}: the layer's weight is {list(self._oriented(name, weight).shape)}, {list(shape)} is needed"
                )
        self._dtypes = {name: found[name].weight.dtype for name in shapes}
        self._own = {name: self._oriented(name, found[name].weight.detach()) for name in shapes}

    def dense(self, weights: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """The weights given for the layers, [N, K], or else the module's own. Raises ValueError (a name, a shape)."""
        if weights is None:
            return dict(self._own)
        for name, own in self._own.items():
            if name not in weights:
                raise ValueError(f"weights have no {name!r}, found {', '.join(weights) or 'none'}")
            if weights[name].shape != own.shape:
                raise ValueError(f"{name}: a weight is {list(weights[name].shape)}, {list(own.shape)} is needed")
        return {name: weights[name].detach().to(self._dtypes[name]) for name in self._own}

    def outputs(self, weights: Mapping[str, torch.Tensor], call: Call) -> torch.Tensor:
        """What the module gives: its first output where it gives several, its logits where it names them."""
        args, kwargs = call
        placed = {
            f"{name}.weight" if name else "weight": self._oriented(name, weight) for name, weight in weights.items()
        }
        found = torch.func.functional_call(self._module, placed, args, dict(kwargs))
        found = found[0] if isinstance(found, tuple) else getattr(found, "logits", found)
        if not isinstance(found, torch.Tensor):
            raise TypeError(f"the module gives a {type(found).__name__}, a tensor or a tuple of tensors is needed")
        return found

    def mean_loss(
        self,
        weights: Mapping[str, torch.Tensor],
        calls: Sequence[Call],
        target: Callable[[int], torch.Tensor],
        loss: Loss,
    ) -> float:
        """The mean over calls of `loss`. Raises ValueError (targets of other shapes; no finite number)."""
        narrow = {name: weight.to(self._dtypes[name]) for name, weight in weights.items()}
        total = 0.0
        for i, call in enumerate(calls):
            with torch.no_grad():
                rows = _rows(loss, self.outputs(narrow, call), target(i))
            total += float(rows.double().numpy().mean())  # NumPy's order of summation, whatever torch's threads
        if not math.isfinite(total):
            raise ValueError(f"the loss over the inputs is {total}: inputs, targets and weights must be finite")
        return total / len(calls)

    def pull_back(
        self, weights: Mapping[str, torch.Tensor], calls: Sequence[Call], targets: Sequence[torch.Tensor], loss: Loss
    ) -> None:
        """Add the gradient of the mean loss to the .grad of what `weights` were made of, one call after the other."""
        leaves = {name: w.detach().to(self._dtypes[name]).requires_grad_() for name, w in weights.items()}
        sums = [torch.zeros(w.shape) for w in weights.values()]
        for call, target in zip(calls, targets, strict=True):
            mean = _rows(loss, self.outputs(leaves, call), target).mean() / len(calls)
            # A layer that no input reaches, an expert perhaps, has no gradient.
            some = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
            for total, gradient in zip(sums, some, strict=True):
                if gradient is not None:
                    total += gradient
        torch.autograd.backward(list(weights.values()), sums)

    def _oriented(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        return weight.T if self._turned[name] else weight


def _rows(loss: Loss, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if outputs.shape != target.shape:
        raise ValueError(f"an output is {list(outputs.shape)}, its target {list(target.shape)}")
    return loss(outputs.float(), target.float())
