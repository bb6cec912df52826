"""Terms that are added to a dequantized matrix. Pages: docs/formats/outliers.md, docs/formats/low_rank.md.

outliers = Outliers.fit(weight, share=0.005)                  # kept apart, and not rounded with the others
q = tersor.quantize(weight, "int4-g128", side_terms=[outliers])
term = LowRank.fit(weight - q.dequantize(), rank=32)          # or of what is left
q = dataclasses.replace(q, side_terms=(*q.side_terms, term))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tersor import _core
from tersor.formats.format import rows_of
from tersor.lossless import NUMPY_DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LowRank", "Outliers"]

_DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "int8": "I8"}
_NAMES = {NUMPY_DTYPES[name]: ours for ours, name in _DTYPES.items()}


def _kind_of(array: NDArray[Any], kinds: tuple[str, ...], what: str) -> str:
    kind = _NAMES.get(array.dtype)
    if kind not in kinds:
        raise ValueError(f"{what} are {', '.join(kinds)}, not {array.dtype}")
    return kind


def _rounded(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found: NDArray[Any] = np.ascontiguousarray(numbers.astype(NUMPY_DTYPES[_DTYPES[dtype]]))
    if not np.isfinite(found).all():
        raise ValueError(f"a side term is not finite, or beyond what {dtype} holds")
    return found


def _matrix(matrix: NDArray[Any], shape: tuple[int, int] | None = None) -> NDArray[np.float32]:
    found = np.ascontiguousarray(matrix, np.float32)
    if found.ndim != 2 or 0 in found.shape or (shape and found.shape != shape):
        raise ValueError(f"a matrix {list(shape) if shape else '[N, K]'} is needed, found {list(found.shape)}")
    return found


@dataclass(frozen=True, eq=False)
class Outliers:
    """Single weights in CSR.

    shape: of the matrix. row_starts: [N + 1] uint32, how many are before each row. columns: [count], ascending in a
    row, uint16 where K <= 65536, else uint32. values: [count], fp16, bf16 or fp32; they are added.
    Raises FormatError (parts that are not those of a matrix of this shape), ValueError (dtype of the values).
    """

    kind: ClassVar[str] = "outliers"

    shape: tuple[int, int]
    row_starts: NDArray[Any]
    columns: NDArray[Any]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        for name in ("row_starts", "columns", "values"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))
        self._add(self.parts(), 0)

    @classmethod
    def fit(cls, residual: NDArray[Any], share: float = 0.005, *, values: str = "fp16", threads: int = 0) -> Outliers:
        """Take the largest magnitudes of [N, K], `share` of them all: of weights, or of what a format leaves of them.

        values: "fp16", "bf16" or "fp32". Raises ValueError (a share beyond 0..1, numbers that are not finite).
        """
        matrix = _matrix(residual)
        if not 0 <= share <= 1:
            raise ValueError(f"a share is in [0, 1], not {share}")
        mask = np.empty(matrix.shape, np.bool_)
        count = round(share * matrix.size)
        _core.keep_largest(matrix.ctypes.data, 1, matrix.size, matrix.size, count, mask.ctypes.data, threads)
        mask &= matrix != 0
        return cls.of_mask(matrix, mask, values=values)

    @classmethod
    def of_mask(cls, residual: NDArray[Any], mask: NDArray[np.bool_], *, values: str = "fp16") -> Outliers:
        """Take what stands where `mask`, [N, K], is true."""
        matrix = _matrix(residual)
        columns = np.nonzero(mask)[1].astype(np.uint16 if matrix.shape[1] <= 1 << 16 else np.uint32)
        starts = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
        if starts[-1] >= 1 << 32:
            raise ValueError(f"{starts[-1]} outliers, below 2**32 are possible")
        return cls(matrix.shape, starts.astype(np.uint32), columns, _rounded(matrix[mask], values))

    def to_dict(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"row_starts": self.row_starts, "columns": self.columns, "values": self.values}

    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add the term to [N, K] float32, in place where it is row-major float32."""
        return self._added(matrix, self.parts())

    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the term away."""
        return self._added(matrix, {**self.parts(), "values": np.negative(self.values)})

    def _added(self, matrix: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        out = _matrix(matrix, self.shape)
        self._add(parts, out.ctypes.data)
        return out

    def _add(self, parts: dict[str, NDArray[Any]], address: int) -> None:
        kind = _kind_of(self.values, ("fp32", "fp16", "bf16"), "outliers")
        _core.outliers_add(kind, *self.shape, rows_of(parts), address, 0)

    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> Outliers:
        if numbers or set(parts) != {"row_starts", "columns", "values"}:
            raise ValueError(f"row_starts, columns and values are needed, found {[*numbers, *parts]}")
        return cls(shape, **parts)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A product of two thin matrices.

    shape: [N, K]. u: [N, R], v: [R, K], both fp16 or bf16, or both int8 with u_scales and v_scales, fp16 [R]; u v
    is added.
    Raises FormatError (parts that are not those of a matrix of this shape), ValueError (dtype, rank).
    """

    kind: ClassVar[str] = "low_rank"

    shape: tuple[int, int]
    u: NDArray[Any]
    v: NDArray[Any]
    u_scales: NDArray[Any] | None = None
    v_scales: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        for name, array in self.parts().items():
            object.__setattr__(self, name, np.ascontiguousarray(array))
        self._add(self.parts(), 0)

    @property
    def rank(self) -> int:
        return int(self.v.shape[0])

    @classmethod
    def fit(cls, residual: NDArray[Any], rank: int, *, dtype: str = "fp16") -> LowRank:
        """The best term of this rank for [N, K], in the mean square: a truncated singular value decomposition.

        dtype: "fp16", "bf16" or "int8" (scales for each of the `rank` pairs). LAPACK's last bits depend on the machine.
        Raises ValueError (a rank beyond 1..min(N, K), dtype).
        """
        matrix = _matrix(residual)
        if not 1 <= rank <= min(matrix.shape):
            raise ValueError(f"rank {rank}, 1..{min(matrix.shape)} are possible for {list(matrix.shape)}")
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
        root = np.sqrt(singular[:rank])
        return cls.of_factors(left[:, :rank] * root, right[:rank] * root[:, None], dtype=dtype)

    @classmethod
    def of_factors(cls, u: NDArray[Any], v: NDArray[Any], *, dtype: str = "fp16") -> LowRank:
        """Round the factors u [N, R] and v [R, K] to "fp16", "bf16" or "int8", which scales each of the R pairs.

        Raises ValueError (shapes, dtype, what is not finite).
        """
        if dtype not in ("fp16", "bf16", "int8"):
            raise ValueError(f'a low-rank term is "fp16", "bf16" or "int8", not {dtype!r}')
        left, right = _matrix(u), _matrix(v)
        if left.shape[1] != right.shape[0]:
            raise ValueError(f"factors are {list(left.shape)} and {list(right.shape)}, [N, R] and [R, K] are needed")
        shape = (left.shape[0], right.shape[1])
        if dtype != "int8":
            return cls(shape, _rounded(left, dtype), _rounded(right, dtype))
        u_scales, v_scales = _rounded(np.abs(left).max(0) / 127, "fp16"), _rounded(np.abs(right).max(1) / 127, "fp16")
        return cls(shape, _codes(left, u_scales), _codes(right, v_scales[:, None]), u_scales, v_scales)

    def to_dict(self) -> dict[str, Any]:
        return {}

    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return u and v with their scales, float32."""
        u, v = self.u.astype(np.float32), self.v.astype(np.float32)
        if self.u_scales is not None and self.v_scales is not None:
            u, v = u * self.u_scales.astype(np.float32), v * self.v_scales.astype(np.float32)[:, None]
        return u, v

    def parts(self) -> dict[str, NDArray[Any]]:
        scales = {"u_scales": self.u_scales, "v_scales": self.v_scales}
        return {"u": self.u, "v": self.v} | {name: array for name, array in scales.items() if array is not None}

    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add the term to [N, K] float32, in place where it is row-major float32."""
        return self._added(matrix, self.parts())

    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the term away."""
        turned = "u" if self.u_scales is None else "u_scales"
        return self._added(matrix, {**self.parts(), turned: np.negative(self.parts()[turned])})

    def _added(self, matrix: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        out = _matrix(matrix, self.shape)
        self._add(parts, out.ctypes.data)
        return out

    def _add(self, parts: dict[str, NDArray[Any]], address: int) -> None:
        kind = _kind_of(self.u, ("fp16", "bf16", "int8"), "low-rank terms")
        if self.v.ndim != 2:
            raise _core.FormatError(f"v is {self.v.dtype} {list(self.v.shape)}, [rank, {self.shape[1]}] is needed")
        _core.low_rank_add(kind, self.rank, *self.shape, rows_of(parts), address, 0)

    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> LowRank:
        if numbers or not {"u", "v"} <= set(parts) <= {"u", "v", "u_scales", "v_scales"}:
            raise ValueError(f"u, v and perhaps scales are needed, found {[*numbers, *parts]}")
        return cls(shape, **parts)


def _codes(numbers: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.int8]:
    wide = scales.astype(np.float32)
    ratio = np.divide(numbers, wide, out=np.zeros(numbers.shape, np.float32), where=wide != 0)
    codes: NDArray[np.int8] = np.clip(np.rint(ratio), -127, 127).astype(np.int8)
    return codes
