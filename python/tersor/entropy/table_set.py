"""Many tables of integers at once: one for each index of a learned codec. Page: docs/formats/table_set.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

Family = Literal["gaussian", "laplace", "logistic", "student_t"]

_FAMILIES = {"gaussian": 0, "laplace": 1, "logistic": 2, "student_t": 3}  # as csrc/entropy/distribution.h numbers them
_SCALE_BITS, _FREEDOM_BITS = 16, 8


def _fixed(values: Any, bits: int, what: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """Multiples of 2**-bits. Scaling by a power of two and rounding are exact, so every machine gets the same ones."""
    array = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        scaled = np.rint(array * 2.0**bits)
    limits = np.iinfo(dtype)
    if not np.isfinite(array).all() or (array.size and (scaled.min() < limits.min or scaled.max() > limits.max)):
        least, most = limits.min / 2.0**bits, limits.max / 2.0**bits
        raise ValueError(f"{what} are finite, from {least:.6g} to {most:.6g}, found {array.tolist()!r:.200}")
    return np.ascontiguousarray(scaled.astype(dtype))


def _fraction_bits(fractions: int) -> int:
    if fractions not in (1, 2, 4, 8, 16):
        raise ValueError(f"fractions are 1, 2, 4, 8 or 16, not {fractions}")
    return int(fractions).bit_length() - 1


class TableSet:
    """Tables of integer symbols, named by an index. Immutable. Page: docs/formats/table_set.md.

    Each table gives slots of 2**precision to a run of integers and to an escape, by which every other 32-bit integer
    can be coded. The parametric ones are built in integer arithmetic alone: the same parameters give the same tables on
    every machine, whatever its compiler, instruction set or mathematical library.
    """

    __slots__ = ("_native", "_packed")

    def __init__(self, native: _core.TableSet) -> None:
        self._native = native
        self._packed: bytes | None = None

    @classmethod
    def gaussian(cls, scales: ArrayLike, precision: int = 16, *, fractions: int = 1) -> TableSet:
        """One table for each standard deviation, of the Gaussian around 0 integrated over [k - 1/2, k + 1/2].

        scales: [n] floats in 1/256..8192, rounded to multiples of 2**-16, not so wide that the likeliest integer is
        worth less than half a slot. precision: 12..16; all tables have at most 2**24 symbols and buckets together.
        fractions: positions of the mean between two integers, 1, 2, 4, 8 or 16, where symbols are coded with means
        (see encode_indexed).
        Raises ValueError (n not in 1..4096; scales, precision, fractions out of range).
        Source: Balle et al., arXiv:1802.01436 (scale hyperprior); Minnen et al., arXiv:1809.02736 (means).
        """
        return cls._parametric("gaussian", scales, None, precision, fractions)

    @classmethod
    def laplace(cls, scales: ArrayLike, precision: int = 16, *, fractions: int = 1) -> TableSet:
        """The same with Laplace distributions, density exp(-|x| / scale) / (2 scale)."""
        return cls._parametric("laplace", scales, None, precision, fractions)

    @classmethod
    def logistic(cls, scales: ArrayLike, precision: int = 16, *, fractions: int = 1) -> TableSet:
        """The same with logistic distributions, cumulative 1 / (1 + exp(-x / scale))."""
        return cls._parametric("logistic", scales, None, precision, fractions)

    @classmethod
    def student_t(cls, scales: ArrayLike, freedom: ArrayLike, precision: int = 16, *, fractions: int = 1) -> TableSet:
        """The same with Student's distributions. freedom: [n] or one float, 1..256, rounded to multiples of 1/256."""
        return cls._parametric("student_t", scales, freedom, precision, fractions)

    @classmethod
    def _parametric(cls, family: str, scales: Any, freedom: Any, precision: int, fractions: int) -> TableSet:
        column = np.asarray(scales, dtype=np.float64)
        if column.ndim != 1:
            raise ValueError(f"scales have one dimension, not {column.ndim}")
        column = column[:, None]
        rows = (
            None if freedom is None else np.broadcast_to(np.asarray(freedom, np.float64), (column.shape[0],))[:, None]
        )
        ones = np.ones(column.shape)
        return cls._mixtures(family, ones, 0 * ones, column, rows, precision, fractions)

    @classmethod
    def mixture(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        scales: ArrayLike,
        precision: int = 16,
        *,
        family: Family = "gaussian",
        freedom: ArrayLike | None = None,
        fractions: int = 1,
    ) -> TableSet:
        """One table for each row of up to four distributions of a family.

        weights: [n, k] floats, k in 1..4, relative to one another, a row's sum from 2**-16 to 65535; rounded to 2**-16.
        means: [n, k] floats in -32768..32767, likewise. scales, precision, fractions: as gaussian takes them, [n, k].
        family: "gaussian", "laplace", "logistic" or "student_t". freedom: [n, k], for "student_t" alone.
        Raises ValueError (shapes, ranges; means of a row over 65,534 apart).
        Source: Cheng et al., arXiv:2001.01568 (Gaussian mixtures).
        """
        if family not in _FAMILIES:
            raise ValueError(f"family is one of {', '.join(_FAMILIES)}, not {family!r}")
        return cls._mixtures(family, weights, means, scales, freedom, precision, fractions)

    @classmethod
    def _mixtures(
        cls, family: str, weights: Any, means: Any, scales: Any, freedom: Any, precision: int, fractions: int
    ) -> TableSet:
        shape = np.shape(scales)
        shapes = {np.shape(array) for array in (weights, means, scales, *([] if freedom is None else [freedom]))}
        if len(shape) != 2 or shapes != {shape}:
            raise ValueError(f"parameters have one shape [tables, components], found {sorted(shapes, key=str)}")
        fixed_scales = _fixed(scales, _SCALE_BITS, "scales", np.uint32)
        fixed_weights = _fixed(weights, _SCALE_BITS, "weights", np.uint32)
        fixed_means = _fixed(means, _SCALE_BITS, "means", np.int32)
        freedoms = None if freedom is None else _fixed(freedom, _FREEDOM_BITS, "degrees of freedom", np.uint32)
        return cls(
            _core.TableSet.mixtures(
                _FAMILIES[family],
                shape[1],
                fixed_scales.size,
                fixed_weights.ctypes.data,
                fixed_means.ctypes.data,
                fixed_scales.ctypes.data,
                0 if freedoms is None else freedoms.ctypes.data,
                precision,
                _fraction_bits(fractions),
            )
        )

    @classmethod
    def from_pmfs(
        cls,
        pmfs: Sequence[ArrayLike],
        offsets: ArrayLike | None = None,
        precision: int = 16,
        *,
        tails: ArrayLike | None = None,
    ) -> TableSet:
        """One table for each list of probabilities.

        pmfs: sequences of 1..65536 floats, finite, not negative; any common factor of a row (counts do as well) is
        divided out. offsets: [n] integers, each the symbol of a row's first probability; 0 where none are given.
        precision: 12..16. tails: [n] floats, what all other symbols of a table are worth together, 0 where none are
        given; the escape gets one slot at least. What is worth less than a quarter of a slot is left to the escape.
        Raises ValueError (n, a row's length, a probability or precision out of range; nothing worth a slot).
        """
        rows = [np.asarray(row, dtype=np.float64) for row in pmfs]
        if any(row.ndim != 1 for row in rows):
            raise ValueError(f"each pmf has one dimension, found {next(row.shape for row in rows if row.ndim != 1)}")
        flat = np.ascontiguousarray(np.concatenate(rows)) if rows else np.empty(0)
        outside = np.zeros(len(rows)) if tails is None else np.asarray(tails, dtype=np.float64)
        if outside.shape != (len(rows),):
            raise ValueError(f"tails have shape {outside.shape}, ({len(rows)},) is needed")
        lengths, lows = [row.size for row in rows], _lows(offsets, len(rows))
        return cls(_core.TableSet.from_pmfs(flat.ctypes.data, lengths, lows, outside.tolist(), precision))

    @classmethod
    def from_cdfs(
        cls,
        cdfs: Sequence[ArrayLike],
        sizes: ArrayLike | None = None,
        offsets: ArrayLike | None = None,
        precision: int = 16,
        *,
        escape: bool = True,
    ) -> TableSet:
        """One table for each list of cumulative frequencies, as CompressAI and TensorFlow Compression hold them.

        cdfs: [n, length] integers or sequences of them, each rising from 0 to 2**precision. sizes: [n], how many values
        of each row count; all where none are given. offsets: [n] integers, the symbol of each row's first interval.
        escape: the last interval is the escape's; where it is not, the most frequent symbol gives the escape a slot.
        Raises ValueError (a row that does not rise from 0 to 2**precision, n, lengths), TypeError (no integers).
        """
        rows = [np.asarray(row) for row in cdfs]
        if any(row.dtype.kind not in "iu" for row in rows):
            raise TypeError(f"cdfs are integers, not {next(row.dtype for row in rows if row.dtype.kind not in 'iu')}")
        counts = [row.size for row in rows] if sizes is None else [int(size) for size in np.asarray(sizes).reshape(-1)]
        if len(counts) != len(rows):
            raise ValueError(f"{len(counts)} sizes for {len(rows)} cdfs")
        taken = []
        for number, (row, count) in enumerate(zip(rows, counts, strict=True)):
            if row.ndim != 1 or not 1 <= count <= row.size:
                raise ValueError(f"cdf {number} has shape {row.shape} and size {count}, 1 to its length is needed")
            least, most = int(row[:count].min()), int(row[:count].max())
            if not -(2**31) <= least <= most < 2**31:
                raise ValueError(f"cdf {number} rises from 0 to {1 << precision}, found {least} to {most}")
            values = row[:count].astype(np.int32)
            taken.append(values if escape else np.append(values, values[-1:]))  # an interval for it, without a slot
        flat = np.concatenate(taken) if taken else np.empty(0, np.int32)
        lengths, lows = [row.size for row in taken], _lows(offsets, len(taken))
        return cls(_core.TableSet.from_cdfs(flat.ctypes.data, lengths, lows, precision))

    @classmethod
    def from_bytes(cls, data: Buffer) -> TableSet:
        """Read what to_bytes wrote, to its last byte. Raises FormatError."""
        return cls(_core.TableSet.from_bytes(data if isinstance(data, bytes) else bytes(memoryview(data))))

    def to_bytes(self) -> bytes:
        """The tables themselves, not their parameters: for a codec that has nobody else build them."""
        if self._packed is None:
            self._packed = self._native.to_bytes()
        return self._packed

    def __reduce__(self) -> Any:
        return TableSet.from_bytes, (self.to_bytes(),)

    def __len__(self) -> int:
        """Tables that an index can name."""
        return self._native.groups

    @property
    def precision(self) -> int:
        """log2 of what a table's frequencies sum to."""
        return self._native.precision

    @property
    def fractions(self) -> int:
        """Positions of the mean between two integers; each index has so many tables."""
        return 1 << self._native.fraction_bits

    @property
    def offsets(self) -> NDArray[np.int32]:
        """[n * fractions] int32: the first symbol of each table."""
        return np.asarray(self._native.lows, dtype=np.int32)

    def frequencies(self, index: int, fraction: int = 0) -> NDArray[np.uint32]:
        """[symbols + 1] uint32 that sum to 2**16: a table's, its escape's last. Raises ValueError (no such table)."""
        if not 0 <= index < len(self) or not 0 <= fraction < self.fractions:
            raise ValueError(f"table {index}, fraction {fraction}: there are {len(self)} with {self.fractions} each")
        return np.asarray(self._native.frequencies(index * self.fractions + fraction), dtype=np.uint32)

    def quantize_means(self, means: ArrayLike) -> NDArray[np.int32]:
        """Means as encode_indexed takes them: multiples of 1 / fractions, the nearest, halves to the even one.

        Both sides must hold the same integers, so only one may round floats that another machine might compute
        differently. Raises ValueError (not finite, or beyond 32 bits).
        """
        return _fixed(means, self._native.fraction_bits, "means", np.int32)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, TableSet) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        fractions = f" x {self.fractions}" if self.fractions > 1 else ""
        return f"TableSet({len(self)}{fractions} tables, {self._native.symbols} symbols, precision {self.precision})"


def _lows(offsets: Any, count: int) -> list[int]:
    lows = [0] * count if offsets is None else [int(offset) for offset in np.asarray(offsets).reshape(-1)]
    if len(lows) != count:
        raise ValueError(f"{len(lows)} offsets for {count} tables")
    if any(not -(2**31) <= low < 2**31 for low in lows):
        raise ValueError(f"offsets have 32 bits, found {next(low for low in lows if not -(2**31) <= low < 2**31)}")
    return lows
