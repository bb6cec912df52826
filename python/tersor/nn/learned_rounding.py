"""Rounding that is learned block by block: the codes and scales with which a block's outputs move least."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tersor.train import Descent, Substituted

if TYPE_CHECKING:
    from tersor.formats.quantized import QuantizedTensor
    from tersor.train import Call


@dataclass(frozen=True, kw_only=True)
class LearnedRounding:
    """Offsets before rounding, and scales, learned from a block's squared error. Nagel et al., AdaRound, ICML 2020.

    Offsets in [-1/2, 1/2] and straight-through rounding as in Cheng et al., SignRound, arXiv:2309.05516, but with Adam.
    steps: of descent. learning_rate: the first, in distances of codes; it falls linearly to 0. batch: inputs a step.
    learn_scales: scales move as well, a tenth as fast; where they are integers under a super-scale they stay. seed: of
    the order of inputs.
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
        block: torch.nn.Module,
        inputs: Sequence[Call],
        targets: Sequence[torch.Tensor],
        layers: Mapping[str, QuantizedTensor],
        *,
        weights: Mapping[str, torch.Tensor] | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> dict[str, QuantizedTensor]:
        """Better codes and scales for the layers of a block, from those of any solver of int_group.

        block: in evaluation mode, on the CPU; it is called with `layers` in place of its own weights, and left as it
        is. inputs: (args, kwargs) of a call each, no tensors of inference mode. targets: what the dense block gives for
        each; both are read by index, so that they may lie on disk. layers: by the name of the module in the block;
        int_group formats, any transforms and side terms, which stay. weights: the dense [N, K], the block's own by
        default. progress: called with the steps done and the loss then, over all inputs, beginning at 0.
        Returns tensors of the same formats. Their mean squared error over `inputs` is never above that of `layers`.
        The same arguments give the same result on the same machine, build and number of torch's threads.
        Raises ValueError (no inputs or layers, names and shapes that do not match, numbers that are not finite),
        TypeError (another format).
        """
        if not inputs or len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets, as many of both, 1 or more, are needed")
        module = Substituted(block, {name: tensor.shape for name, tensor in layers.items()})
        return Descent(**dataclasses.asdict(self)).run(
            module, inputs, lambda i: targets[i], layers, module.dense(weights), _squared_error, progress
        )


def _squared_error(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = (outputs - target).square().mean(-1)
    return found
