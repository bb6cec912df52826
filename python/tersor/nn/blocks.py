"""Where the matrices of a model stand: by the types of its modules, never by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tersor.nn import experts

LEAST = 32  # rows or columns: below, scales take as much as is saved, and routers choose by such matrices


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A matrix of a model.

    name: of its parameter; of an expert's matrix, the parameter, a dot and the expert's number. path: of its module.
    module: "linear", "conv1d", "embedding" or "expert", as formats.model_folder.Entry has it. shape: [N, K] of the
    matrix. tied_to: the layer that has the same parameter and comes first. reason: why it stays dense, or "".
    """

    name: str
    path: str
    module: str
    shape: tuple[int, int]
    tied_to: str = ""
    reason: str = ""


def blocks_of(model: torch.nn.Module) -> tuple[str, list[torch.nn.Module]] | None:
    """The path and the members of the list that holds most of a model: modules of one type, each fed by the last.

    None where there is no such list of two members or more.
    """
    found: tuple[int, str, list[torch.nn.Module]] | None = None
    for path, module in model.named_modules():
        members = list(module) if isinstance(module, torch.nn.ModuleList) else []
        if len(members) < 2 or len({type(one) for one in members}) != 1:
            continue
        size = sum(parameter.numel() for parameter in module.parameters())
        if found is None or size > found[0]:
            found = (size, path, members)
    return None if found is None else found[1:]


def layers_of(model: torch.nn.Module) -> list[Layer]:
    """Every matrix of linear layers, embeddings and experts, in the model's order. Parameters may be on meta."""
    holders: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    found: list[Layer] = []
    for path, module in model.named_modules():
        if any(hasattr(module, name) for name in experts.PARAMETERS) and _is_three_dimensional(module):
            found += _experts(path, module)
            continue
        kind = kind_of(module)
        if not kind:
            weight = module._parameters.get("weight")
            if weight is not None and weight.ndim == 2 and not _too_small(tuple(weight.shape)):
                shape = (int(weight.shape[0]), int(weight.shape[1]))
                reason = f"a {type(module).__name__}, which is not known"
                found.append(Layer(name=f"{path}.weight", path=path, module="linear", shape=shape, reason=reason))
            continue
        rows, columns = module.weight.shape[::-1] if kind == "conv1d" else module.weight.shape
        others = [name.removesuffix(".weight") for name in holders[id(module.weight)]]
        first = next((layer for layer in found if layer.path in others and layer.path != path), None)
        shared = [other for other in others if other != path]
        found.append(
            Layer(
                name=f"{path}.weight",
                path=path,
                module=kind,
                shape=(int(rows), int(columns)),
                tied_to="" if first is None else first.name,
                reason=_reason(module, kind, (int(rows), int(columns)), shared, model),
            )
        )
    return found


def kind_of(module: torch.nn.Module) -> str:
    """What holds a matrix: "linear", "conv1d" or "embedding"; "" for other modules."""
    if type(module) is torch.nn.Linear:
        return "linear"
    if type(module) is torch.nn.Embedding:
        return "embedding"
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        return "conv1d"
    return ""


def matrix_of(module: torch.nn.Module, layer: Layer) -> torch.Tensor:
    """The matrix [N, K] of a layer, a view of its parameter."""
    if layer.module == "expert":
        _, parameter, number = layer.name.rsplit(".", 2)
        found: torch.Tensor = getattr(module, parameter).data[int(number)]
        return found
    weight: torch.Tensor = module.weight.data
    return weight.T if layer.module == "conv1d" else weight


def _is_three_dimensional(module: torch.nn.Module) -> bool:
    return any(getattr(getattr(module, name, None), "ndim", 0) == 3 for name in experts.PARAMETERS)


def _experts(path: str, module: Any) -> list[Layer]:
    shapes = [parameter.shape[1:] for parameter in module._parameters.values() if getattr(parameter, "ndim", 0) == 3]
    # All of them or none: one layer runs them all.
    small = next((told for shape in shapes if (told := _too_small(tuple(shape)))), "")
    reason = experts.reason_against(module) or small
    found = []
    for name in experts.PARAMETERS:
        parameter = getattr(module, name, None)
        if parameter is None or parameter.ndim != 3:
            continue
        count, rows, columns = parameter.shape
        found += [
            Layer(
                name=f"{path}.{name}.{i}", path=path, module="expert", shape=(int(rows), int(columns)),
                reason=reason,
            )
            for i in range(count)
        ]  # fmt: skip
    return found


def _reason(module: Any, kind: str, shape: tuple[int, int], shared: list[str], model: Any) -> str:
    if "forward" in module.__dict__:
        return "it has a forward of its own"
    if kind == "embedding":
        if module.max_norm is not None:
            return "max_norm changes weights at every call"
        return ""
    for other in shared:
        if kind_of(model.get_submodule(other)) != "embedding":
            return f"its weight is that of {other} as well"
    return _too_small(shape)


def _too_small(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]} is too small to gain" if min(shape) < LEAST else ""
