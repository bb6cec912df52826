"""Decodes difference chunks, written from docs/formats/difference.md alone; planes and chunks by lossless's oracle."""

from __future__ import annotations

import numpy as np
import tests_lossless_oracle as lossless  # tests/lossless/oracle.py, under the name that tests/conftest.py loads it by

need, Cursor = lossless.need, lossless.Cursor


def decode_chunk(data: bytes, base: bytes) -> bytes:
    """The raw bytes of a chunk, as many as `base` has. Raises RefusedError."""
    cursor = Cursor(data)
    way = cursor.number(1)
    need(way <= 2, f"way {way}")
    if way == 0:
        return lossless.decode_chunk(data[1:], len(base))
    if way == 1:
        cursor.end()
        return base
    width = cursor.number(1)
    need(width in (1, 2, 4, 8) and 1 <= len(base) <= 1 << 20 and len(base) % width == 0, f"width {width}")
    count = len(base) // width
    zigzag = np.zeros(count, np.uint64)
    for byte in range(width):
        zigzag |= lossless.plane(cursor, count, 256).astype(np.uint64) << np.uint64(8 * byte)
    cursor.end()
    change = [int(z) >> 1 if z % 2 == 0 else -(int(z) >> 1) - 1 for z in zigzag]
    whole = [int.from_bytes(base[i * width : (i + 1) * width], "little") for i in range(count)]
    return b"".join(((a + d) % (1 << 8 * width)).to_bytes(width, "little") for a, d in zip(whole, change, strict=True))
