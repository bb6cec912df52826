"""What flows through a model while it is quantized, window by window, the same for any number of threads."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from tersor.calibrate import Statistics
from tersor.nn import experts
from tersor.nn.blocks import Layer

_EXPERTS = 4  # whose statistics are gathered in one pass: each has a matrix K x K
IN_MEMORY = 1 << 28  # bytes of hidden states; above, they lie in a file

T = TypeVar("T")


class Workers:
    """Runs one window after another on threads of one core each, so that sums do not depend on how many there are."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def each(self, work: Callable[[int], T], count: int) -> Iterator[T]:
        """work(0), work(1), ... in order; some are computed ahead."""

        def quietly(i: int) -> T:
            with torch.no_grad():
                return work(i)

        ahead: deque[Future[T]] = deque()
        for i in range(count):
            ahead.append(self._pool.submit(quietly, i))
            if len(ahead) > self.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class HiddenStates(Sequence[Any]):
    """Tensors of one shape and dtype, a window each: in memory while they are few, else in a file."""

    def __init__(self, count: int, place: Path) -> None:
        self._count, self._place = count, place
        self._held: list[torch.Tensor | None] = [None] * count
        self._file: Any = None
        self._like: tuple[torch.Size, torch.dtype] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        if self._file is None:
            held = self._held[i]
            assert held is not None
            return held
        assert self._like is not None
        shape, dtype = self._like
        size = shape.numel() * dtype.itemsize
        with self._lock:
            self._file.seek(i * size)
            data = np.fromfile(self._file, np.uint8, size)
        return torch.from_numpy(data).view(dtype).view(shape)

    def __setitem__(self, i: int, tensor: torch.Tensor) -> None:
        if self._like is None:
            self._like = tensor.shape, tensor.dtype
            if tensor.nbytes * self._count > IN_MEMORY:
                self._file = open(self._place, "w+b")  # noqa: SIM115 - close() closes it
        if (tensor.shape, tensor.dtype) != self._like:
            raise ValueError(f"window {i} has hidden states {list(tensor.shape)}, the first had {list(self._like[0])}")
        if self._file is None:
            self._held[i] = tensor.clone()
            return
        with self._lock:
            self._file.seek(i * tensor.nbytes)
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tofile(self._file)

    def close(self) -> None:
        self._held = []
        if self._file is not None:
            self._file.close()
            self._place.unlink(missing_ok=True)


class _EnoughError(Exception):
    """Ends a forward whose rest nobody needs."""


class Taps:
    """Hooks on the layers of a stage: they see what goes into each, on whichever thread it runs."""

    def __init__(self, module: torch.nn.Module, layers: Sequence[Layer], root: torch.nn.Module) -> None:
        self._root, self._layers = root, layers
        self._seen = threading.local()

    def order(self, forward: Callable[[], Any]) -> list[list[Layer]]:
        """The layers in groups that read the same input, in the order in which one forward reaches them.

        Layers that it does not reach come last, one by one.
        """
        calls: list[tuple[str, Any]] = []
        paths = list(dict.fromkeys(layer.path for layer in self._layers))

        def note(path: str) -> Callable[..., None]:
            return lambda module, arguments: calls.append((path, arguments[0]))

        handles = [self._root.get_submodule(path).register_forward_pre_hook(note(path)) for path in paths]
        try:
            with torch.no_grad():
                forward()
        finally:
            for handle in handles:
                handle.remove()
        groups: dict[Any, list[str]] = {}
        first: dict[str, Any] = {}
        for path, x in calls:  # which keep their tensors alive, so that no two share an address
            if path not in first:
                first[path] = (x.data_ptr(), tuple(x.shape), x.stride())
                groups.setdefault(first[path], []).append(path)
        self.calls_once = len(calls) == len(first)
        ordered = [[layer for layer in self._layers if layer.path in paths] for paths in groups.values()]
        ordered += [[layer] for layer in self._layers if layer.path not in first]
        return [part for group in ordered for part in _by_parameter(group)]

    def statistics(
        self, group: Sequence[Layer], forward: Callable[[int], Any], count: int, workers: Workers
    ) -> dict[str, Statistics]:
        """Of what goes into each layer of a group, over all windows; layers with the same input share one."""
        path = group[0].path
        module = self._root.get_submodule(path)
        is_expert = group[0].module == "expert"
        made = {layer.name: Statistics(layer.shape[1]) for layer in (group if is_expert else group[:1])}

        def see(module: torch.nn.Module, arguments: Any) -> None:
            self._seen.inputs.append(arguments)
            if self.calls_once:
                raise _EnoughError

        def run(i: int) -> list[tuple[str, np.ndarray[Any, Any]]]:
            self._seen.inputs = []
            with contextlib.suppress(_EnoughError):
                forward(i)
            if not is_expert:
                return [(group[0].name, _rows(arguments[0])) for arguments in self._seen.inputs]
            return [
                (name, _rows(x)) for arguments in self._seen.inputs for name, x in _of_experts(module, group, arguments)
            ]

        handle = module.register_forward_pre_hook(see)
        try:
            for found in workers.each(run, count):
                for name, x in found:
                    made[name].update(x)
        finally:
            handle.remove()
        return made if is_expert else {layer.name: made[group[0].name] for layer in group}


def _by_parameter(group: list[Layer]) -> list[list[Layer]]:
    """Experts' second matrices read what their first ones give."""
    if not group or group[0].module != "expert":
        return [group] if group else []
    parts: dict[str, list[Layer]] = {}
    for layer in group:
        parts.setdefault(layer.name.rpartition(".")[0], []).append(layer)
    some = [part[i : i + _EXPERTS] for part in parts.values() for i in range(0, len(part), _EXPERTS)]
    return some


def _rows(x: torch.Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = x.detach().reshape(-1, x.shape[-1]).to(torch.float32).numpy()
    return found


def _of_experts(module: Any, group: Sequence[Layer], arguments: Any) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, index = arguments[0], arguments[1]
    for layer in group:
        _, parameter, number = layer.name.rsplit(".", 2)
        x = hidden[(index == int(number)).any(-1)]
        if parameter == experts.PARAMETERS[1]:
            up = torch.nn.functional.linear(x, module.gate_up_proj[int(number)])
            x = module._apply_gate(up) if hasattr(module, "_apply_gate") else _gated(module, up)
        if len(x):
            yield layer.name, x


def _gated(module: Any, up: torch.Tensor) -> torch.Tensor:
    gate, rest = up.chunk(2, dim=-1)
    product: torch.Tensor = module.act_fn(gate) * rest
    return product
