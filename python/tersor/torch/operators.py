"""torch.ops.tersor: registration, the shapes of results, gradients. What the operators do: csrc/torch_ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from tersor import _core

try:
    _core.register_torch_ops()
except OSError as error:
    raise ImportError(f"tersor.torch needs PyTorch >= 2.10, found {torch.__version__}: {error}") from error

_BLOCK = 1 << 22  # weights that are dense at once in a gradient


# Writing into `out` has no result whose shape could be asked for.
torch.library.register_fake("tersor::decompress_into", lambda data, out: None)


def _fake_stream(symbols: Any, indexes: Any, tables: Any, means: Any) -> Any:
    return symbols.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)


def _fake_symbols(data: Any, indexes: Any, tables: Any, means: Any) -> Any:
    return indexes.new_empty(indexes.shape, dtype=torch.int32)


torch.library.register_fake("tersor::rans_encode_indexed", _fake_stream)
torch.library.register_fake("tersor::rans_decode_indexed", _fake_symbols)


def _fake_linear(x: Any, packed: Any, bias: Any, rows: int, activations: int) -> Any:
    return x.new_empty((*x.shape[:-1], rows))


def _fake_many(x: Any, packed: Any, bias: Any, rows: Any, activations: int) -> Any:
    return [x.new_empty((*x.shape[:-1], count)) for count in rows]


def _fake_experts(x: Any, packed: Any, bias: Any, experts: Any, rows: int, activations: int) -> Any:
    return x.new_empty((*experts.shape, rows))


def _fake_rows(packed: Any, ids: Any, columns: int, dtype: Any) -> Any:
    return packed.new_empty((*ids.shape, columns), dtype=dtype)


torch.library.register_fake("tersor::linear", _fake_linear)
torch.library.register_fake("tersor::linear_forward", _fake_linear)
torch.library.register_fake("tersor::linear_many", _fake_many)
torch.library.register_fake("tersor::linear_experts", _fake_experts)
torch.library.register_fake("tersor::packed_rows", _fake_rows)


@torch.library.custom_op("tersor::linear_backward", mutates_args=())  # type: ignore[untyped-decorator]
def _linear_backward(dy: torch.Tensor, packed: torch.Tensor, columns: int) -> torch.Tensor:
    """dy W for dy [..., N], some rows of W dense at a time; summed in float32."""
    rows = dy.shape[-1]
    exact = dy.dtype != torch.bfloat16
    flat = dy.reshape(-1, rows).to(torch.float32 if exact else torch.bfloat16)
    dx = torch.zeros((len(flat), columns), dtype=torch.float32)
    step = max(1, _BLOCK // columns)
    for first in range(0, rows, step):
        ids = torch.arange(first, min(rows, first + step))
        some = torch.ops.tersor.packed_rows(packed, ids, columns, flat.dtype)
        if exact:
            dx.addmm_(flat[:, first : first + step], some)
        else:
            dx += flat[:, first : first + step] @ some
    return dx.to(dy.dtype).reshape(*dy.shape[:-1], columns)


@torch.library.custom_op("tersor::linear_experts_backward", mutates_args=())  # type: ignore[untyped-decorator]
def _linear_experts_backward(
    dy: torch.Tensor, packed: Sequence[torch.Tensor], experts: torch.Tensor, columns: int
) -> torch.Tensor:
    """The sum over slots of dy[m, s] W of its expert, for dy [..., slots, N]."""
    flat, chosen, slots = dy.reshape(-1, dy.shape[-1]), experts.reshape(-1), experts.shape[-1]
    dx = torch.zeros((math.prod(experts.shape[:-1]), columns), dtype=torch.float32)
    for expert, weights in enumerate(packed):
        at = (chosen == expert).nonzero().flatten()
        if len(at):
            dx.index_add_(0, at // slots, _linear_backward(flat[at], weights, columns).to(torch.float32))
    return dx.to(dy.dtype).reshape(*experts.shape[:-1], columns)


_linear_backward.register_fake(lambda dy, packed, columns: dy.new_empty((*dy.shape[:-1], columns)))
_linear_experts_backward.register_fake(
    lambda dy, packed, experts, columns: dy.new_empty((*experts.shape[:-1], columns))
)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.columns, ctx.bias_dtype = inputs[0].shape[-1], inputs[2].dtype


def _backward(ctx: Any, dy: Any) -> Any:
    x_needs, _, bias_needs, *_ = ctx.needs_input_grad
    (packed,) = ctx.saved_tensors
    dx = torch.ops.tersor.linear_backward(dy, packed, ctx.columns) if x_needs else None
    return dx, None, _bias_gradient(dy).to(ctx.bias_dtype) if bias_needs else None, None, None


def _bias_gradient(dy: torch.Tensor) -> torch.Tensor:
    return dy.reshape(-1, dy.shape[-1]).sum(0, dtype=torch.float32)


def _keep_many(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[1])
    ctx.columns, ctx.bias_dtypes = inputs[0].shape[-1], [bias.dtype for bias in inputs[2]]


def _backward_many(ctx: Any, several: Any) -> Any:
    dx = None
    if ctx.needs_input_grad[0]:
        for dy, packed in zip(several, ctx.saved_tensors, strict=True):
            one = torch.ops.tersor.linear_backward(dy, packed, ctx.columns)
            dx = one if dx is None else dx + one
    biases = [
        _bias_gradient(dy).to(dtype) if needs else None
        for dy, dtype, needs in zip(several, ctx.bias_dtypes, ctx.needs_input_grad[2], strict=True)
    ]
    return dx, [None] * len(several), biases, None, None


def _keep_experts(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[1], inputs[3])
    ctx.columns, ctx.bias_dtypes = inputs[0].shape[-1], [bias.dtype for bias in inputs[2]]


def _backward_experts(ctx: Any, dy: Any) -> Any:
    *packed, experts = ctx.saved_tensors
    dx = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.tersor.linear_experts_backward(dy, packed, experts, ctx.columns)
    flat, chosen = dy.reshape(-1, dy.shape[-1]), experts.reshape(-1, 1)
    biases = [
        (flat * (chosen == expert)).sum(0, dtype=torch.float32).to(dtype) if needs else None
        for expert, (dtype, needs) in enumerate(zip(ctx.bias_dtypes, ctx.needs_input_grad[2], strict=True))
    ]
    return dx, [None] * len(packed), biases, None, None, None


torch.library.register_autograd("tersor::linear", _backward, setup_context=_keep)
torch.library.register_autograd("tersor::linear_many", _backward_many, setup_context=_keep_many)
torch.library.register_autograd("tersor::linear_experts", _backward_experts, setup_context=_keep_experts)
