"""Low-bit linear layers on tensors: tersor.gemm with gradients of x, inside torch.compile. Page: docs/gemm.md."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from tersor import gemm
from tersor.formats.format import ACTIVATIONS
from tersor.torch import operators  # noqa: F401 - registers them

if TYPE_CHECKING:
    from tersor.formats import QuantizedTensor
    from tersor.gemm import PackedMatrix

NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}  # as the operators count them
NO_BIAS = torch.empty(0)
_CPU = torch.device("cpu")
_LINEAR, _LINEAR_FORWARD = torch.ops.tersor.linear.default, torch.ops.tersor.linear_forward.default


class PackedTensor(NamedTuple):
    """What the operators take of a packed matrix [rows, columns]."""

    data: torch.Tensor  # uint8 [bytes], the memory of PackedMatrix.data
    rows: int
    columns: int
    activations: str


_tensors: weakref.WeakKeyDictionary[PackedMatrix | QuantizedTensor, PackedTensor] = weakref.WeakKeyDictionary()


def packed_tensor(weights: PackedMatrix | QuantizedTensor) -> PackedTensor:
    """The tensor over a packed matrix's memory and the numbers that torch.ops.tersor.linear asks for beside it.

    A clone of the tensor works, but may not lie in huge pages, so that one token takes up to twice the time; a view
    that does not begin at a multiple of 64 bytes is refused by every operator.
    """
    try:
        found = _tensors.get(weights)
    except TypeError:  # nothing that weak references or hashes take
        found = None
    if found is None:
        packed = gemm.packed_of(weights)
        data = torch.from_numpy(packed.data)
        found = _tensors[weights] = PackedTensor(data, *packed.shape, packed.activations)
    return found


def linear(
    x: torch.Tensor,
    weights: PackedMatrix | QuantizedTensor,
    bias: torch.Tensor | None = None,
    *,
    activations: str | None = None,
) -> torch.Tensor:
    """Multiply: y = x W^T + bias, as torch.nn.functional.linear does.

    x: [..., K] of float32, float16 or bfloat16 on the CPU, any strides. weights, activations: see tersor.gemm.linear.
    bias: [N] or None. Returns [..., N] of x's dtype, the bits of tersor.gemm.linear. Gradients reach x, as though
    activations were exact, and bias; W is dense in blocks of 4 million weights for them, and has none itself.
    Raises ValueError (another device; activations), TypeError (weights), RuntimeError (dtypes, K, N).
    Inside torch.compile use tersor.nn.QuantLinear or torch.ops.tersor.linear(x, packed, bias, rows, activations).
    """
    held = packed_tensor(weights)
    return multiply(x, held.data, bias, held.rows, number_of(held.activations if activations is None else activations))


def multiply(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, rows: int, activations: int
) -> torch.Tensor:
    """The operator that serves: the one without a gradient where none is asked for, since it takes 5 us less."""
    if x.device != _CPU and not x.is_meta:
        require_cpu(x, "x")
    added = NO_BIAS if bias is None else bias
    differentiates = torch.is_grad_enabled() and (x.requires_grad or added.requires_grad)
    y: torch.Tensor = (_LINEAR if differentiates else _LINEAR_FORWARD)(x, packed, added, rows, activations)
    return y


def linear_many(
    x: torch.Tensor,
    weights: Sequence[PackedMatrix | QuantizedTensor],
    bias: Sequence[torch.Tensor | None] | None = None,
    *,
    activations: str | None = None,
) -> list[torch.Tensor]:
    """Multiply one x with several matrices in one call: tersor.gemm.linear_many with gradients, see `linear`."""
    held = [packed_tensor(one) for one in weights]
    if not held:
        return []
    number = _number_for(activations, held)
    if not x.is_meta:
        require_cpu(x, "x")
    added = [NO_BIAS] * len(held) if bias is None else [NO_BIAS if one is None else one for one in bias]
    y: list[torch.Tensor] = torch.ops.tersor.linear_many(
        x, [one.data for one in held], added, [one.rows for one in held], number
    )
    return y


def linear_experts(
    x: torch.Tensor,
    weights: Sequence[PackedMatrix | QuantizedTensor],
    experts: torch.Tensor,
    bias: Sequence[torch.Tensor | None] | None = None,
    *,
    activations: str | None = None,
) -> torch.Tensor:
    """Multiply every token with its experts' matrices in one call: tersor.gemm.linear_experts with gradients.

    experts: int32 or int64 [..., slots]. Returns [..., slots, N].
    """
    held = [packed_tensor(one) for one in weights]
    if not held:
        raise ValueError("experts: at least one matrix is needed")
    number = _number_for(activations, held)
    if not x.is_meta:
        require_cpu(x, "x")
    added = [] if bias is None else [NO_BIAS if one is None else one for one in bias]
    y: torch.Tensor = torch.ops.tersor.linear_experts(
        x, [one.data for one in held], added, experts, held[0].rows, number
    )
    return y


def packed_rows(
    weights: PackedMatrix | QuantizedTensor, ids: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Look up rows: [*ids.shape, K] of dtype. ids: int32 or int64. Raises RuntimeError (an id that is no row)."""
    held = packed_tensor(weights)
    rows: torch.Tensor = torch.ops.tersor.packed_rows(held.data, ids, held.columns, dtype)
    return rows


def number_of(activations: str) -> int:
    """The operators' number of a way to read x. Raises ValueError."""
    if activations not in NUMBERS:
        raise ValueError(f"activations are {', '.join(NUMBERS)}, not {activations!r}")
    return NUMBERS[activations]


def require_cpu(tensor: torch.Tensor, what: str) -> None:
    """Raise ValueError for a tensor whose memory the kernels do not reach."""
    if tensor.device != _CPU:
        raise ValueError(f"{what} is on {tensor.device}, low-bit layers run on the CPU")


def _number_for(activations: str | None, held: Sequence[PackedTensor]) -> int:
    if activations is None:
        recorded = {one.activations for one in held}
        if len(recorded) > 1:
            raise ValueError(f"matrices record several activations, {', '.join(sorted(recorded))}: choose one")
        (activations,) = recorded
    return number_of(activations)
