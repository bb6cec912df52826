"""Rounding that is learned for a whole model: the codes and scales with which its output distributions move least."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import kl_div, log_softmax

from tersor.train import Descent, Substituted

if TYPE_CHECKING:
    from tersor.formats.quantized import QuantizedTensor
    from tersor.train import Call


@dataclass(frozen=True, kw_only=True)
class DiscQuant:
    """Each weight to one of its two neighbors on the grid, whichever the model's divergence from itself asks for.

    The objective is that of Chee et al., DiscQuant, arXiv:2501.06417. Where the paper lets the model run with weights
    between grid points, and pulls them to the points by a linear term, this one runs with the rounded weights and
    passes gradients straight through. Fields: those of LearnedRounding, batch in windows a step.
    """

    steps: int = 100
    learning_rate: float = 4e-3
    batch: int = 1
    learn_scales: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        Descent(**dataclasses.asdict(self))

    def refine(
        self,
        model: torch.nn.Module,
        windows: Sequence[torch.Tensor],
        layers: Mapping[str, QuantizedTensor],
        *,
        weights: Mapping[str, torch.Tensor] | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> dict[str, QuantizedTensor]:
        """Better codes and scales for layers of a model, from those of any solver of int_group matrices.

        model: in evaluation mode, on the CPU, gives logits [..., vocabulary] as a tensor, the first of a tuple or its
        `logits`; left as it is. windows: token ids [length] each, or what else the model takes with a first axis of 1
        before it. layers, progress: as in LearnedRounding.refine. weights: the dense [N, K] of the layers, the model's
        own by default; with them the model gives the targets, anew for every window, so that no logits are kept.
        Returns tensors of the same formats. The mean Kullback-Leibler divergence from the dense model, in nats a token
        of `windows`, is never above that of `layers`. The same arguments give the same result on the same machine,
        build and number of torch's threads.
        Raises ValueError (no windows or layers, names and shapes that do not match, numbers that are not finite),
        TypeError (another format; a model whose output is no tensor).
        """
        if not len(windows):
            raise ValueError("there are no windows, 1 or more are needed")
        module = Substituted(model, {name: tensor.shape for name, tensor in layers.items()})
        dense = module.dense(weights)
        calls: list[Call] = [((window[None],), {}) for window in windows]

        def target(i: int) -> torch.Tensor:
            with torch.no_grad():
                return module.outputs(dense, calls[i])

        return Descent(**dataclasses.asdict(self)).run(module, calls, target, layers, dense, _divergence, progress)


def _divergence(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    of, wanted = log_softmax(outputs, -1), log_softmax(target, -1)
    found: torch.Tensor = kl_div(of, wanted, reduction="none", log_target=True).sum(-1)
    return found
