"""Codes and scales of int_group matrices that learn from the outputs of the module that they are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tersor.train.integer_grid import IntegerGrid, round_through
from tersor.train.substitution import Call, Loss, Substituted, batches

if TYPE_CHECKING:
    from tersor.formats.quantized import QuantizedTensor

__all__ = ["Descent", "LearnedCodes"]

_CHECKS = 4  # times that the loss over all inputs is measured, besides the start
_INSIDE = 0.45  # how far from its code a weight may lie at first, so that no single step turns it
_SCALE_RATE = 0.1  # of a scale's steps to an offset's
_SCALES = (0.5, 1.5)  # what a scale may be multiplied by


class LearnedCodes:
    """A matrix while it learns: code = round(place + offset), place being where the weight lies on the moving grid.

    tensor: the start, whose codes stand at first. dense: the weight [N, K]. offset: [N, K], in [-1/2, 1/2]. factor: of
    scales, where they learn; they are the numbers that are stored.
    """

    def __init__(self, tensor: QuantizedTensor, dense: torch.Tensor, learn_scales: bool) -> None:
        self.grid, self.dense = IntegerGrid(tensor), dense
        grid = self.grid
        place = grid.places(grid.prepared(dense), grid.scales)
        # Codes of the start need not be the nearest: the weight is moved to where they are.
        self.stored = grid.stored(grid.codes + (place - grid.codes).clamp(-_INSIDE, _INSIDE), grid.scales)
        self.offset = torch.zeros(tensor.shape, requires_grad=True)
        self.factor = torch.ones(grid.scales.shape, requires_grad=learn_scales and grid.learns_scales)

    def scales(self) -> torch.Tensor:
        return self.grid.rounded(self.grid.scales * self.factor) if self.factor.requires_grad else self.grid.scales

    def codes(self, scales: torch.Tensor) -> torch.Tensor:
        return round_through(self.grid.places(self.stored, scales) + self.offset).clamp(0, self.grid.highest)

    def weight(self) -> torch.Tensor:
        """What layers see, [N, K]."""
        scales = self.scales()
        return self.grid.weight(self.grid.stored(self.codes(scales), scales))

    def project(self) -> None:
        """Bring back what a step carried too far."""
        with torch.no_grad():
            self.offset.clamp_(-0.5, 0.5)
            self.factor.clamp_(*_SCALES)

    def quantized(self) -> QuantizedTensor:
        with torch.no_grad():
            scales = self.scales()
            return self.grid.quantized(self.codes(scales), scales, self.dense)


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How codes learn: Adam (Kingma and Ba, ICLR 2015) with a rate that falls linearly to 0.

    steps: of descent. learning_rate: the first, for offsets, in distances of codes. batch: inputs a step. learn_scales:
    scales move as well, a tenth as fast; where they are integers under a super-scale they stay. seed: of the order of
    inputs. Raises ValueError.
    """

    steps: int
    learning_rate: float
    batch: int
    learn_scales: bool
    seed: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate is in (0, 1], not {self.learning_rate}")
        if self.seed < 0:
            raise ValueError(f"a seed is 0 or more, not {self.seed}")

    def run(
        self,
        module: Substituted,
        inputs: Sequence[Call],
        target: Callable[[int], torch.Tensor],
        layers: Mapping[str, QuantizedTensor],
        dense: Mapping[str, torch.Tensor],
        loss: Loss,
        progress: Callable[[int, float], None] | None,
    ) -> dict[str, QuantizedTensor]:
        """The layers of the least loss over all inputs that was met, those of the start where none was less.

        progress: called with the steps done and that loss, first with 0.
        """
        held = {name: LearnedCodes(tensor, dense[name], self.learn_scales) for name, tensor in layers.items()}

        def measured() -> float:
            with torch.no_grad():
                weights = {name: one.weight() for name, one in held.items()}
            return module.mean_loss(weights, inputs, target, loss)

        least, kept = measured(), dict(layers)
        if progress:
            progress(0, least)
        scales = [one.factor for one in held.values() if one.factor.requires_grad]
        groups = [([one.offset for one in held.values()], 1.0), (scales, _SCALE_RATE)]
        adam = torch.optim.Adam([{"params": some} for some, _ in groups if some], betas=(0.9, 0.99))
        order = batches(len(inputs), min(self.batch, len(inputs)), self.seed)
        checks = {self.steps * (i + 1) // _CHECKS for i in range(_CHECKS)}
        for step in range(1, self.steps + 1):
            picked = next(order)
            with torch.enable_grad():
                weights = {name: one.weight() for name, one in held.items()}
                module.pull_back(weights, [inputs[i] for i in picked], [target(i) for i in picked], loss)
            for group, (_, share) in zip(adam.param_groups, groups, strict=False):
                group["lr"] = self.learning_rate * share * (1 - (step - 1) / self.steps)
            adam.step()
            adam.zero_grad()
            for one in held.values():
                one.project()
            if step in checks:
                now = measured()
                if now < least:
                    least, kept = now, {name: one.quantized() for name, one in held.items()}
                if progress:
                    progress(step, now)
        return kept
