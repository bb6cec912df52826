"""Static models as integer frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_PROBABILITY_BITS = 40  # a float may propose a table; from here on it is integers


def _integers(values: ArrayLike, what: str) -> NDArray[np.uint64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{what} are integers, not {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{what} have one dimension, not {array.ndim}")
    if array.size and int(array.min()) < 0:
        raise ValueError(f"{what} are not negative, found {int(array.min())}")
    return np.ascontiguousarray(array, dtype=np.uint64)


class Table:
    """Frequencies of symbols 0..n-1 that sum to 2**precision. Immutable. Page: docs/formats/table.md."""

    def __init__(self, native: _core.Table) -> None:
        self._native = native

    @classmethod
    def from_counts(cls, counts: ArrayLike, precision: int | None = None) -> Table:
        """Round counts to frequencies so that the coded size is smallest; no counted symbol is lost.

        counts: [n] integers, not negative, n <= 65536. precision: 12..16; None takes the one with the smallest data and
        table together. Where more symbols are counted than 2**precision, the rarest share an escape.
        Raises ValueError (nothing counted, negative counts, n or precision out of range), TypeError (no integers).
        """
        whole = _integers(counts, "counts")
        return cls(_core.Table.from_counts(whole.ctypes.data, whole.size, 0 if precision is None else precision))

    @classmethod
    def from_probs(cls, probs: ArrayLike, precision: int | None = None) -> Table:
        """Do the same with probabilities, which need not sum to 1; symbols of probability 0 get no frequency.

        probs: [n] floats, finite, not negative. precision: as from_counts takes it.
        Raises ValueError and TypeError as from_counts does.
        """
        array = np.asarray(probs, dtype=np.float64)
        if array.ndim != 1 or not np.isfinite(array).all() or (array.size and array.min() < 0):
            raise ValueError(f"probabilities are one finite, not negative dimension, found shape {array.shape}")
        total = array.sum()
        if not total > 0:
            raise ValueError(f"probabilities sum to {total}, more than 0 is needed")
        scaled = np.rint(array / total * 2.0**_PROBABILITY_BITS).astype(np.uint64)
        return cls.from_counts(np.where(array > 0, np.maximum(scaled, 1), 0), precision)

    @classmethod
    def from_frequencies(cls, frequencies: ArrayLike, precision: int) -> Table:
        """Take frequencies as they are.

        frequencies: [n] integers, n <= 65536. precision: 12..16. Raises ValueError (they do not sum
        to 2**precision, n or precision out of range), TypeError (no integers).
        """
        whole = _integers(frequencies, "frequencies")
        if whole.size and int(whole.max()) >> 32:
            raise ValueError(f"frequencies sum to 2**precision, found one of {int(whole.max())}")
        return cls(_core.Table.from_frequencies(whole.tolist(), precision, False))

    @classmethod
    def from_bytes(cls, data: bytes) -> Table:
        """Read what to_bytes wrote, to its last byte. Raises FormatError."""
        return cls(_core.Table.from_bytes(data))

    def to_bytes(self) -> bytes:
        """The compact form that travels in streams."""
        return self._native.to_bytes()

    @property
    def precision(self) -> int:
        """log2 of the frequencies' sum."""
        return self._native.precision

    @property
    def has_escape(self) -> bool:
        """Whether the last frequency is the escape's."""
        return self._native.has_escape

    @property
    def frequencies(self) -> NDArray[np.uint32]:
        """[n] uint32, or [n + 1] with the escape's last."""
        return np.asarray(self._native.frequencies(), dtype=np.uint32)

    def __reduce__(self) -> Any:
        return Table.from_bytes, (self.to_bytes(),)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Table) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        frequencies = self.frequencies
        return f"Table({int((frequencies > 0).sum())} of {frequencies.size} symbols, precision {self.precision})"
