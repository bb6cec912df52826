"""The matrices that are measured. A block of some rows repeats: what its product must be is soon computed, and how fast
a kernel runs does not depend on what the codes are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.bench.harness import AbsentError, WrongBytesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.formats import QuantizedTensor
    from tersor.gemm import PackedMatrix

ROTATION, QUICK_ROTATION = 256 << 20, 1 << 20  # bytes of distinct weights, eight times any L3 share of two cores
_BLOCK_ROWS = 64

# Of the sum of the absolute terms. Integers are exact; tables of floats are rounded to 8 bits, exact decodes to bf16.
_TOLERANCE = {"nf4": 3e-3, "vq-d8-k256-s2": 1e-2}
_EXACT_TOLERANCE, _OUTLIER_TOLERANCE = 5e-3, 1e-2


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to multiply x by a matrix: ours or a peer's."""

    name: str
    multiply: Callable[[int], Any]  # the i-th call; the matrix is another every time
    first: Callable[[], NDArray[Any]]  # the first rows of y, of the first matrix: [some tokens, N]
    nbytes: int  # of one matrix, all that a product reads
    a_call: int = 1  # matrices that a call multiplies
    ours: bool = False
    dense: bool = False  # 16 or 32 bits a weight
    worst: float = 0.25  # relative error of a peer that does what it should


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """W [rows, columns], Gaussian, its first rows again and again; and copies enough that none stays in a cache."""

    rows: int
    columns: int
    rotation: int = ROTATION

    @property
    def block_rows(self) -> int:
        """Rows that differ; rows are a multiple of it."""
        return math.gcd(self.rows, _BLOCK_ROWS)

    @cached_property
    def block(self) -> NDArray[np.float32]:
        """[block_rows, columns]."""
        return np.random.default_rng(1).standard_normal((self.block_rows, self.columns), np.float32)

    def tiled(self, block: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        """An array whose axis has what stands for the rows of a block, for all rows."""
        times = [1] * block.ndim
        times[axis] = self.rows // self.block_rows
        return np.tile(block, times)

    def copies(self, nbytes: int) -> int:
        """How many matrices of so many bytes are rotated through."""
        return max(2, -(-self.rotation // nbytes))

    def x(self, tokens: int) -> NDArray[np.float32]:
        """[tokens, columns], Gaussian; fewer tokens are the first of more."""
        return np.random.default_rng(2).standard_normal((tokens, self.columns), np.float32)

    def quantized(self, name: str) -> QuantizedTensor:
        """The matrix in a format, rounded to nearest."""
        import tersor
        from tersor.formats import QuantizedTensor

        small = tersor.quantize(self.block, name)
        if self.rows == self.block_rows:
            return small
        needs = small.format.parts(self.rows, self.columns)
        parts = {part: self._grown(array, needs[part].shape) for part, array in small.parts.items()}
        if "row_starts" in parts:
            starts = small.parts["row_starts"]
            kept = self.tiled(np.diff(starts))
            parts["row_starts"] = np.concatenate([[0], np.cumsum(kept)]).astype(starts.dtype)
        return QuantizedTensor(format=small.format, shape=(self.rows, self.columns), parts=parts)

    def _grown(self, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        for axis, (has, needs) in enumerate(zip(array.shape, shape, strict=True)):
            if has != needs:
                return self.tiled(array, axis)
        return array

    def packed(self, name: str) -> list[PackedMatrix]:
        """Copies in the driver's layout. Raises AbsentError where the driver does not read the format."""
        from tersor import gemm

        tensor = self.quantized(name)
        try:
            packed = gemm.PackedMatrix.of(tensor)
        except ValueError as error:
            raise AbsentError(f"the driver does not read it: {error}") from error
        return [packed, *(packed.copy() for _ in range(1, self.copies(packed.nbytes)))]


def ours(matrix: Matrix, packed: list[PackedMatrix], activations: str, tokens: int, threads: int) -> Way:
    """gemm.linear: x in float32, in bf16 where it is read exactly. Raises AbsentError where the driver does not."""
    import ml_dtypes

    from tersor import gemm

    x: NDArray[Any] = matrix.x(tokens)
    if activations == "exact":
        x = x.astype(ml_dtypes.bfloat16)

    def multiply(call: int) -> NDArray[Any]:
        return gemm.linear(x, packed[call % len(packed)], activations=activations, threads=threads)

    try:
        multiply(0)
    except ValueError as error:
        raise AbsentError(f"the driver does not read it: {error}") from error
    return Way(name="tersor", multiply=multiply, first=lambda: multiply(0), nbytes=packed[0].nbytes, ours=True)


def verify_ours(matrix: Matrix, way: Way, name: str, activations: str, tokens: int) -> None:
    """Compare with a product in float64 of the dequantized weights and x as it is read. Raises WrongBytesError."""
    import ml_dtypes

    import tersor

    weight = tersor.quantize(matrix.block, name).dequantize().astype(np.float64)
    x: NDArray[Any] = matrix.x(tokens)
    tolerance = _TOLERANCE.get(name, 1e-6)
    if activations in ("int8", "int8-g128"):
        read = _eight_bits(x, matrix.columns if activations == "int8" else 128)
    else:
        tolerance = _EXACT_TOLERANCE if activations == "exact" else _OUTLIER_TOLERANCE
        read = x.astype(ml_dtypes.bfloat16).astype(np.float64) if activations == "exact" else x.astype(np.float64)
    want, terms = read @ weight.T, np.abs(read) @ np.abs(weight.T)
    y = way.first().astype(np.float64).reshape(tokens, -1, matrix.block_rows)
    off = float((np.abs(y - want[:, None]) / np.maximum(terms[:, None], 1e-30)).max())
    if not off < tolerance:  # not a number is wrong, too
        raise WrongBytesError(f"y is off by {off:.1e} of its terms, at most {tolerance:.0e} is right")


def verify_peer(matrix: Matrix, way: Way, tokens: int) -> float:
    """A peer's relative error to the product of the weights before they are rounded. Raises WrongBytesError when it is
    more than its bits explain."""
    y = np.asarray(way.first(), np.float64)
    want = matrix.x(tokens)[: len(y)].astype(np.float64) @ matrix.block.T.astype(np.float64)
    wanted = np.tile(want, (1, matrix.rows // matrix.block_rows))
    error = float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted))
    if not error < way.worst:
        raise WrongBytesError(f"its relative error is {error:.2f}, at most {way.worst} is right")
    return error


def _eight_bits(x: NDArray[np.float32], columns: int) -> NDArray[np.float64]:
    """x as 8-bit activations read it: a scale a token and `columns` columns."""
    read = np.empty(x.shape)
    for first in range(0, x.shape[1], columns):
        piece = x[:, first : first + columns]
        most = np.abs(piece).max(1, keepdims=True)
        steps = np.rint(piece * (np.float32(127) / most))
        read[:, first : first + columns] = steps.astype(np.float64) * (most / np.float32(127))
    return read
