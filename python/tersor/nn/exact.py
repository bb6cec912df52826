"""compress_exact_: a model whose linear and embedding weights stay entropy-coded in memory, its outputs the same.

After DFloat11 (Zhang et al., 70% Size, 100% Accuracy, arXiv:2504.11651), which decodes a block's weights before it
runs, on a GPU and with Huffman codes; here the coder is tersor's, and the model runs on the CPU.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import tersor.torch
from tersor.nn.buffer import Buffer, Group
from tersor.nn.stored import BLOCK_BYTES, StoredWeight, store


@dataclass(frozen=True, kw_only=True)
class ExactBytes:
    """What the compressed weights of a model take, in bytes."""

    plain: int  # as tensors
    coded: int  # as they lie in memory now
    buffer: int  # what they are decoded into


def compress_exact_(
    model: torch.nn.Module, *, level: int | None = None, prefetch: bool | None = None
) -> torch.nn.Module:
    """Keep the weights of Linear and Embedding layers compressed in memory; outputs stay the same, bit for bit.

    model: on the CPU. Layers of exactly torch.nn.Linear and torch.nn.Embedding (without max_norm) are taken whose
    weights are floats, contiguous and shrink; all else stays as it is. level: 1 (fastest) to 9 (smallest), None for
    the default, 4. prefetch: decode the next block while one runs, as room in the buffer becomes free; None does so
    where torch leaves a core free (torch.set_num_threads).
    The elements of the outermost ModuleLists are the blocks: before one runs its weights are decoded, into one buffer
    that all blocks share. A Linear outside of them is a block of its own. Embeddings decode the rows that are asked
    for, in blocks of some 48 kB. Weights that layers share are stored once.
    The weights are frozen: they are no parameters any more. `layer.weight` gives a fresh tensor; state_dict has it
    under its name, and load_state_dict compresses what it is given, so files and plain models fit as before.
    Returns the model, changed in place. Raises TypeError (not a module), ValueError (level; weights not on the CPU).
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"a torch.nn.Module is needed, found {type(model).__name__}")
    owners = _owners(model)
    blocks = {
        block: [layer for layer in block.modules() if isinstance(layer, torch.nn.Linear) and layer in owners]
        for block in _blocks(model, owners)
    }
    tried: set[Any] = set()
    for layers in [*blocks.values(), *([layer] for layer in owners)]:
        _code([layer for layer in layers if layer not in tried], owners, level)
        tried.update(same for layer in layers for same in owners[layer])
    groups = {
        block: Group(dict.fromkeys(layer._exact.stored for layer in layers if isinstance(layer, ExactLinear)))
        for block, layers in blocks.items()
    }
    buffer = Buffer(list(groups.values()), prefetch=prefetch)
    for block, group in groups.items():
        if group.places:
            block.forward = _Forward(buffer, group, block, block.__dict__.get("forward"))
    for layer in owners:
        if isinstance(layer, _ExactLayer):
            layer._exact.buffer = buffer
    _give_back_memory()
    return model


def exact_bytes(model: torch.nn.Module) -> ExactBytes:
    """Count the bytes of a model's compressed weights, each once, and of the buffer that they are decoded into."""
    found = [layer._exact for layer in model.modules() if isinstance(layer, (ExactLinear, ExactEmbedding))]
    stored = {id(exact.stored): exact.stored for exact in found}.values()
    containers = {id(weight.container): weight.container for weight in stored}.values()
    buffers = {id(exact.buffer): exact.buffer for exact in found if exact.buffer is not None}.values()
    return ExactBytes(
        plain=sum(weight.nbytes for weight in stored),
        coded=sum(len(container.data) for container in containers),
        buffer=sum(buffer.nbytes for buffer in buffers),
    )


class _Exact:
    """What a compressed layer knows of its weight."""

    def __init__(self, stored: StoredWeight, level: int | None) -> None:
        self.stored, self.level = stored, level
        self.buffer: Buffer | None = None  # the model's; an embedding's rows do not go through it, a tied head does

    def fresh(self) -> torch.Tensor:
        """A tensor of its own."""
        return self.stored.decoded(tersor.torch._threads())

    def held(self) -> torch.Tensor:
        """The weight in the buffer where it is there, else a tensor of its own."""
        view = None if self.buffer is None else self.buffer.view(self.stored)
        return self.fresh() if view is None else view

    def replace(self, weight: torch.Tensor) -> None:
        """Take other values, for all layers that share them."""
        fresh = self.stored.coded_anew(weight, self.level)
        if self.buffer is None:
            self.stored.become(fresh)
        else:
            self.buffer.replace(self.stored, fresh)
        _shown.pop(self.stored, None)


class _Forward:
    """A block's forward that holds the block's weights. Forward hooks would not hear of a KeyboardInterrupt."""

    def __init__(self, buffer: Buffer, group: Group, block: torch.nn.Module, own: Callable[..., Any] | None) -> None:
        """own: a forward that the block had of its own; None where its class has it."""
        self._buffer, self._group, self._own = buffer, group, own
        self._block = weakref.ref(block)  # no cycle: a model's memory goes with its last name

    def __reduce__(self) -> tuple[Any, ...]:
        return _Forward, (self._buffer, self._group, self._block(), self._own)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        block: Any = self._block()
        self._buffer.enter(self._group)
        try:
            if self._own is not None:
                return self._own(*arguments, **named)
            return type(block).forward(block, *arguments, **named)
        finally:
            self._buffer.leave(self._group)


class _ExactLayer(torch.nn.Module):  # type: ignore[misc]
    """What both layers share: the weight under its name in state_dict and load_state_dict."""

    _exact: _Exact

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        stored = self._exact.stored
        shown = _shown[stored]() if stored in _shown else None
        if shown is None:
            shown = self._exact.fresh()
            _shown[stored] = weakref.ref(shown)
        destination[prefix + "weight"] = shown
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name, stored = prefix + "weight", self._exact.stored
        weight = state_dict.get(name)
        if weight is None:
            missing_keys.append(name)
        elif tuple(weight.shape) != stored.shape:
            found = f"{list(weight.shape)} in the state dict, {list(stored.shape)} in the model"
            error_msgs.append(f"size mismatch for {name}: {found}")
        else:
            self._exact.replace(weight)
        rest = {key: value for key, value in state_dict.items() if key.startswith(prefix) and key != name}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        was = torch.empty(0, dtype=self._exact.stored.dtype, device="cpu")
        now = fn(was)
        if (now.dtype, now.device) != (was.dtype, was.device):
            raise RuntimeError(
                f"a compressed weight stays {was.dtype} on {was.device}, {now.dtype} on {now.device} is asked for: "
                "move or cast the model before compress_exact_"
            )
        return super()._apply(fn, recurse)


class ExactLinear(_ExactLayer, torch.nn.Linear):  # type: ignore[misc]
    """torch.nn.Linear whose weight stays compressed; made by `compress_exact_` alone."""

    @property
    def weight(self) -> torch.Tensor:
        """While its block runs without autograd the decoded weight in the buffer, else a fresh tensor."""
        return self._exact.fresh() if torch.is_grad_enabled() else self._exact.held()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As torch.nn.Linear."""
        if torch.is_grad_enabled() and input.requires_grad:  # autograd keeps the weight longer than the buffer does
            return torch.nn.functional.linear(input, self._exact.fresh(), self.bias)
        output = torch.nn.functional.linear(input, self._exact.held(), self.bias)
        if self._exact.buffer is not None:
            self._exact.buffer.done(self._exact.stored)
        return output


class ExactEmbedding(_ExactLayer, torch.nn.Embedding):  # type: ignore[misc]
    """torch.nn.Embedding whose weight stays compressed; made by `compress_exact_` alone."""

    @property
    def weight(self) -> torch.Tensor:
        """A fresh tensor, whole."""
        return self._exact.fresh()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As torch.nn.Embedding; decodes the blocks of rows that are asked for."""
        return self._exact.stored.rows(input, tersor.torch._threads())


# Tensors that a state dict still holds: shared weights are one tensor in it, as in a plain model.
_shown: weakref.WeakKeyDictionary[StoredWeight, weakref.ref[torch.Tensor]] = weakref.WeakKeyDictionary()
# The second is MultiheadAttention's, and computes what the first does.
_LINEAR = (torch.nn.Linear, torch.nn.modules.linear.NonDynamicallyQuantizableLinear)


def _owners(model: torch.nn.Module) -> dict[Any, list[Any]]:
    """Layers to compress -> all layers that share the weight, in the model's order."""
    layers: dict[int, list[Any]] = {}
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
        if type(module) in _LINEAR or (type(module) is torch.nn.Embedding and module.max_norm is None):
            layers.setdefault(id(module.weight), []).append(module)
    owners: dict[Any, list[Any]] = {}
    for sharing in layers.values():
        weight = sharing[0]._parameters.get("weight")
        if weight is None or not weight.is_floating_point() or not weight.is_contiguous() or weight.numel() == 0:
            continue
        if weight.device.type != "cpu":
            raise ValueError(f"weights are on the CPU, found one on {weight.device}: model.cpu() comes first")
        if holders[id(weight)] == len(sharing):  # nobody else would keep it whole in memory
            owners |= dict.fromkeys(sharing, sharing)
    return owners


def _blocks(module: torch.nn.Module, owners: Mapping[Any, Any]) -> Iterator[torch.nn.Module]:
    """The elements of the outermost ModuleLists, and linear layers outside of them, in the model's order."""
    if isinstance(module, torch.nn.Linear) and module in owners:
        yield module
    for child in module.children():
        if not isinstance(module, torch.nn.ModuleList) or isinstance(child, torch.nn.ModuleList):
            yield from _blocks(child, owners)
        else:
            yield child


def _code(layers: list[Any], owners: Mapping[Any, list[Any]], level: int | None) -> None:
    """Compress the weights of some layers into one container; their tensors go, where coding them saves bytes."""
    sharing = {id(layer.weight): owners[layer] for layer in layers}
    several = list(sharing.values())
    weights = [(same[0].weight, _block_rows(same)) for same in several]
    if not weights:
        return
    stored = store(weights, level)
    smaller = [weight.coded_bytes() < weight.nbytes for weight in stored]
    if not all(smaller):
        several = [same for same, shrinks in zip(several, smaller, strict=True) if shrinks]
        stored = store([pair for pair, shrinks in zip(weights, smaller, strict=True) if shrinks], level)
    for same, weight in zip(several, stored, strict=True):
        for layer in same:
            del layer._parameters["weight"]
            layer._exact = _Exact(weight, level)
            layer.__class__ = ExactEmbedding if isinstance(layer, torch.nn.Embedding) else ExactLinear


def _block_rows(sharing: list[Any]) -> int:
    weight = sharing[0].weight
    if not any(isinstance(layer, torch.nn.Embedding) for layer in sharing):
        return int(weight.shape[0])
    return max(1, BLOCK_BYTES // (int(weight.shape[1]) * int(weight.element_size())))


def _give_back_memory() -> None:
    """Let glibc return the pages of the tensors that went; elsewhere nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
