"""Decodes lossless chunks, written from docs/formats/lossless.md alone; tables and blocks by entropy's oracle."""

from __future__ import annotations

import numpy as np
import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by

RefusedError, need, Cursor = entropy.RefusedError, entropy.need, entropy.Cursor


def plane(cursor: Cursor, count: int, limit: int) -> np.ndarray:
    kind = cursor.number(1)
    need(kind <= 2, f"a plane of kind {kind}")
    if kind == 0:
        need(limit == 256, "raw names")
        return np.frombuffer(cursor.take(count), np.uint8)
    if kind == 1:
        value = cursor.number(1)
        need(value < limit, f"constant {value}")
        return np.full(count, value, np.uint8)
    run_count = cursor.varint()
    need(1 <= run_count <= 64, f"{run_count} runs")
    runs, left = [], count
    for number in range(run_count):
        rows, table = cursor.varint(), entropy.parse_table(cursor)
        need(len(table.present()) >= 2 and table.present()[-1] < limit and not table.escape, "values")
        if number == run_count - 1:
            need(rows == left // 256, "rows of the last run")
            size = left
        else:
            need(1 <= rows <= left // 256, "rows of a run")
            size = 256 * rows
        left -= size
        runs.append((size, entropy.alias_slots(table)))
    return entropy.decode_block(cursor.take(cursor.number(4)), runs)


def unpack(cursor: Cursor, extra: int, count: int) -> np.ndarray:
    if extra == 0:
        return np.frombuffer(cursor.take(count), np.uint8)
    kept = {1: 7, 2: 3}[extra]
    block = 64 * (kept + 1)
    blocks, tail = divmod(count, block)
    packed = np.frombuffer(cursor.take(blocks * 64 * kept), np.uint8).reshape(blocks, kept, 64)
    own = packed & ((1 << (8 - extra)) - 1)
    dealt = np.zeros((blocks, 1, 64), np.uint8)
    for run in range(kept):
        dealt[:, 0] |= (packed[:, run] >> (8 - extra)) << (run * extra)
    whole = np.concatenate([own, dealt], axis=1).reshape(-1)
    return np.concatenate([whole, np.frombuffer(cursor.take(tail), np.uint8)])


def words(cursor: Cursor, count: int) -> np.ndarray:
    cut = cursor.number(1)
    need(cut <= 1, f"cut {cut}")
    if cut == 1:
        keys = plane(cursor, count, 256).astype(np.int64)
        rest = plane(cursor, count, 256).astype(np.int64)
        return (keys << 7 | (rest & 127) | rest >> 7 << 15).astype("<u2")
    extra = cursor.number(1)
    need(extra <= 2, f"{extra} extra bits")
    window, special = cursor.number(2), cursor.number(2)
    names = plane(cursor, count, 32)
    escapes = cursor.varint()
    need(escapes <= count, f"{escapes} escapes")
    escaped = np.zeros(0, np.int64)
    if escapes:
        low = plane(cursor, escapes, 256).astype(np.int64)
        escaped = low | plane(cursor, escapes, 256).astype(np.int64) << 8
    kind = cursor.number(1)
    need(kind <= 1, f"a rest of kind {kind}")
    rest = (plane(cursor, count, 256) if kind else unpack(cursor, extra, count)).astype(np.int64)
    need(int((names == 31).sum()) == escapes, "another number of escapes")
    keys = (window + names.astype(np.int64)) & 0xFFFF
    keys[names == 30] = special
    keys[names == 31] = escaped
    low_bits = 7 - extra
    element = (keys << low_bits) % (1 << 15) | (rest >> low_bits & 1) << 15 | rest & ((1 << low_bits) - 1)
    return element.astype("<u2")


def decode_chunk(data: bytes, raw_bytes: int) -> bytes:
    """The raw bytes of a chunk. Raises RefusedError."""
    cursor = Cursor(data)
    method = cursor.number(1)
    need(method <= 4, f"method {method}")
    if method == 0:
        raw = cursor.take(cursor.left())
        need(len(raw) == raw_bytes, f"{len(raw)} stored bytes")
        return raw
    need(1 <= raw_bytes <= 1 << 20, f"{raw_bytes} raw bytes")
    if method == 1:
        width = cursor.number(1)
        need(width in (1, 2, 4) and raw_bytes % width == 0, f"width {width}")
        raw = cursor.take(width) * (raw_bytes // width)
    elif method == 2:
        raw = plane(cursor, raw_bytes, 256).tobytes()
    elif method == 3:
        need(raw_bytes % 2 == 0, "odd")
        raw = words(cursor, raw_bytes // 2).tobytes()
    else:
        need(raw_bytes % 4 == 0, "no multiple of 4")
        count = raw_bytes // 4
        upper = words(cursor, count).astype("<u4")
        byte1 = plane(cursor, count, 256).astype("<u4")
        byte0 = plane(cursor, count, 256).astype("<u4")
        raw = (upper << 16 | byte1 << 8 | byte0).astype("<u4").tobytes()
    cursor.end()
    return raw
