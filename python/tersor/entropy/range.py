"""Bins with probabilities that follow what was coded, plain bits and Exp-Golomb numbers. Page: docs/formats/range.md.

encoder = range.Encoder(64)
encoder.encode(bins, contexts)
encoder.encode_exp_golomb(residuals, 0, span=16, signed=True)
decoder = range.Decoder(encoder.finish(), 64)
assert (decoder.decode(contexts) == bins).all()
assert (decoder.decode_exp_golomb(len(residuals), 0, span=16, signed=True) == residuals).all()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.lossless import Elements, elements_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

__all__ = ["Decoder", "Encoder"]


def _ids_of(contexts: object) -> Elements:
    """Find context numbers. Signed ones are read as unsigned: negative ones of 32 bits are above every context."""
    found = elements_of(contexts)
    if found.dtype[0] not in "UI":
        raise TypeError(f"integers are needed as contexts, found {found.dtype}")
    return elements_of(np.asarray(contexts, np.int32)) if found.dtype in ("I8", "I16") else found


def _contexts_for(contexts: object, count: int) -> Elements:
    if isinstance(contexts, (int, np.integer)):
        if contexts < 0:
            raise ValueError(f"context {contexts}: one from 0 on is needed")
        return _ids_of(np.full(count, contexts, np.min_scalar_type(contexts)))
    found = _ids_of(contexts)
    if _count_of(found) != count:
        raise ValueError(f"{_count_of(found)} contexts for {count} values")
    return found


def _width_of(elements: Elements) -> int:
    return int(elements.dtype[1:]) // 8


def _count_of(elements: Elements) -> int:
    return elements.nbytes // _width_of(elements)


def _values_of(values: ArrayLike, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    found = np.asarray(values)
    if found.dtype.kind not in "ui" and found.size:
        raise TypeError(f"integers are needed, found {found.dtype}")
    limits = np.iinfo(dtype)
    if found.size and not (limits.min <= int(found.min()) and int(found.max()) <= limits.max):
        raise ValueError(f"values from {found.min()} to {found.max()}, {limits.min}..{limits.max} are allowed")
    return np.ascontiguousarray(found, dtype)


def _start_of(start: ArrayLike | None, contexts: int) -> NDArray[np.uint16]:
    if start is None:
        return np.empty(0, np.uint16)
    found = np.asarray(start, np.float64)
    if found.shape != (contexts,) or not ((found > 0) & (found < 1)).all():
        raise ValueError(f"start is {contexts} probabilities above 0 and below 1, found shape {found.shape}")
    return np.clip(np.rint(found * 65536), 1, 65535).astype(np.uint16)


class Encoder:
    """Codes bins, bits and numbers one after the other; a Decoder that is asked for the same gives them back.

    contexts: how many there are, 1..2^24, numbered from 0. rates: each context keeps two estimates of the probability
    of a one, which every bin moves by 2^-rate of what they are off; their mean codes. 2..12 each; (4, 7) follows what
    changes, (8, 10) suits what stays the same. start: [contexts] probabilities of a one to begin with, above 0 and
    below 1, rounded to 2^-16; None for a half.
    A call costs well below a microsecond for one bin (ints) and some nanoseconds a bin for arrays. One thread at a
    time; ValueError for a second one, and after finish.
    Raises ValueError (contexts, rates, start).
    Source: Schindler, 1998 (range coding); two rates as in ITU-T H.266 (state transition of CABAC).
    """

    __slots__ = ("_native",)

    def __init__(self, contexts: int, *, rates: tuple[int, int] = (4, 7), start: ArrayLike | None = None) -> None:
        begin = _start_of(start, contexts)
        self._native = _core.RangeEncoder(contexts, *rates, begin.ctypes.data, begin.size)

    def encode(self, bins: object, contexts: object) -> None:
        """Code bins in contexts.

        bins: one-byte elements or bool, 0 or 1, any shape; or one int. contexts: integers, as many, or one int for all.
        Raises TypeError (dtypes), ValueError (counts; other bins; a context that is not there). Nothing is coded then.
        """
        if isinstance(bins, (int, np.integer)) and isinstance(contexts, (int, np.integer)):
            if not (0 <= bins <= 1 and 0 <= contexts < 1 << 32):
                raise ValueError(f"bin {bins} in context {contexts}: 0 or 1 in a context from 0 on is needed")
            return self._native.encode_bin(int(bins), int(contexts))
        found = elements_of(bins)
        if found.dtype not in ("U8", "I8", "BOOL"):
            raise TypeError(f"bins of one byte are needed, found {found.dtype}")
        ids = _contexts_for(contexts, found.nbytes)
        self._native.encode(found.address, ids.address, found.nbytes, _width_of(ids))
        return None

    def encode_bypass(self, values: ArrayLike, width: int) -> None:
        """Code values as plain bits.

        values: integers of any dtype and shape, or one int, from 0 to below 2^width. width: 1..32, in bits.
        Raises TypeError (dtype), ValueError (a value's or the width's range). Nothing is coded then.
        """
        found = _values_of(values, np.uint32)
        self._native.encode_bypass(found.ctypes.data, found.size, width)

    def encode_exp_golomb(
        self, values: ArrayLike, first: object, *, span: int, order: int = 0, signed: bool = False
    ) -> None:
        """Code numbers by Exp-Golomb: the prefix's bins in contexts, the rest as plain bits.

        values: integers of any dtype and shape, or one int, from 0 to below 2^32; signed: of 32 bits, coded in the
        order 0, -1, 1, -2, 2, ... first: each value's first context, or one for all. span: how many contexts a prefix
        has; bin k is in context first + min(k, span - 1). order: 0..31, the plain bits of the smallest values.
        Raises TypeError (dtypes), ValueError (counts, a value's range, contexts, order). Nothing is coded then.
        """
        found = _values_of(values, np.int32 if signed else np.uint32)
        ids = _contexts_for(first, found.size)
        self._native.encode_exp_golomb(found.ctypes.data, ids.address, found.size, _width_of(ids), span, order, signed)

    def finish(self) -> bytes:
        """End the coding and give the stream."""
        return self._native.finish()


class Decoder:
    """Gives back what an Encoder was given: the same calls in the same order, large or small.

    data: what Encoder.finish returned, in a buffer or any array, which must not change meanwhile. contexts, rates,
    start: as given to the encoder. A stream does not tell its bins apart: other calls, and most damage, give other bins
    than were coded.
    Raises FormatError (not a range stream), ValueError (contexts, rates, start); each call raises FormatError where
    bits are needed beyond the data's end or were met that no encoder writes, and TypeError and ValueError as encoding.
    """

    __slots__ = ("_native", "_source")

    def __init__(
        self, data: Buffer, contexts: int, *, rates: tuple[int, int] = (4, 7), start: ArrayLike | None = None
    ) -> None:
        begin = _start_of(start, contexts)
        self._source = elements_of(data)
        self._native = _core.RangeDecoder(
            self._source.address, self._source.nbytes, contexts, *rates, begin.ctypes.data, begin.size
        )

    def decode(self, contexts: Any) -> Any:
        """Decode a bin in each context.

        contexts: integers of any shape, or one int. Returns uint8 of their shape, or an int.
        """
        if isinstance(contexts, (int, np.integer)):
            if not 0 <= contexts < 1 << 32:
                raise ValueError(f"context {contexts}: one from 0 on is needed")
            return self._native.decode_bin(int(contexts))
        ids = _ids_of(contexts)
        bins = np.empty(ids.shape, np.uint8)
        self._native.decode(ids.address, bins.ctypes.data, bins.size, _width_of(ids))
        return bins

    def decode_bypass(self, count: int, width: int) -> NDArray[np.uint32]:
        """Decode count values of plain bits, 1..32 each. Returns [count] uint32."""
        values = np.empty(count, np.uint32)
        self._native.decode_bypass(values.ctypes.data, count, width)
        return values

    def decode_exp_golomb(
        self, count: int, first: object, *, span: int, order: int = 0, signed: bool = False
    ) -> NDArray[Any]:
        """Decode count numbers; the other arguments as given to encode. Returns [count] uint32, signed: int32."""
        values = np.empty(count, np.int32 if signed else np.uint32)
        ids = _contexts_for(first, count)
        self._native.decode_exp_golomb(ids.address, values.ctypes.data, count, _width_of(ids), span, order, signed)
        return values

    def finish(self) -> None:
        """Raise FormatError where bytes are left that nothing decoded so far has called for."""
        self._native.finish()
