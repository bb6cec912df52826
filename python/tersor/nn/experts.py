"""Experts of a mixture, all of whose matrices are stored in few bits. Page: docs/gemm.md."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tersor.formats import QuantizedTensor
from tersor.nn.quantized import PackedWeight
from tersor.torch import low_bit

PARAMETERS = ("gate_up_proj", "down_proj")
_GIVEN = ["hidden_states", "top_k_index", "top_k_weights"]


def reason_against(module: torch.nn.Module) -> str:
    """Why a module is no experts that QuantExperts stands for; "" for those of transformers' Mixtral and its like."""
    shapes = [getattr(getattr(module, name, None), "shape", None) for name in PARAMETERS]
    if any(shape is None or len(shape) != 3 for shape in shapes):
        return f"no parameters {' and '.join(PARAMETERS)} [experts, N, K]"
    wanted = {
        "is_transposed": False, "has_bias": False, "has_gate": True, "is_concatenated": True,
        "has_post_expert_norm": False,
    }  # fmt: skip
    for name, value in wanted.items():
        if getattr(module, name, None) != value:
            return f"experts with {name}={getattr(module, name, 'unknown')}"
    given = list(inspect.signature(type(module).forward).parameters)[1:]
    return "" if given == _GIVEN else f"experts that are given {', '.join(given)}"


class QuantExperts(torch.nn.Module):  # type: ignore[misc]
    """What transformers' experts compute, from packed matrices: sum_i w_i down(gate(up(x))) of each token's experts.

    Its state_dict holds the parts of expert i as "i.gate_up_proj.codes" and so on.
    """

    def __init__(
        self,
        gate_up: Sequence[PackedWeight],
        down: Sequence[PackedWeight],
        gate: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """gate: [..., 2 I] -> [..., I]. Raises ValueError (not as many of both)."""
        super().__init__()
        if len(gate_up) != len(down) or not gate_up:
            raise ValueError(f"experts are one or more, found {len(gate_up)} and {len(down)} matrices")
        self.packed = dict(zip(PARAMETERS, (list(gate_up), list(down)), strict=True))
        self.gate = gate
        self.activations = gate_up[0].packed.activations

    @classmethod
    def of(cls, module: torch.nn.Module, tensors: Mapping[str, Sequence[QuantizedTensor]]) -> QuantExperts:
        """The experts of transformers that `module` is, whose parameters may be gone. Raises ValueError."""
        gate_up, down = ([PackedWeight(tensor) for tensor in tensors[name]] for name in PARAMETERS)
        return cls(gate_up, down, _Gate(module))

    @property
    def num_experts(self) -> int:
        return len(self.packed["down_proj"])

    @property
    def activations(self) -> str:
        """How x is read, see tersor.gemm.linear; it may be set."""
        return self._activations

    @activations.setter
    def activations(self, activations: str) -> None:
        self._number = low_bit.number_of(activations)
        self._activations = activations

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """hidden_states: [tokens, K]. top_k_index, top_k_weights: [tokens, slots]. Returns [tokens, K]."""
        tokens, slots = top_k_index.shape
        up = self._multiply("gate_up_proj", hidden_states, top_k_index)
        inner = self.gate(up.reshape(tokens * slots, -1))
        down = self._multiply("down_proj", inner, top_k_index.reshape(-1, 1)).reshape(tokens, slots, -1)
        return (down * top_k_weights[..., None].to(down.dtype)).sum(1).to(hidden_states.dtype)

    def _multiply(self, name: str, x: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        held = self.packed[name]
        y: torch.Tensor = torch.ops.tersor.linear_experts(
            x, [one.data for one in held], [], experts, held[0].rows, self._number
        )
        return y

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, held in self.packed.items():
            for i, one in enumerate(held):
                for part, tensor in one.tensors().items():
                    destination[f"{prefix}{i}.{name}.{part}"] = tensor

    def extra_repr(self) -> str:
        """How many, their format."""
        held = self.packed["down_proj"][0]
        return f"{self.num_experts} experts, {held.format}, {held.bits_per_weight:.2f} bits/weight"


class _Gate:
    """The gate of a module that lends it its activation and nothing else."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        for name in PARAMETERS:
            module._parameters.pop(name, None)

    def __call__(self, up: torch.Tensor) -> torch.Tensor:
        if hasattr(self.module, "_apply_gate"):
            gated: torch.Tensor = self.module._apply_gate(up)
            return gated
        gate, up = up.chunk(2, dim=-1)
        product: torch.Tensor = self.module.act_fn(gate) * up
        return product
