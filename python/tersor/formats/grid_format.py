"""Formats with one code a weight, which the core reads as grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats.format import Format, Part, Parts, Shape, rows_of
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def importance_of(importance: NDArray[np.float32] | None, columns: int) -> NDArray[np.float32] | None:
    """Importance as the core takes it, row-major. Raises ValueError (a shape)."""
    if importance is None:
        return None
    if importance.shape != (columns,):
        raise ValueError(f"importance is {list(importance.shape)}, [{columns}] is needed")
    return np.ascontiguousarray(importance, np.float32)


@dataclass(frozen=True, kw_only=True)
class GridFormat(Format):
    """A Format whose parts, checks and dequantizer are those of csrc/formats/grid.h."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts(1, 1)  # the core knows the ranges

    def parts(self, rows: int, columns: int) -> dict[str, Part]:
        """What the parts of a matrix [rows, columns] are, by name. Raises ValueError (a size of 0)."""
        needs = _core.grid_parts(self.to_dict(), rows, columns)
        return {name: Part(dtype, tuple(shape)) for name, dtype, shape in needs}

    def encode(
        self, weight: NDArray[Any], *, clip: str, seed: int, threads: int, importance: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Round to nearest. importance: [K], finite, 0 or more: what each column weighs in clip "mse"; None: the same.

        Raises ValueError (weights that are not finite; a scale beyond its dtype; importance).
        """
        rows, columns = weight.shape
        weighing = importance_of(importance, columns)
        found = elements_of(weight)
        parts = {
            name: np.zeros(part.shape, NUMPY_DTYPES[part.dtype]) for name, part in self.parts(rows, columns).items()
        }
        _core.grid_fit(
            self.to_dict(), found.dtype, rows, columns, found.address, found.nbytes, clip == "mse",
            0 if weighing is None else weighing.ctypes.data, rows_of(parts), threads,
        )  # fmt: skip
        return parts

    def choose(
        self, weight: NDArray[Any], parts: Parts, factor: NDArray[np.float32], order: NDArray[np.uint32],
        *, codes: NDArray[np.uint8] | None = None, passes: int = 0, threads: int = 0,
    ) -> tuple[NDArray[np.uint8], int]:  # fmt: skip
        """Choose codes column by column for the scales that stand in `parts`, which is csrc/solve/column_loop.h.

        weight: [N, K]. factor: [K, K], how far an error of the column in place j moves the one in place k; order: [K],
        the column in each place. codes: None to choose them anew with factors j < k, else uint8 [N, K], from which so
        many passes begin, with all factors but j = k.
        Returns codes, a fresh uint8 [N, K], and how many the last pass changed. Raises ValueError (what is not finite,
        a shape, a code that the format has not).
        """
        rows, columns = weight.shape
        found = elements_of(weight)
        if factor.shape != (columns, columns) or order.shape != (columns,):
            raise ValueError(
                f"the factor is {list(factor.shape)} and the order {list(order.shape)}, [{columns}, {columns}] and "
                f"[{columns}] are needed"
            )
        matrix, places = np.ascontiguousarray(factor, np.float32), np.ascontiguousarray(order, np.uint32)
        if codes is not None and (codes.dtype != np.uint8 or codes.shape != weight.shape):
            raise ValueError(f"codes are {codes.dtype} {list(codes.shape)}, uint8 {[rows, columns]} is needed")
        out = np.empty((rows, columns), np.uint8) if codes is None else np.array(codes, order="C")
        changed = _core.grid_columns(
            self.to_dict(), found.dtype, rows, columns, found.address, found.nbytes, rows_of(parts),
            matrix.ctypes.data, places.ctypes.data, 0 if codes is None else max(1, passes), out.ctypes.data, threads,
        )  # fmt: skip
        return out, changed

    def check(self, parts: Parts, shape: Shape, *, threads: int = 0) -> None:
        """Raise FormatError unless the parts' dtypes, shapes and values are those of a matrix of this shape."""
        _core.grid_check(self.to_dict(), *shape, rows_of(parts), threads)

    def decode(self, parts: Parts, shape: Shape, out: NDArray[Any], *, first: int = 0, threads: int = 0) -> None:
        """Dequantize rows from `first` on into out: [rows, K] float32, row-major."""
        target = elements_of(out, writable=True)
        if target.dtype != "F32" or len(target.shape) != 2 or target.shape[1] != shape[1]:
            raise ValueError(f"out is {target.dtype} {list(target.shape)}, F32 [rows, {shape[1]}] is needed")
        _core.grid_dequantize(self.to_dict(), *shape, rows_of(parts), first, target.shape[0], target.address, threads)

    def symbols(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts with codes a byte each, uint8 [N, K]."""
        codes, out = elements_of(parts["codes"]), np.empty(shape, np.uint8)
        _core.grid_unpack(self.to_dict(), *shape, codes.address, codes.nbytes, out.ctypes.data, threads)
        return {**parts, "codes": out}

    def packed(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts with their codes packed again. Raises FormatError (codes out of range or of another shape)."""
        found = elements_of(parts["codes"])
        if found.dtype != "U8" or found.shape != tuple(shape):
            raise _core.FormatError(f"codes are {found.dtype} {list(found.shape)}, U8 {list(shape)} is needed")
        out = np.empty(self.parts(*shape)["codes"].shape, np.uint8)
        _core.grid_pack(self.to_dict(), *shape, found.address, found.nbytes, out.ctypes.data, threads)
        return {**parts, "codes": out}
