"""y = x W^T over quantized matrices: the typed door to `csrc/gemm`. What it reads today: docs/gemm.md.

q = tersor.quantize(W, "int4-g128")
packed = gemm.PackedMatrix.of(q)
y = gemm.linear(x, packed)
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats.format import rows_of
from tersor.formats.quantized import DTYPES, QuantizedTensor
from tersor.formats.side_terms import LowRank, Outliers
from tersor.lossless import NUMPY_DTYPES, Elements, elements_of

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Self

    from tersor.formats.format import Format

__all__ = ["PackedMatrix", "linear", "linear_experts", "linear_many", "packed_of"]

_HUGE_PAGE = 2 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedMatrix:
    """A quantized matrix [N, K] in the layout of the kernels, in memory only: made anew wherever it is loaded.

    data: uint8, 64-byte aligned, in huge pages where the system gives them, which halves the time of one token.
    activations: how `linear` reads x unless it is told, as the quantized tensor has it.
    """

    data: NDArray[np.uint8]
    shape: tuple[int, int]
    activations: str

    @classmethod
    def of(cls, tensor: QuantizedTensor, *, threads: int = 0) -> Self:
        """Pack a quantized tensor; its parts are no longer needed then.

        Transforms and side terms come with it: x goes through the transforms in every call, and side terms are
        multiplied in float32, 8 bytes an outlier and 4 a number of a thin matrix.
        Raises ValueError for what the driver does not read: groups that are no power of two from 16 to 512 columns nor
        whole rows.
        """
        given = (tensor.format.to_dict(), *tensor.shape, rows_of(tensor.parts))
        size = _core.gemm_packed_bytes(*given, threads)
        extras = _Extras(tensor)
        data = _huge_bytes(size + extras.write(0, 0))
        _core.gemm_pack(*given, data.ctypes.data, size, threads)
        extras.write(data.ctypes.data + size, data.nbytes - size)
        return cls(data=data, shape=tensor.shape, activations=tensor.activations)

    def copy(self) -> Self:
        """The same matrix in memory of its own, in huge pages too."""
        return replace(self, data=_copied(self.data))

    @functools.cached_property
    def _place(self) -> tuple[int, int]:
        """Address and bytes: found once, because every call needs them."""
        return elements_of(self.data).address, self.data.nbytes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_place"}  # copies lie elsewhere

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, data=_copied(state["data"]))

    @property
    def nbytes(self) -> int:
        """Bytes in memory: those of the codes, scales and zeros, rows filled up to a multiple of 32."""
        return self.data.nbytes

    def rows(self, ids: object, dtype: DTypeLike = np.float32, *, threads: int = 0) -> NDArray[Any]:
        """Dequantize some rows, as an embedding looks them up.

        ids: integers of any shape. dtype: float32, float16 or bfloat16, to which rows are rounded from float32.
        Returns [*ids.shape, K]. Raises IndexError (an id that is no row: which), TypeError.
        """
        wanted = _name_of(dtype)
        chosen = _integers(ids, "ids")
        _require_below(chosen, self.shape[0], "id", "rows")
        out = np.empty((*chosen.shape, self.shape[1]), dtype)
        _core.gemm_rows(
            self.data.ctypes.data, self.data.nbytes, chosen.ctypes.data, chosen.size, wanted, out.ctypes.data,
            out.nbytes, threads,
        )  # fmt: skip
        return out

    def codes(self, fmt: Format, *, threads: int = 0) -> NDArray[np.uint8]:
        """The part "codes" that was packed, bit for bit, in rows as `fmt`, the tensor's format, stores it."""
        out = np.empty(fmt.parts(*self.shape)["codes"].shape, np.uint8)
        trits = getattr(fmt, "bits", None) == "ternary"
        _core.gemm_codes(self.data.ctypes.data, self.data.nbytes, trits, out.ctypes.data, out.nbytes, threads)
        return out


class _Extras:
    """Transforms and side terms as the native side takes them; several terms of a kind become one."""

    def __init__(self, tensor: QuantizedTensor) -> None:
        rows, columns = self.shape = tensor.shape
        self.transforms: list[tuple[str, int | None, int]] = []
        self.held: list[NDArray[Any]] = []
        for transform in tensor.transforms:
            numbers = [np.ascontiguousarray(part, _EXTRA_DTYPES[name]) for name, part in transform.parts().items()]
            self.held += numbers
            address = numbers[0].ctypes.data if numbers else 0
            self.transforms.append((transform.kind, getattr(transform, "seed", None), address))
        sparse = [term for term in tensor.side_terms if isinstance(term, Outliers)]
        thin = [term for term in tensor.side_terms if isinstance(term, LowRank)]
        if unknown := [term for term in tensor.side_terms if term not in (*sparse, *thin)]:
            raise ValueError(f"the driver adds Outliers and LowRank, not {unknown[0]}")
        starts = [term.row_starts.astype(np.int64) for term in sparse]
        order = np.concatenate([np.repeat(np.arange(rows), np.diff(start)) for start in starts] or [np.empty(0, int)])
        order = np.argsort(order, kind="stable")
        total: NDArray[np.int64] = sum(starts, np.zeros(rows + 1, np.int64))
        self.row_starts = total.astype(np.uint32)
        self.places = np.concatenate([*(term.columns.astype(np.uint32) for term in sparse), np.empty(0, np.uint32)])
        self.values = np.concatenate([*(term.values.astype(np.float32) for term in sparse), np.empty(0, np.float32)])
        self.places, self.values = self.places[order], self.values[order]
        factors = [term.factors() for term in thin]
        self.u = np.ascontiguousarray(np.concatenate([*(u.T for u, _ in factors), np.empty((0, rows), np.float32)]))
        self.v = np.ascontiguousarray(np.concatenate([*(v for _, v in factors), np.empty((0, columns), np.float32)]))

    def write(self, address: int, size: int) -> int:
        """Write into `size` bytes at the address, unless it is 0; returns how many are needed."""
        numbers = (self.places.size, self.row_starts.ctypes.data, self.places.ctypes.data, self.values.ctypes.data)
        factors = (self.u.shape[0], self.u.ctypes.data, self.v.ctypes.data)
        return _core.gemm_extras(*self.shape, self.transforms, *numbers, *factors, address, size)


_EXTRA_DTYPES = {"scales": np.float32, "order": np.uint32}


def _huge_bytes(size: int) -> NDArray[np.uint8]:
    """Zeros in memory of their own that begins where a huge page does; small ones have no use for it."""
    if size < _HUGE_PAGE:
        room = np.zeros(size + 63, np.uint8)
        start = -room.ctypes.data % 64
        return room[start : start + size]
    # Private: what mmap shares unless it is told is a file in memory, which gets no huge pages.
    whole = -(-size // _HUGE_PAGE) * _HUGE_PAGE  # or the last page would be many small ones
    memory = mmap.mmap(-1, whole + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # a system without them is slower, no more
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, np.uint8)
    start = -room.ctypes.data % _HUGE_PAGE
    return room[start : start + size]


def _copied(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    room = _huge_bytes(data.nbytes)
    np.copyto(room, data)
    return room


_packed: weakref.WeakKeyDictionary[QuantizedTensor, PackedMatrix] = weakref.WeakKeyDictionary()


def packed_of(weights: PackedMatrix | QuantizedTensor) -> PackedMatrix:
    """The packed matrix itself; of a quantized tensor the one that is made once and kept as long as the tensor is.

    Both layouts are in memory then: keep PackedMatrix.of(tensor) and drop the tensor to have one.
    Raises TypeError, and what PackedMatrix.of raises.
    """
    if isinstance(weights, PackedMatrix):
        return weights
    if not isinstance(weights, QuantizedTensor):
        raise TypeError(f"a QuantizedTensor or a PackedMatrix is needed, found {type(weights).__name__}")
    found = _packed.get(weights)
    if found is None:
        found = _packed[weights] = PackedMatrix.of(weights)
    return found


def linear(
    x: object,
    weights: PackedMatrix | QuantizedTensor,
    bias: object = None,
    *,
    activations: str | None = None,
    threads: int = 0,
) -> NDArray[Any]:
    """Multiply: y = x W^T + bias.

    x: [..., K] of float32, float16 or bfloat16 (NumPy, torch on the CPU, DLPack); strided arrays are copied. weights:
    packed, or a quantized tensor, for which see packed_of. bias: [N], of these dtypes, or None. activations: "int8"
    reads x in 8 bits with a scale a token (the largest |x| / 127), "int8-g128" with one a token and 128 columns;
    "int8-outlier" as "int8", but the elements of a token beyond six times the mean of its |x| are multiplied in
    float32; "exact" in bfloat16 where x is and the machine multiplies it, else in float32. None for what the matrix
    records. threads: 0 for get_num_threads().
    Returns [..., N] of x's dtype. A token's row has the same bits on every machine, for any number of threads and
    beside any other tokens; one with a number that is not finite is NaN.
    Raises TypeError (dtypes), ValueError (K, N, activations; levels that 8-bit arithmetic does not read).
    Source: LLM.int8 (Dettmers et al., NeurIPS 2022) for dynamic 8-bit activations.
    """
    added = None if bias is None else [bias]
    return linear_many(x, [weights], added, activations=activations, threads=threads)[0]


def linear_many(
    x: object,
    weights: Sequence[PackedMatrix | QuantizedTensor],
    bias: Sequence[object] | None = None,
    *,
    activations: str | None = None,
    threads: int = 0,
) -> list[NDArray[Any]]:
    """Multiply one x with several matrices in one call, as those of queries, keys and values: `linear` of each.

    weights: matrices of any N and the K of x; they record the same activations unless these are given. bias: None, or
    one a matrix, each [N] or None. x is read once for all matrices that read it alike, and no thread waits between
    matrices. Raises what `linear` raises.
    """
    packed = [packed_of(one) for one in weights]
    given = _tokens(x, packed)
    added = _biases(bias, packed)
    leading = given.shape[:-1]
    results = [np.empty((*leading, one.shape[0]), NUMPY_DTYPES[given.dtype]) for one in packed]
    products = [(*one._place, *_bias(to), 0, 0, elements_of(y).address, y.nbytes)
                for one, to, y in zip(packed, added, results, strict=True)]  # fmt: skip
    read = _activations(activations, packed)
    if products:
        _core.gemm_linear(given.dtype, given.address, math.prod(leading), given.shape[-1], products, read, threads)
    return results


def linear_experts(
    x: object,
    weights: Sequence[PackedMatrix | QuantizedTensor],
    experts: object,
    bias: Sequence[object] | None = None,
    *,
    activations: str | None = None,
    threads: int = 0,
) -> NDArray[Any]:
    """Multiply every token with the matrices of the experts that it goes to, in one call.

    x: [..., K]. weights: E matrices [N, K] of one shape. experts: integers [..., slots], which matrices each token of x
    goes to. bias: None, or one an expert, each [N] or None.
    Returns [..., slots, N] of x's dtype: y[m, s] = x[m] W^T + bias of expert experts[m, s], with the bits that `linear`
    gives. Raises IndexError (an expert that there is not), and what `linear` raises.
    """
    packed = [packed_of(one) for one in weights]
    if not packed:
        raise ValueError("experts: at least one matrix is needed")
    for i, one in enumerate(packed):
        if one.shape != packed[0].shape:
            raise ValueError(f"expert {i} is {list(one.shape)}, the first is {list(packed[0].shape)}")
    given = _tokens(x, packed)
    chosen = _integers(experts, "experts")
    if chosen.ndim != len(given.shape) or chosen.shape[:-1] != given.shape[:-1]:
        raise ValueError(f"experts are {list(chosen.shape)}, {[*given.shape[:-1], 'slots']} is needed for this x")
    _require_below(chosen, len(packed), "expert", "experts")
    added = _biases(bias, packed)  # they keep biases alive until the end
    rows = [(*one._place, *_bias(to)) for one, to in zip(packed, added, strict=True)]
    y = np.empty((*chosen.shape, packed[0].shape[0]), NUMPY_DTYPES[given.dtype])
    tokens = math.prod(given.shape[:-1])
    _core.gemm_experts(
        given.dtype, given.address, tokens, given.shape[-1], rows, chosen.ctypes.data, chosen.size,
        _activations(activations, packed), y.ctypes.data, y.nbytes, threads,
    )  # fmt: skip
    return y


def _tokens(x: object, packed: Sequence[PackedMatrix]) -> Elements:
    given = elements_of(x)
    if given.dtype not in DTYPES:
        raise TypeError(f"x is float32, float16 or bfloat16, not {given.dtype}")
    for one in packed:
        if not given.shape or given.shape[-1] != one.shape[1]:
            raise ValueError(f"x is {list(given.shape)}, the last dim of the matrix {list(one.shape)} is needed")
    return given


def _biases(bias: Sequence[object] | None, packed: Sequence[PackedMatrix]) -> list[Elements | None]:
    if bias is None:
        return [None] * len(packed)
    if len(bias) != len(packed):
        raise ValueError(f"{len(bias)} biases for {len(packed)} matrices")
    found = [None if one is None else elements_of(one) for one in bias]
    for added, one in zip(found, packed, strict=True):
        if added is not None and added.shape != one.shape[:1]:
            raise ValueError(f"bias is {list(added.shape)}, [{one.shape[0]}] is needed")
    return found


def _bias(added: Elements | None) -> tuple[str, int, int]:
    return (added.dtype, added.address, added.shape[0]) if added else ("F32", 0, 0)


def _activations(given: str | None, packed: Sequence[PackedMatrix]) -> str:
    if given is not None:
        return given
    recorded = {one.activations for one in packed}
    if len(recorded) > 1:
        raise ValueError(f"matrices record several activations, {', '.join(sorted(recorded))}: choose one")
    return recorded.pop() if recorded else "int8"


def _name_of(dtype: DTypeLike) -> str:
    found = np.dtype(dtype)
    for name in DTYPES:
        if NUMPY_DTYPES[name] == found:
            return name
    raise TypeError(f"rows are float32, float16 or bfloat16, not {found}")


def _integers(ids: object, what: str) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{what} are integers, not {array.dtype}")
    return np.ascontiguousarray(array, np.int64).reshape(array.shape)  # a scalar stays one


def _require_below(ids: NDArray[np.int64], count: int, one: str, all_of_them: str) -> None:
    if ids.size and not 0 <= (bad := int(ids.min())) <= (most := int(ids.max())) < count:
        raise IndexError(f"{one} {bad if bad < 0 else most}: {all_of_them} are 0..{count - 1}")
