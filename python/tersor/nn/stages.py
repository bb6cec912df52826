"""A model run stage by stage: block after block where it has blocks, else whole; only one stage's weights in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from tersor.nn.blocks import blocks_of
from tersor.nn.quantized import tensor_of_array


class Source(Protocol):
    """A model's arrays by the names of its parameters and buffers."""

    def names(self) -> Sequence[str]: ...
    def array(self, name: str) -> np.ndarray[Any, Any]: ...
    def dtype(self, name: str) -> str:
        """By safetensors' name; "" for a name that it has not."""


class Stage:
    """A part of a model whose output depends on its inputs alone. prefix: of its parameters' names, dots and all."""

    def __init__(self, model: torch.nn.Module, module: torch.nn.Module, prefix: str) -> None:
        self.model, self.module, self.prefix = model, module, prefix
        self.arguments: tuple[Any, ...] = ()
        self.named: Mapping[str, Any] = {}

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """What it makes of one window."""
        if not self.prefix:
            return logits_of(self.model, hidden)
        return _first(self.module(hidden, *self.arguments, **self.named))

    def load(self, source: Source) -> None:
        """Weights in float32 from the source."""
        load(self.model, source, [name for name in source.names() if name.startswith(self.prefix)])

    def drop(self) -> None:
        """Weights to the device "meta", where they take no memory; buffers that no file has stay."""
        if self.prefix:
            drop(self.module)


class Stages:
    """The stages of a model, what feeds the first and what becomes of the last.

    model: parameters on meta, buffers in memory. windows: int64 [count, length]. `outside`: names of the source that no
    stage has.
    """

    def __init__(self, model: torch.nn.Module, source: Source, windows: torch.Tensor) -> None:
        self._model, self._source, self._windows = model, source, windows
        found = blocks_of(model)
        self.reason = "" if found else "it has no list of blocks of one type"
        if found:
            self._path, blocks = found
            self.stages = [Stage(model, block, f"{self._path}.{i}.") for i, block in enumerate(blocks)]
            self.outside = [name for name in source.names() if not name.startswith(f"{self._path}.")]
            if len(windows):
                self.load_outside()
                try:
                    self.reason = self._find_arguments()
                except Exception as error:  # whatever a model says whose blocks are not as ours are
                    self.reason = f"its blocks are not fed as others are: {error}"
        if self.reason:
            self.stages, self.outside = [Stage(model, model, "")], []

    @property
    def is_whole(self) -> bool:
        """Whether there is one stage, the model, for `reason`: its output is then the model's."""
        return bool(self.reason)

    def has(self, name: str) -> bool:
        """Whether a parameter is a stage's."""
        return any(name.startswith(stage.prefix) for stage in self.stages)

    def load_outside(self) -> None:
        """Embeddings, last norm and head into memory."""
        load(self._model, self._source, self.outside)

    def drop_outside(self) -> None:
        """And out of it."""
        if self.is_whole:
            return
        for name, parameter in [*self._model.named_parameters(remove_duplicate=False)]:
            if not name.startswith(f"{self._path}."):
                _put(self._model, name, parameter.data.to("meta"))

    def first_input(self, window: int) -> torch.Tensor:
        """What the first stage is given. Needs what is outside in memory."""
        ids = self._windows[window][None]
        return ids if self.is_whole else self._through(_Stop, ids)

    def outputs(self, hidden: torch.Tensor, window: int) -> torch.Tensor:
        """The model's, [length, ...], given those of the last stage. Needs what is outside in memory."""
        if self.is_whole:
            return hidden[0]
        last = self.stages[-1].module
        return self._through(
            lambda block: _Pass(block, self._tuple, hidden if block is last else None), self._windows[window][None]
        )[0]

    def _find_arguments(self) -> str:
        """What each block is given beside hidden states; why that is not the same for all windows, or ""."""
        ids = [self._windows[i][None] for i in range(min(2, len(self._windows)))]
        first = self.stages[0]
        stop = _Stop(first.module)
        hidden = self._through(lambda block: stop, ids[0])
        first.arguments, first.named = stop.arguments, stop.named
        first.load(self._source)
        with torch.no_grad():
            self._tuple = isinstance(first.module(hidden, *first.arguments, **first.named), tuple)
        first.drop()
        found: list[list[_Pass]] = []
        for one in ids:
            passes = {stage.module: _Pass(stage.module, self._tuple) for stage in self.stages}
            self._through(passes.__getitem__, one)
            found.append(list(passes.values()))
        for i, stage in enumerate(self.stages):
            seen = [passes[i] for passes in found]
            if any(one.calls != 1 for one in seen):
                return f"block {i} is called {max(one.calls for one in seen)} times"
            if not all(_same((seen[0].arguments, seen[0].named), (one.arguments, one.named)) for one in seen):
                return "what blocks are given depends on the text"
            stage.arguments, stage.named = seen[0].arguments, seen[0].named
        return ""

    def _through(self, in_place_of: Callable[[torch.nn.Module], torch.nn.Module], ids: torch.Tensor) -> torch.Tensor:
        """The model with others in the place of its blocks: what reaches its end, or the block that stops it."""
        blocks = self._model.get_submodule(self._path)
        try:
            for i, stage in enumerate(self.stages):
                blocks._modules[str(i)] = in_place_of(stage.module)
            with torch.no_grad():
                return logits_of(self._model, ids)
        except _StoppedError as stopped:
            return stopped.hidden
        finally:
            for i, stage in enumerate(self.stages):
                blocks._modules[str(i)] = stage.module


def load(model: torch.nn.Module, source: Source, names: Sequence[str]) -> None:
    """Parameters in float32 and buffers as they are, by their names; then what is tied."""
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)} | dict(model.named_buffers()).keys()
    for name in names:
        if name in known:
            _put(model, name, tensor_of_array(source.array(name)))
    if hasattr(model, "tie_weights"):
        model.tie_weights()


def drop(model: torch.nn.Module) -> None:
    """All parameters to the device "meta"; what is tied stays so."""
    for name, parameter in [*model.named_parameters()]:
        _put(model, name, parameter.data.to("meta"))
    if hasattr(model, "tie_weights"):
        model.tie_weights()


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What a model of transformers makes of ids [1, length]: logits, or hidden states where it has no head."""
    options = {"use_cache": False} if getattr(getattr(model, "config", None), "use_cache", None) is not None else {}
    return _first(model(input_ids=ids, **options))


def _first(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    found: torch.Tensor = output[0]
    return found


def _put(model: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    if last in module._buffers:
        module._buffers[last] = tensor
        return
    wide = tensor.to(torch.float32) if tensor.is_floating_point() and tensor.device.type != "meta" else tensor
    module._parameters[last] = torch.nn.Parameter(wide, requires_grad=False)


class _StoppedError(Exception):
    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _StandIn(torch.nn.Module):  # type: ignore[misc]
    """In the place of a block; what a model asks of it beside its output, the block answers."""

    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = {}

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # no child of this one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)


class _Stop(_StandIn):
    """Ends the forward with what it is given."""

    def forward(self, hidden: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        self.arguments, self.named = arguments, named
        raise _StoppedError(hidden)


class _Pass(_StandIn):
    """Gives back what it is given, or `gives`."""

    def __init__(self, block: torch.nn.Module, is_tuple: bool, gives: torch.Tensor | None = None) -> None:
        super().__init__(block)
        self.is_tuple, self.gives, self.calls = is_tuple, gives, 0

    def forward(self, hidden: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        self.arguments, self.named = arguments, named
        self.calls += 1
        out = hidden if self.gives is None else self.gives
        return (out,) if self.is_tuple else out


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (int, float, str, type(None))):
        return bool(a == b)
    return a is b or type(a) is type(b)
