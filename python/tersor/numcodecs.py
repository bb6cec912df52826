"""The numcodecs codec "tersor", found by its entry point: for zarr format 2, kerchunk and all that knows numcodecs.

Nothing need be imported by hand: `numcodecs.get_codec({"id": "tersor"})`. Needs numcodecs >= 0.13.
"""

from __future__ import annotations

from typing import Any, ClassVar

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
except ImportError as error:
    raise ImportError("tersor.numcodecs needs numcodecs: pip install 'tersor[numcodecs]'") from error

import numpy as np

from tersor import _core, lossless

__all__ = ["TersorCodec"]


class TersorCodec(Codec):  # type: ignore[misc]
    """Exact compression of a chunk whose dtype is known, so that floats are cut into planes."""

    codec_id: ClassVar[str] = "tersor"

    def __init__(self, level: int | None = None) -> None:
        """level: 1 (fastest) to 9 (smallest), None for the default, 4. Raises ValueError."""
        if level is not None and not 1 <= level <= 9:
            raise ValueError(f"level is 1 to 9 or None, not {level}")
        self.level = level

    def encode(self, buf: Any) -> bytes:
        """Compress one chunk.

        buf: an array or buffer, row-major or column-major without gaps; its elements are taken in the order of memory.
        Dtypes of `tersor.compress` are coded as what they are, times as their integers, complex numbers as their
        parts, fixed-width text as its code points, and all else (big-endian, structured) as bytes.
        Returns what `tersor.compress` returns. Raises ValueError (gaps; objects).
        """
        flat = ensure_contiguous_ndarray(buf)
        return lossless.compress(flat.view(coded_dtype(flat.dtype)), level=self.level)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Give a chunk back: a 1-d array of the coded dtype, whose bytes are the chunk's.

        buf: what `encode` returned. out: an array or writable buffer of as many bytes, which is filled and returned.
        Raises FormatError (damaged), ValueError (out's size).
        """
        data = ensure_contiguous_ndarray(buf)
        if out is None:
            return lossless.decompress(data)
        target = ensure_contiguous_ndarray(out).view(np.uint8)
        entry = lossless.only_tensor(_core.TensorFile.view(data, []))
        if entry.nbytes != target.nbytes:
            raise ValueError(f"out has {target.nbytes} bytes, the chunk {entry.nbytes}")
        dtype = lossless.NUMPY_DTYPES[entry.dtype]
        if target.ctypes.data % dtype.alignment:  # a buffer at an odd address is no array of this dtype
            ndarray_copy(lossless.decompress(data), out)
        else:
            lossless.decompress(data, target.view(dtype).reshape(entry.shape))
        return out


def coded_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype with a number in .tsr as which elements of `dtype` are coded without copying them."""
    if dtype.hasobject or not dtype.isnative:
        return np.dtype(np.uint8)  # an object is refused by numcodecs before it comes here
    if dtype in lossless.NUMPY_DTYPES.values():
        return dtype
    if dtype.kind in "mM":
        return np.dtype(np.int64)
    if dtype.kind == "c" and dtype.itemsize == 16:
        return np.dtype(np.float64)
    if dtype.kind == "U" and dtype.itemsize:
        return np.dtype(np.uint32)
    return np.dtype(np.uint8)
