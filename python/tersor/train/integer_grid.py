"""The grid of an int_group matrix in torch, through which gradients reach codes and scales."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tersor.formats.int_group import IntGroup
from tersor.formats.quantized import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tersor.formats.recorded import Recorded

__all__ = ["IntegerGrid", "round_through"]

_SCALES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def round_through(x: torch.Tensor) -> torch.Tensor:
    """x to the nearest integers, ties to even, with the gradient of x: the straight-through estimator.

    Bengio et al., arXiv:1308.3432.
    """
    return x + (x.round() - x).detach()


class IntegerGrid:
    """What codes of a quantized matrix stand for, w = scale * (step * code + origin) + minimum, in float32 of torch.

    tensor: in an int_group format, of which scales, zeros and minimums are taken, with transforms and side terms.
    codes: [N, K], those of the tensor. highest: the largest code; the least is 0. scales: [N, G], or [1, 1].
    Raises TypeError for another format.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        fmt = tensor.format
        if not isinstance(fmt, IntGroup):
            raise TypeError(f"a matrix in an int_group format is needed, not in {fmt}")
        self.tensor = tensor
        self.highest = 2 if fmt.bits == "ternary" else 2 ** int(fmt.bits) - 1
        self._step, self._lowest = 1.0, 0.0
        if fmt.mode == "symmetric":
            self._step = 2.0 if fmt.bits == 1 else 1.0
            self._lowest = -1.0 if self.highest <= 2 else -(2.0 ** (int(fmt.bits) - 1))
        parts = tensor.parts
        self.codes = _torch(fmt.symbols(parts, tensor.shape)["codes"])
        self._super = fmt.scale.startswith("super")
        self.scales = self._per_group("scales")
        self._origin = self._lowest - self._wide(_torch(parts["zeros"])) if "zeros" in parts else self._lowest
        self._minimum = self._wide(self._per_group("minimums")) if "minimums" in parts else 0.0

    @property
    def learns_scales(self) -> bool:
        """Whether scales are stored as they are, and not as integers under others."""
        return not self._super

    def rounded(self, scales: torch.Tensor) -> torch.Tensor:
        """Scales as they are stored, with the gradient of `scales`; what is beyond the dtype is its largest."""
        dtype = _SCALES[self.tensor.format.scale]  # type: ignore[attr-defined]
        limit = torch.finfo(dtype).max
        inside = scales.clamp(-limit, limit)  # first, for the sum below is exact only of numbers as large as each other
        return inside + (inside.to(dtype).to(torch.float32) - inside).detach()

    def places(self, stored: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Where numbers of the stored matrix [N, K] lie between codes; the tensor's own codes where the scale is 0."""
        wide = self._wide(scales)
        fine = wide != 0
        ratio = (stored - self._minimum) / torch.where(fine, wide, 1.0)
        return torch.where(fine, (ratio - self._origin) / self._step, self.codes)

    def stored(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """The stored matrix [N, K] of codes, which need not be integers."""
        return self._wide(scales) * (self._step * codes + self._origin) + self._minimum

    def weight(self, stored: torch.Tensor) -> torch.Tensor:
        """The matrix that layers see: transforms undone, side terms added."""
        found: torch.Tensor = _Undone.apply(stored, self.tensor.transforms) if self.tensor.transforms else stored
        return found + self._added if self.tensor.side_terms else found

    def prepared(self, weight: torch.Tensor) -> torch.Tensor:
        """What is stored for a weight [N, K], before rounding. Raises ValueError (its shape)."""
        if tuple(weight.shape) != self.tensor.shape:
            raise ValueError(f"a weight is {list(weight.shape)}, its quantized matrix {list(self.tensor.shape)}")
        matrix = np.array(weight.detach().to("cpu", torch.float32).numpy(), order="C")
        for term in self.tensor.side_terms:
            matrix = term.undo(matrix)
        for transform in self.tensor.transforms:
            matrix = transform.apply(matrix)
        return torch.from_numpy(matrix)

    def quantized(self, codes: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor) -> QuantizedTensor:
        """The tensor with other codes, integers of [0, highest], and scales that `rounded` gave.

        The error of its weights is measured; that of a layer's outputs, which was the old codes', is dropped.
        """
        old = self.tensor
        parts: dict[str, Any] = {**old.parts, "codes": codes.to(torch.uint8).numpy()}
        if not self._super:
            parts["scales"] = scales.detach().numpy().astype(old.parts["scales"].dtype)
        made = dataclasses.replace(old, parts=old.format.packed(parts, old.shape))
        dense = weight.detach().to("cpu", torch.float32).contiguous().numpy()
        return dataclasses.replace(made, errors={"weights": made.relative_error(dense)})

    @property
    def _added(self) -> torch.Tensor:
        matrix = np.zeros(self.tensor.shape, np.float32)
        for term in self.tensor.side_terms:
            matrix = term.apply(matrix)
        return torch.from_numpy(matrix)

    def _per_group(self, name: str) -> torch.Tensor:
        found = _torch(self.tensor.parts[name])
        if not self._super:
            return found
        above = _torch(self.tensor.parts[f"super_{name}"])
        span = 256 // int(self.tensor.format.group)  # type: ignore[attr-defined]
        return found * above.repeat_interleave(span, dim=1)[:, : found.shape[1]]

    def _wide(self, groups: torch.Tensor) -> torch.Tensor:
        """Numbers of groups, [N, G] or [1, 1], as they meet columns."""
        group = self.tensor.format.group  # type: ignore[attr-defined]
        if isinstance(group, str):
            return groups
        rows, count = groups.shape
        return groups[:, :, None].expand(rows, count, group).reshape(rows, -1)[:, : self.tensor.shape[1]]


class _Undone(torch.autograd.Function):  # type: ignore[misc]
    """Transforms undone. W = undo(W') and x W^T = inputs(x) W'^T for any x, so that inputs is the adjoint of undo."""

    @staticmethod
    def forward(context: Any, stored: torch.Tensor, transforms: Sequence[Recorded]) -> torch.Tensor:
        context.transforms = transforms
        matrix = stored.detach().numpy()
        for transform in reversed(transforms):
            matrix = transform.undo(matrix)
        return torch.from_numpy(matrix)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        matrix = gradient.numpy()
        for transform in context.transforms:
            matrix = transform.inputs(matrix)
        return torch.from_numpy(np.ascontiguousarray(matrix)), None


def _torch(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array).astype(np.float32))
