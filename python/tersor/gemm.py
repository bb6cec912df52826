"""y = x W^T over quantized matrices: the typed door to `csrc/gemm`. What it reads today: docs/gemm.md.

q = tersor.quantize(W, "int4-g128")
packed = gemm.PackedMatrix.of(q)
y = gemm.linear(x, packed)
"""

from __future__ import annotations

import contextlib
import math
import mmap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats.format import rows_of
from tersor.formats.side_terms import LowRank, Outliers
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from tersor.formats import QuantizedTensor

__all__ = ["PackedMatrix", "linear"]

_HUGE_PAGE = 2 << 20
_FLOATS = ("F32", "F16", "BF16")


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
        whole rows, tables of levels of a row's own, formats that are no grid.
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
        data = _huge_bytes(self.nbytes)
        np.copyto(data, self.data)
        return replace(self, data=data)

    @property
    def nbytes(self) -> int:
        """Bytes in memory: those of the codes, scales and zeros, rows filled up to a multiple of 32."""
        return self.data.nbytes


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
        self.row_starts = np.sum(starts, axis=0, dtype=np.uint32) if sparse else np.zeros(0, np.uint32)
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
    memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # a system without them is slower, no more
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, np.uint8)
    start = -room.ctypes.data % _HUGE_PAGE
    return room[start : start + size]


def linear(
    x: object,
    weights: PackedMatrix,
    bias: object = None,
    *,
    activations: str | None = None,
    threads: int = 0,
) -> NDArray[Any]:
    """Multiply: y = x W^T + bias.

    x: [..., K] of float32, float16 or bfloat16 (NumPy, torch on the CPU, DLPack); strided arrays are copied. bias: [N],
    of these dtypes, or None. activations: "int8" reads x in 8 bits with a scale a token (the largest |x| / 127),
    "int8-g128" with one a token and 128 columns; "int8-outlier" as "int8", but the elements of a token
    beyond six times the mean of its |x| are multiplied in float32; "exact" in bfloat16 where x is and the machine
    multiplies it, else in float32. None for what the matrix records. threads: 0 for get_num_threads().
    Returns [..., N] of x's dtype. A token's row has the same bits on every machine, for any number of threads and
    beside any other tokens; one with a number that is not finite is NaN.
    Raises TypeError (dtypes), ValueError (K, N, activations; levels that 8-bit arithmetic does not read).
    Source: LLM.int8 (Dettmers et al., NeurIPS 2022) for dynamic 8-bit activations.
    """
    given = elements_of(x)
    if given.dtype not in _FLOATS:
        raise TypeError(f"x is float32, float16 or bfloat16, not {given.dtype}")
    if not given.shape or given.shape[-1] != weights.shape[1]:
        raise ValueError(f"x is {list(given.shape)}, the last dim of the matrix {list(weights.shape)} is needed")
    added = None if bias is None else elements_of(bias)
    if added is not None and added.shape != weights.shape[:1]:
        raise ValueError(f"bias is {list(added.shape)}, [{weights.shape[0]}] is needed")
    leading = given.shape[:-1]
    y = np.empty((*leading, weights.shape[0]), NUMPY_DTYPES[given.dtype])
    product = (
        weights.data.ctypes.data, weights.data.nbytes,
        added.dtype if added else "F32", added.address if added else 0, weights.shape[0],
        0, 0, y.ctypes.data, y.nbytes,
    )  # fmt: skip
    read = weights.activations if activations is None else activations
    tokens = math.prod(leading)
    _core.gemm_linear(given.dtype, given.address, tokens, weights.shape[1], [product], read, threads)
    return y
