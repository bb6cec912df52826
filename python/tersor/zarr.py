"""The zarr format 3 codec "tersor", found by its entry point. Needs zarr >= 3.1.

    zarr.create_array(store, shape=..., dtype="bfloat16", compressors=tersor.zarr.TersorCodec())

zarr's compressors turn bytes into bytes, but they are told the array's dtype: the bytes of a chunk are taken as
elements of it, so that floats are cut into planes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

try:
    from zarr.abc.codec import BytesBytesCodec
    from zarr.core.common import parse_named_configuration
except ImportError as error:
    raise ImportError("tersor.zarr needs zarr >= 3.1: pip install 'tersor[zarr]'") from error

import numpy as np

from tersor import lossless
from tersor.numcodecs import coded_dtype

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TersorCodec"]


@dataclass(frozen=True)
class TersorCodec(BytesBytesCodec):  # type: ignore[misc]
    """Exact compression of chunks. level: 1 (fastest) to 9 (smallest), None for the default, 4."""

    is_fixed_size: ClassVar[bool] = False

    level: int | None = None

    def __post_init__(self) -> None:
        if self.level is not None and self.level not in range(1, 10):
            raise ValueError(f"level is 1 to 9 or None, not {self.level!r}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """{"name": "tersor"}, with {"configuration": {"level": ...}} where it is not the default."""
        _, configuration = parse_named_configuration(data, "tersor", require_configuration=False)
        return cls(**(configuration or {}))

    def to_dict(self) -> dict[str, Any]:
        """What zarr.json holds."""
        return {"name": "tersor", "configuration": {} if self.level is None else {"level": self.level}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known before the chunk is coded: zarr's codecs say so by this error, and shards then ask no more."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        plain = np.ascontiguousarray(chunk_data.as_numpy_array()).view(np.uint8)
        dtype = coded_dtype(chunk_spec.dtype.to_native_dtype())
        # Text of varying length and other codecs in front make bytes that are no whole number of elements.
        elements = plain if plain.nbytes % dtype.itemsize else plain.view(dtype)
        return chunk_spec.prototype.buffer.from_bytes(lossless.compress(elements, level=self.level))

    def _decode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        elements = lossless.decompress(np.ascontiguousarray(chunk_data.as_numpy_array()).data)
        return chunk_spec.prototype.buffer.from_array_like(elements.reshape(-1).view(np.uint8))
