"""Matrices most of whose weights are 0: a support, and the kept values or their codes. Page: docs/formats/sparse.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tersor import _core
from tersor.entropy import bitpack
from tersor.formats.codebook import decode_stored, pack_wide, unpack_wide
from tersor.formats.format import Format, Part, Parts, Shape, rows_of
from tersor.formats.int_group import IntGroup
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_ALIAS = re.compile(
    r"(?:(?P<bitmap>bitmap)|block(?P<block>\d+)|(?P<keep>\d+):(?P<span>\d+))(?:-(?P<percent>\d+(?:\.\d+)?))?"
    r"(?:-(?P<values>bf16|fp32|int[234568]))?(?:-g(?P<group>16|32|64|128|256))?(?P<exact>-exact)?"
)
_DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class Sparse(Format):
    """Kept weights and where they stand; all others are 0.

    support: "bitmap" (a bit a weight), "nm" (`keep` of every `span` columns), "block" (a bit for every `span` columns).
    values: "fp16", "bf16", "fp32", or "int2" to "int8" with `scale` a `group` of columns, as int_group's symmetric mode
    has them. density: the share of a row that `quantize` keeps, largest magnitudes (of blocks: sums of squares) first;
    None: all that is not 0. It says nothing to a reader.
    """

    family: ClassVar[str] = "sparse"

    support: str = "bitmap"
    keep: int = 0
    span: int = 1
    density: float | None = None
    values: str = "fp16"
    group: int | str = "channel"
    scale: str = "fp16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"density is in [0, 1] or None, not {self.density}")
        self._needs(1, 1, 0)  # the core knows the ranges

    def __str__(self) -> str:
        if self.activations not in ("int8", "exact") or self.scale != "fp16" or self.group == "tensor":
            return repr(self)
        kind = {"bitmap": "bitmap", "block": f"block{self.span}", "nm": f"{self.keep}:{self.span}"}[self.support]
        percent = "" if self.density is None else f"-{100 * self.density:g}"
        values = "" if self.values == "fp16" else f"-{self.values}"
        group = "" if self.group == "channel" else f"-g{self.group}"
        alias = f"{kind}{percent}{values}{group}{'-exact' * (self.activations == 'exact')}"
        return alias if type(self).parse(alias) == self else repr(self)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The format that "bitmap-50-int8", "2:4" or "block16-25" names; None for other texts."""
        if not (match := _ALIAS.fullmatch(text)):
            return None
        if match["percent"] and match["span"]:
            return None
        return cls(
            support="bitmap" if match["bitmap"] else "block" if match["block"] else "nm",
            keep=int(match["keep"] or 0),
            span=int(match["block"] or match["span"] or 1),
            density=float(match["percent"]) / 100 if match["percent"] else None,
            values=match["values"] or "fp16",
            group=int(match["group"]) if match["group"] else "channel",
            activations="exact" if match["exact"] else "int8",
        )

    def _needs(self, rows: int, columns: int, kept: int) -> list[tuple[str, str, list[int]]]:
        return _core.stored_parts(self.to_dict(), rows, columns, kept)

    def parts(self, rows: int, columns: int) -> dict[str, Part]:
        """What the parts of a matrix [rows, columns] are, by name; -1 for a size that depends on how much is kept."""
        if self.support == "nm":
            needs = self._needs(rows, columns, rows * self._kept_a_row(columns))
            return {name: Part(dtype, tuple(shape)) for name, dtype, shape in needs}
        unknown = ("values", "codes")
        return {
            name: Part(dtype, (-1,) if name in unknown else tuple(shape))
            for name, dtype, shape in self._needs(rows, columns, 0)
        }

    def encode(self, weight: NDArray[Any], *, clip: str, seed: int, threads: int) -> dict[str, NDArray[Any]]:
        """Keep the largest weights, round them as `values` says. Raises ValueError (weights that are not finite)."""
        matrix = np.asarray(weight, np.float32)
        if not np.isfinite(matrix).all():
            bad = np.flatnonzero(~np.isfinite(matrix))
            at = [int(i) for i in np.unravel_index(bad[0], matrix.shape)]
            raise ValueError(
                f"{bad.size} of {matrix.size} weights are not finite, the first is {matrix.flat[bad[0]]} at {at}"
            )
        mask = self._mask(matrix, threads)
        return self.encode_kept(weight, mask, clip=clip, threads=threads)

    def encode_kept(
        self, weight: NDArray[Any], mask: NDArray[np.bool_], *, clip: str = "none", threads: int = 0
    ) -> dict[str, NDArray[Any]]:
        """The parts of `weight` where `mask`, [N, K] booleans that another has chosen, is true.

        Raises ValueError (a mask that this support cannot have: it says which row).
        """
        kept_a_row = np.count_nonzero(mask, axis=1)
        if kept_a_row.sum() >= 1 << 32:
            raise ValueError(f"{kept_a_row.sum()} weights are kept, below 2**32 are possible")
        parts = {"support": self._support(mask, threads)}
        if self.support != "nm":
            parts["row_starts"] = np.concatenate([[0], np.cumsum(kept_a_row)]).astype(np.uint32)
        if self.values in _DTYPES:
            with np.errstate(over="ignore"):
                values = np.asarray(weight)[mask].astype(NUMPY_DTYPES[_DTYPES[self.values]])
            if not np.isfinite(values).all():
                raise ValueError(f"weights are beyond what {self.values} holds")
            return {**parts, "values": values}
        whole = self._integers()
        masked = np.where(mask, weight, np.zeros((), weight.dtype))
        dense = whole.encode(np.ascontiguousarray(masked), clip=clip, seed=0, threads=threads)
        codes = whole.symbols(dense, masked.shape, threads=threads)["codes"][mask]
        packed = np.frombuffer(bitpack.encode(codes, self._bits(), threads=threads), np.uint8)
        return {**parts, "codes": packed, "scales": dense["scales"]}

    def check(self, parts: Parts, shape: Shape, *, threads: int = 0) -> None:
        """Raise FormatError unless the parts' dtypes, shapes and values are those of a matrix of this shape."""
        _core.stored_dequantize(self.to_dict(), *shape, rows_of(parts), 0, 0, 0, threads)

    def decode(self, parts: Parts, shape: Shape, out: NDArray[Any], *, first: int = 0, threads: int = 0) -> None:
        """Dequantize rows from `first` on into out: [rows, K] float32, row-major."""
        decode_stored(self, parts, shape, out, first, threads)

    def symbols(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts with codes, [kept], and positions, [N, kept of a row], a byte each."""
        found = dict(parts)
        if self.support == "nm":
            positions = (shape[0], self._kept_a_row(shape[1]))
            found["support"] = unpack_wide(parts["support"], self._position_bits(), positions, threads)
        if self.values not in _DTYPES:
            count = shape[0] * self._kept_a_row(shape[1]) if self.support == "nm" else int(parts["row_starts"][-1])
            found["codes"] = bitpack.decode(parts["codes"].data, self._bits(), count, np.uint8, threads=threads)
        return found

    def packed(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """What `symbols` was given. Raises FormatError (positions or codes out of range or of another shape)."""
        found = dict(parts)
        if self.support == "nm":
            positions = (shape[0], self._kept_a_row(shape[1]))
            found["support"] = pack_wide(parts["support"], self._position_bits(), self.span, positions, threads)
        if self.values not in _DTYPES:
            codes = elements_of(parts["codes"])
            if codes.dtype != "U8" or len(codes.shape) != 1:
                raise _core.FormatError(f"codes are {codes.dtype} {list(codes.shape)}, U8 [kept] is needed")
            try:
                packed = bitpack.encode(parts["codes"], self._bits(), threads=threads)
            except ValueError as error:
                raise _core.FormatError(f"codes: {error}") from None
            found["codes"] = np.frombuffer(packed, np.uint8)
        return found

    def _mask(self, matrix: NDArray[np.float32], threads: int) -> NDArray[np.bool_]:
        columns = matrix.shape[1]
        if self.support == "nm":
            return _largest(matrix, self.span, self.keep, threads)
        if self.density is None:
            kept = np.logical_or.reduceat(matrix != 0, np.arange(0, columns, self.span), axis=1)
        else:
            norms = matrix if self.span == 1 else _norms(matrix, self.span)
            kept = _largest(norms, norms.shape[1], round(self.density * norms.shape[1]), threads)
        return kept if self.span == 1 else np.repeat(kept, self.span, axis=1)[:, :columns]

    def _support(self, mask: NDArray[np.bool_], threads: int) -> NDArray[np.uint8]:
        rows, columns = mask.shape
        if self.support == "nm":
            kept = self._kept_a_row(columns)
            per_span = np.add.reduceat(mask, np.arange(0, columns, self.span), axis=1, dtype=np.int64)
            sizes = np.minimum(self.span, columns - np.arange(0, columns, self.span))
            if bad := np.flatnonzero((per_span != np.minimum(self.keep, sizes)).any(axis=1)).tolist():
                raise ValueError(f"the mask does not keep {self.keep} of every {self.span} columns in row {bad[0]}")
            positions = (np.nonzero(mask)[1] % self.span).astype(np.uint8).reshape(rows, kept)
            return pack_wide(positions, self._position_bits(), self.span, (rows, kept), threads)
        bits = mask[:, :: self.span]
        if self.span > 1 and not np.array_equal(np.repeat(bits, self.span, axis=1)[:, :columns], mask):
            raise ValueError(f"the mask does not keep whole blocks of {self.span} columns")
        return np.packbits(bits, axis=1, bitorder="little")

    def _integers(self) -> IntGroup:
        return IntGroup(bits=self._bits(), group=self.group, mode="symmetric", scale=self.scale)

    def _bits(self) -> int:
        return int(self.values[3:])

    def _position_bits(self) -> int:
        return (self.span - 1).bit_length()

    def _kept_a_row(self, columns: int) -> int:
        return columns // self.span * self.keep + min(self.keep, columns % self.span)


def _norms(matrix: NDArray[np.float32], span: int) -> NDArray[np.float32]:
    """A sixteenth of each block's Euclidean norm, which is finite in float32 whatever the weights."""
    rows, columns = matrix.shape
    squares = np.zeros((rows, -(-columns // span)))
    for i in range(min(span, columns)):  # column by column: the sums are in one order everywhere
        some = matrix[:, i::span].astype(np.float64)
        squares[:, : some.shape[1]] += some * some
    return (np.sqrt(squares) / 16).astype(np.float32)


def _largest(numbers: NDArray[np.float32], span: int, keep: int, threads: int) -> NDArray[np.bool_]:
    """True for the `keep` largest magnitudes of every `span` columns of a row."""
    ordered = np.ascontiguousarray(numbers, np.float32)
    mask = np.empty(ordered.shape, np.bool_)
    rows, columns = ordered.shape
    _core.keep_largest(ordered.ctypes.data, rows, columns, span, keep, mask.ctypes.data, threads)
    return mask


def sparse(
    support: str = "bitmap",
    *,
    keep: int = 0,
    span: int = 1,
    density: float | None = None,
    values: str = "fp16",
    group: int | str = "channel",
    scale: str = "fp16",
    activations: str = "int8",
) -> Sparse:
    """Make a Sparse, whose docstring says what the numbers are. Raises ValueError."""
    return Sparse(
        support=support, keep=keep, span=span, density=density, values=values, group=group, scale=scale,
        activations=activations,
    )  # fmt: skip
