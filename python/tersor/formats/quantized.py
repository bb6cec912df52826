"""A quantized matrix: a format, its parts, transforms and side terms. Page: docs/formats/quantized.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats.codebook import ScalarCodebook, VectorCodebook
from tersor.formats.format import ACTIVATIONS, Format, parse
from tersor.formats.recorded import Recorded
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    import os

    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Self

    from tersor.lossless import Elements

DTYPES = ("F32", "F16", "BF16")  # of what is quantized, by safetensors' names
_BLOCK = 1 << 20  # weights that are dequantized at once where they go elsewhere


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """A matrix [N, K] in few bits: W = undo(transforms, dequantize(parts)) + side terms.

    format: how parts are laid out. shape: N rows, K columns. dtype: of the value, "F32", "F16" or "BF16". parts: plain
    arrays by name, row-major. transforms: on the K side, in the order in which they were applied. side_terms: added
    afterwards. activations: how `tersor.linear` reads x, the format's unless given. errors: measured relative errors,
    "weights" among them.
    Raises FormatError (parts that are not the format's: what was found and what is needed), ValueError.
    """

    format: Format
    shape: tuple[int, int]
    dtype: str = "F32"
    parts: Mapping[str, NDArray[Any]]
    transforms: tuple[Recorded, ...] = ()
    side_terms: tuple[Recorded, ...] = ()
    activations: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A view of each: rows_of takes plain, row-major arrays.
        parts = {name: np.asarray(array, order="C") for name, array in self.parts.items()}
        for name, value in {
            "shape": (int(self.shape[0]), int(self.shape[1])),
            "parts": parts,
            "transforms": tuple(self.transforms),
            "side_terms": tuple(self.side_terms),
            "activations": self.activations or self.format.activations,
            "errors": dict(self.errors),
        }.items():
            object.__setattr__(self, name, value)
        if self.dtype not in DTYPES:
            raise ValueError(f"the dtype of a quantized matrix is one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.activations not in ACTIVATIONS:
            raise ValueError(f"activations are {', '.join(ACTIVATIONS)}, not {self.activations!r}")
        self.format.check(self.parts, self.shape)

    def __repr__(self) -> str:
        return f"QuantizedTensor({self.format}, {list(self.shape)}, {self.bits_per_weight:.2f} bits/weight)"

    @property
    def nbytes(self) -> int:
        """Every byte stored: packed codes, scales, codebooks, transforms and side terms."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / (N * K)."""
        return 8 * self.nbytes / math.prod(self.shape)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every stored array: parts by their names, those of transforms and side terms as "transform0.scales"."""
        found = dict(self.parts)
        for what, some in ("transform", self.transforms), ("side_term", self.side_terms):
            for i, one in enumerate(some):
                found |= {f"{what}{i}.{part}": array for part, array in one.parts().items()}
        return found

    def dequantize(self, dtype: DTypeLike | None = None, *, threads: int = 0) -> NDArray[Any]:
        """The matrix [N, K], a fresh array. dtype: None for the tensor's own; others are rounded to from float32."""
        wanted = NUMPY_DTYPES[self.dtype] if dtype is None else np.dtype(dtype)
        if self.transforms or self.side_terms or wanted == np.float32:
            matrix = np.empty(self.shape, np.float32)
            self.format.decode(self.parts, self.shape, matrix, threads=threads)
            for transform in reversed(self.transforms):
                matrix = transform.undo(matrix)
            for term in self.side_terms:
                matrix = term.apply(matrix)
            return matrix if wanted == np.float32 else _as_dtype(matrix, wanted)
        out = np.empty(self.shape, wanted)
        rows, columns = self.shape
        some = np.empty((min(rows, max(1, _BLOCK // columns)), columns), np.float32)
        for first in range(0, rows, len(some)):
            block = some[: rows - first]
            self.format.decode(self.parts, self.shape, block, first=first, threads=threads)
            out[first : first + len(block)] = _as_dtype(block, wanted)
        return out

    def relative_error(self, weight: object) -> float:
        """The Frobenius norm of what dequantize gives less `weight`, [N, K], over that of weight; 0 where both are."""
        matrix = matrix_of(weight)
        if matrix.shape != self.shape:
            raise ValueError(f"weights are {list(matrix.shape)}, the quantized matrix is {list(self.shape)}")
        off = of = 0.0
        step = max(1, _BLOCK // self.shape[1])
        whole = self.dequantize(np.float32) if self.transforms or self.side_terms else None
        for first in range(0, self.shape[0], step):
            want = matrix[first : first + step].astype(np.float64)
            if whole is None:
                block = np.empty(want.shape, np.float32)
                self.format.decode(self.parts, self.shape, block, first=first)
            else:
                block = whole[first : first + step]
            off += float(np.square(block - want).sum())
            of += float(np.square(want).sum())
        return math.sqrt(off / of) if of else math.sqrt(off)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tensor alone, named "weight": a .tsr, whose codes are entropy-coded, or a .safetensors file."""
        from tersor.formats.files import save_file

        save_file({"weight": self}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, or any file with one quantized matrix. Raises FormatError, OSError."""
        from tersor.formats.files import load_file

        found = [tensor for tensor in load_file(path).values() if isinstance(tensor, cls)]
        if len(found) != 1:
            raise _core.FormatError(f"{path}: one quantized matrix is needed, found {len(found)}: use load_file")
        return found[0]


def quantize(
    weight: object,
    fmt: Format | str,
    *,
    clip: str = "none",
    seed: int = 0,
    threads: int = 0,
    transforms: Sequence[Recorded] = (),
    side_terms: Sequence[Recorded] = (),
    codebook: object = None,
) -> QuantizedTensor:
    """Store a matrix in a low-bit format, rounding to nearest.

    weight: [N, K], fp32, bf16 or fp16; NumPy, torch on the CPU, DLPack; any N, K >= 1. fmt: a Format or its alias,
    "int4-g128". clip: "none" takes the format's own rule for scales, "mse" the scales of least squared error among a
    list of smaller ranges. seed: for codebooks that are trained. threads: 0 for get_num_threads(). transforms,
    side_terms: recorded with the tensor; side terms are taken away and transforms applied before weights are rounded.
    codebook: another tensor's parts["codebook"], which is shared instead of learning one.
    The same arguments give the same parts on every machine and number of threads. `.nbytes` counts every byte stored.
    Raises ValueError (NaN or infinite weights: how many, and where the first is; a shape that is not [N, K]; an unknown
    alias), TypeError (dtype).
    """
    chosen, matrix = parse(fmt), matrix_of(weight)
    if clip not in ("none", "mse"):
        raise ValueError(f'clip is "none" or "mse", not {clip!r}')
    rows, columns = matrix.shape
    prepared: NDArray[Any] = matrix
    if transforms or side_terms:
        prepared = matrix.astype(np.float32)
        for term in side_terms:
            prepared = term.undo(prepared)
        for transform in transforms:
            prepared = transform.apply(prepared)
    prepared = np.ascontiguousarray(prepared)
    if codebook is None:
        parts = chosen.encode(prepared, clip=clip, seed=seed, threads=threads)
    elif isinstance(chosen, (ScalarCodebook, VectorCodebook)):
        parts = chosen.encode(prepared, clip=clip, seed=seed, threads=threads, codebook=codebook)
    else:
        raise ValueError(f"{chosen} has no codebook to share")
    made = QuantizedTensor(
        format=chosen,
        shape=(rows, columns),
        dtype=next(name for name in DTYPES if NUMPY_DTYPES[name] == matrix.dtype),
        parts=parts,
        transforms=tuple(transforms),
        side_terms=tuple(side_terms),
    )
    object.__setattr__(made, "errors", {"weights": made.relative_error(matrix)})
    return made


def matrix_of(weight: object) -> NDArray[Any]:
    """A matrix as a row-major NumPy array [N, K] of fp32, fp16 or bf16. Raises TypeError, ValueError."""
    found = elements_of(weight)
    if found.dtype not in DTYPES:
        raise TypeError(f"weights are {', '.join(DTYPES)}, not {found.dtype}")
    if len(found.shape) != 2 or 0 in found.shape:
        raise ValueError(f"weights are [N, K] with N, K >= 1, not {list(found.shape)}")
    return array_of(found)


def array_of(found: Elements) -> NDArray[Any]:
    """Elements as a NumPy array of their shape, not copied."""
    if isinstance(found.owner, np.ndarray):
        return found.owner
    memory: NDArray[Any] = np.asarray(_Memory(found)).view(NUMPY_DTYPES[found.dtype])
    return memory.reshape(found.shape)


class _Memory:
    """Another library's memory as NumPy takes it; an array over it keeps it alive."""

    def __init__(self, elements: Elements) -> None:
        self.owner = elements.owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (elements.nbytes,),
            "data": (elements.address, True),
        }


def _as_dtype(matrix: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is beyond the dtype is infinite, as its rounding has it
        return matrix.astype(dtype)
