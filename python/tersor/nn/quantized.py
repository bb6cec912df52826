"""Linear and embedding layers over packed matrices of few bits. Page: docs/gemm.md."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import tersor.torch
from tersor import FormatError, gemm
from tersor.formats import Format, QuantizedTensor, quantize
from tersor.formats.grid_format import GridFormat
from tersor.formats.recorded import SIDE_TERMS, TRANSFORMS, Recorded, recorded_from_dict
from tersor.lossless import NUMPY_DTYPES
from tersor.torch import low_bit

_BLOCK = 1 << 22  # weights that are dense at once where an error is measured


class PackedWeight:
    """One quantized matrix as the kernels read it. Layers may share it, and then see what one of them loads.

    Of a format with a code a weight the stored codes are dropped when they are packed, and made anew, bit for bit, when
    they are asked for; scales and the like, a few hundredths of the whole, are kept as they were.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        """Raises ValueError for what cannot be packed: says why."""
        self.take(tensor)

    def take(self, tensor: QuantizedTensor) -> None:
        """Become another matrix."""
        packed = gemm.PackedMatrix.of(tensor)
        # Copies, for a view would keep the whole file alive that it is of.
        self._kept = {name: np.array(array) for name, array in tensor.parts.items() if not _is_remade(tensor, name)}
        self._record = {
            field.name: getattr(tensor, field.name) for field in dataclasses.fields(tensor) if field.name != "parts"
        }
        self.packed = packed
        self.data = low_bit.packed_tensor(packed).data
        self.rows, self.columns = packed.shape
        self.bits_per_weight = tensor.bits_per_weight  # of what is stored
        self._shown: dict[str, weakref.ref[torch.Tensor]] = {}

    @property
    def format(self) -> Format:
        """What it is stored in."""
        found: Format = self._record["format"]
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix that was quantized."""
        return tersor.torch._DTYPES[self._record["dtype"]]

    def quantized(self) -> QuantizedTensor:
        """The quantized tensor, its codes made anew."""
        fmt = self.format
        parts = {
            name: self._kept[name] if name in self._kept else self.packed.codes(fmt)
            for name in (fmt.parts(self.rows, self.columns) if isinstance(fmt, GridFormat) else self._kept)
        }
        return QuantizedTensor(**self._record, parts=parts)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every stored array by its name; the same tensors for all layers that share the weight."""
        shown = {name: reference() for name, reference in self._shown.items()}
        if shown and all(tensor is not None for tensor in shown.values()):
            return {name: tensor for name, tensor in shown.items() if tensor is not None}
        made = {name: tensor_of_array(array) for name, array in self.quantized().arrays().items()}
        self._shown = {name: weakref.ref(one) for name, one in made.items()}
        return made

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take what `tensors` gave. Raises FormatError, ValueError and TypeError for arrays of another matrix."""
        arrays = {name: array_of_tensor(tensor) for name, tensor in tensors.items()}
        parts = {name: array for name, array in arrays.items() if "." not in name}

        def recorded(what: str, some: tuple[Recorded, ...], kinds: Mapping[str, str]) -> tuple[Recorded, ...]:
            return tuple(
                recorded_from_dict(
                    {**one.to_dict(), "kind": one.kind},
                    {part: arrays[f"{what}{i}.{part}"] for part in one.parts()},
                    (self.rows, self.columns),
                    kinds,
                )
                for i, one in enumerate(some)
            )

        record = {
            **self._record,
            "errors": {},  # those of the weights that go
            "transforms": recorded("transform", self._record["transforms"], TRANSFORMS),
            "side_terms": recorded("side_term", self._record["side_terms"], SIDE_TERMS),
        }
        self.take(QuantizedTensor(**record, parts=parts))

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedWeight:
        """Another weight over the same memory, which nobody writes: loading into one leaves the other as it is."""
        other: PackedWeight = object.__new__(PackedWeight)
        other.__dict__ |= self.__dict__ | {"_shown": {}}
        memo[id(self)] = other
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedWeight, (self.quantized(),)


def _is_remade(tensor: QuantizedTensor, name: str) -> bool:
    return name == "codes" and isinstance(tensor.format, GridFormat)


def tensor_of_array(array: Any) -> torch.Tensor:
    """A NumPy array as a tensor of its own memory."""
    name = next(name for name, dtype in NUMPY_DTYPES.items() if dtype == array.dtype)
    bits = np.array(array, order="C").reshape(-1).view(np.uint8)
    return torch.from_numpy(bits).view(tersor.torch._DTYPES[name]).reshape(array.shape)


def array_of_tensor(tensor: torch.Tensor) -> Any:
    """The same as NumPy has it, over the same memory where it is contiguous."""
    name = tersor.torch._NAMES[tensor.dtype]
    bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return bits.view(NUMPY_DTYPES[name]).reshape(tuple(tensor.shape))


class _QuantLayer(torch.nn.Module):  # type: ignore[misc]
    """What both layers share: the stored arrays under their names in state_dict and load_state_dict."""

    packed_weight: PackedWeight

    @property
    def weight(self) -> torch.Tensor:
        """The matrix [N, K] dequantized, a fresh dense tensor."""
        held = self.packed_weight
        return torch.ops.tersor.packed_rows(held.data, torch.arange(held.rows), held.columns, held.dtype)

    def quantized(self) -> QuantizedTensor:
        """The weight as it is stored: to save it alone, or to look at its errors."""
        return self.packed_weight.quantized()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self.packed_weight.tensors().items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        names = list(self.packed_weight.tensors())
        found = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        if len(found) == len(names):
            try:
                self.packed_weight.load(found)
            except (FormatError, ValueError, TypeError, KeyError) as error:
                layer = prefix.rstrip(".") or "the layer"
                error_msgs.append(f"{layer}, stored in {self.packed_weight.format}: {error}")
        elif strict:
            missing_keys.extend(prefix + name for name in names if name not in found)
        rest = {key: value for key, value in state_dict.items() if key.removeprefix(prefix) not in names}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, device="cpu")).device
        if device.type != "cpu":
            raise RuntimeError(f"low-bit layers run on the CPU, {device} is asked for")
        return super()._apply(fn, recurse)


class QuantLinear(_QuantLayer):
    """torch.nn.Linear whose weight is stored in few bits: y = x W^T + bias. The weight is frozen, bias is a parameter.

    activations: how x is read, see tersor.gemm.linear; it may be set. packed_weight: a PackedWeight.
    state_dict holds the format's parts under their names ("codes", "scales", ...) and bias, as plain tensors.
    """

    def __init__(
        self, packed_weight: PackedWeight, bias: torch.Tensor | None = None, *, activations: str | None = None
    ) -> None:
        """bias: [N], or None. activations: None for what the weight records. Raises ValueError."""
        super().__init__()
        self.packed_weight = packed_weight
        self.in_features, self.out_features = packed_weight.columns, packed_weight.rows
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias is {list(bias.shape)}, [{self.out_features}] is needed")
        if bias is not None and not isinstance(bias, torch.nn.Parameter):
            bias = torch.nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", bias)
        self.activations = activations or packed_weight.packed.activations

    @classmethod
    def from_float(
        cls, linear: torch.nn.Linear, fmt: Format | str, *, clip: str = "none", activations: str | None = None
    ) -> QuantLinear:
        """Quantize a dense layer, which stays as it is; the bias is shared. Raises what tersor.quantize raises."""
        weight = linear.weight.detach()
        low_bit.require_cpu(weight, "the weight")
        return cls.from_quantized(quantize(weight, fmt, clip=clip), linear.bias, activations=activations)

    @classmethod
    def from_quantized(
        cls, tensor: QuantizedTensor, bias: torch.Tensor | None = None, *, activations: str | None = None
    ) -> QuantLinear:
        """Pack a quantized matrix [N, K], whose parts are no longer needed then. Raises ValueError: why it cannot."""
        return cls(PackedWeight(tensor), bias, activations=activations)

    @classmethod
    def from_embedding(
        cls, embedding: QuantEmbedding, bias: torch.Tensor | None = None, *, activations: str | None = None
    ) -> QuantLinear:
        """An output head tied to an embedding: both read one packed matrix."""
        return cls(embedding.packed_weight, bias, activations=activations)

    @property
    def activations(self) -> str:
        """How x is read."""
        return self._activations

    @activations.setter
    def activations(self, activations: str) -> None:
        number = low_bit.number_of(activations)
        gemm.linear(np.zeros((1, self.in_features), np.float32), self.packed_weight.packed, activations=activations)
        self._activations, self._number = activations, number

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [..., K] of float32, float16 or bfloat16 on the CPU. Returns [..., N] of its dtype."""
        held = self.packed_weight
        return low_bit.multiply(input, held.data, self.bias, held.rows, self._number)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def activation_error(self, input: torch.Tensor) -> float:
        """What reading these activations as the layer does costs: ||y - z|| / ||z|| without bias, z in float64.

        input: [..., K], a batch of the real ones. The error of the weights, which z has as well, is not in it.
        """
        held = self.packed_weight
        x = input.reshape(-1, self.in_features)
        y = low_bit.multiply(x.to(torch.float32), held.data, None, held.rows, self._number)
        wide, step = x.to(torch.float64), max(1, _BLOCK // held.columns)
        off = of = 0.0
        for first in range(0, held.rows, step):
            ids = torch.arange(first, min(held.rows, first + step))
            some = torch.ops.tersor.packed_rows(held.data, ids, held.columns, torch.float32)
            z = wide @ some.to(torch.float64).T
            off += float((y[:, first : first + step] - z).square().sum())
            of += float(z.square().sum())
        return float((off / of) ** 0.5) if of else 0.0

    def extra_repr(self) -> str:
        """Sizes, format, bits a weight."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"{_told(self.packed_weight)}, activations={self.activations}"
        )


class QuantEmbedding(_QuantLayer):
    """torch.nn.Embedding whose rows are dequantized when they are looked up, to `dtype`, which .to(dtype) changes."""

    def __init__(
        self, packed_weight: PackedWeight, *, padding_idx: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """dtype: of the rows, None for that of the matrix that was quantized."""
        super().__init__()
        self.packed_weight, self.padding_idx = packed_weight, padding_idx
        self.num_embeddings, self.embedding_dim = packed_weight.rows, packed_weight.columns
        self.dtype = packed_weight.dtype if dtype is None else dtype

    @classmethod
    def from_float(cls, embedding: torch.nn.Embedding, fmt: Format | str, *, clip: str = "none") -> QuantEmbedding:
        """Quantize a dense layer, which stays as it is. Raises ValueError (max_norm), and what quantize raises."""
        if embedding.max_norm is not None:
            raise ValueError("max_norm changes weights at every call, and packed ones do not change")
        weight = embedding.weight.detach()
        low_bit.require_cpu(weight, "the weight")
        return cls.from_quantized(quantize(weight, fmt, clip=clip), padding_idx=embedding.padding_idx)

    @classmethod
    def from_quantized(cls, tensor: QuantizedTensor, *, padding_idx: int | None = None) -> QuantEmbedding:
        """Pack a quantized matrix [rows, dim]. Raises ValueError: why it cannot."""
        return cls(PackedWeight(tensor), padding_idx=padding_idx)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: ids, int32 or int64 of any shape. Returns [*input.shape, embedding_dim]. RuntimeError: a bad id."""
        held = self.packed_weight
        rows: torch.Tensor = torch.ops.tersor.packed_rows(held.data, input, held.columns, self.dtype)
        return rows

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device="cpu")).dtype
        return self

    def extra_repr(self) -> str:
        """Sizes, format, bits a weight."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}, {_told(self.packed_weight)}, dtype={self.dtype}"


def read_exactly(model: torch.nn.Module) -> None:
    """Set activations="exact" on every layer in few bits: what is measured then is the weights."""
    for module in model.modules():
        if hasattr(module, "activations") and hasattr(module, "_number"):
            module.activations = "exact"


def _told(weight: PackedWeight) -> str:
    return f"{weight.format}, {weight.bits_per_weight:.2f} bits/weight"
