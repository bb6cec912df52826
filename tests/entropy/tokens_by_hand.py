"""Writes tokens streams from docs/formats/tokens.md, with freedoms that our encoder does not take.

The goldens named v1_hand_* were written by it. A Shape says all of a book; flags and tokens are put one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tests_entropy_tokens_oracle as oracle  # loaded before; lengths of tables and the checksum come from it
from tests_entropy_by_hand import varint  # tests/entropy/by_hand.py, loaded before

Interval = tuple[int, int, int]  # start, length, bits


@dataclass
class Shape:
    size: int
    source: int = 0
    repeat: Sequence[int] = (7,) * 8
    classes: Sequence[int] = ()
    levels: Sequence[Sequence[int]] = field(default_factory=list)  # a table each

    @property
    def low(self) -> int:
        return oracle.Book(self.size).low


def string(intervals: Sequence[Interval]) -> bytes:
    state, out = 0, b""
    for start, length, bits in reversed(intervals):
        assert length > 0, "a symbol without an interval"
        while state >= length << (64 - bits):
            out, state = bytes([state % 256]) + out, state // 256
        state = (state // length << bits) + state % length + start
    return state.to_bytes((state.bit_length() + 7) // 8, "big") + out


def interval(lengths: Sequence[int], symbol: int, bits: int) -> Interval:
    return sum(lengths[:symbol]), lengths[symbol], bits


def packed_nibbles(values: Sequence[int]) -> bytes:
    padded = [*values, 0]
    return bytes(padded[i] | padded[i + 1] << 4 for i in range(0, len(values), 2))


def model(chunk_frames: int, shapes: Sequence[Shape], level_levels: Sequence[int] = (15,) * 32) -> bytes:
    """Every size stands for itself, where ours joins equal ones."""
    out = varint(chunk_frames) + bytes([len(shapes)])
    out += b"".join(varint(shape.size - 1) + b"\1" for shape in shapes)
    code: list[Interval] = []
    tabled = any(shape.source for shape in shapes)
    lengths = oracle.lengths_of(list(level_levels)) if tabled else []
    for shape in shapes:
        out += bytes([shape.source + 4 * (max(1, len(shape.levels)) - 1)]) + packed_nibbles(shape.repeat)
        code += [(c, 1, 4) for c in shape.classes]
        code += [interval(lengths, level, 16) for table in shape.levels for level in table]
    out += bytes([len(level_levels)]) + packed_nibbles(level_levels) if tabled else b"\0"
    return out + string(code)


def code(shapes: Sequence[Shape], frames: Sequence[Sequence[int]], shy: bool = False) -> bytes:
    """shy: the flag stays down where a token repeats."""
    out: list[Interval] = []
    before: Sequence[int] | None = None
    flags_before = [0] * len(shapes)
    for row in frames:
        flags = [1, 1]
        for b, shape in enumerate(shapes):
            flag = int(before is not None and row[b] == before[b] and not shy)
            if before is not None:
                yes = oracle.REPEAT[shape.repeat[4 * flags_before[b] + 2 * flags[-2] + flags[-1]]]
                out.append(interval([256 - yes, yes], flag, 8))
            flags.append(flag)
            if flag:
                continue
            table = 0
            if shape.source == 2 and before is not None:
                table = shape.classes[before[b] >> shape.low]
            if shape.source == 3:
                table = shape.classes[row[b - 1] >> shapes[b - 1].low]
            levels = shape.levels[table] if shape.source else [1] * oracle.Book(shape.size).symbols
            out.append(interval(oracle.lengths_of(list(levels)), row[b] >> shape.low, 16))
            out.append((row[b] % (1 << shape.low), 1, shape.low))
        flags_before = flags[2:] if before is not None else flags_before
        before = row
    return string(out)


def with_crc(data: bytes, number: bytes = b"") -> bytes:
    return data + oracle.crc32c(number + data).to_bytes(4, "little")


def chunk(frames: int, content: bytes, number: int) -> bytes:
    return with_crc(varint(frames) + content, number.to_bytes(8, "little"))


def packed(model_bytes: bytes) -> bytes:
    return with_crc(b"\x0a\1\2" + model_bytes)


def stream(model_bytes: bytes, frames: int, chunks: Sequence[bytes]) -> bytes:
    out = b"\x0a\1\0" + varint(len(model_bytes)) + model_bytes + varint(frames)
    return with_crc(out + b"".join(varint(len(part)) for part in chunks)) + b"".join(chunks)


def sources() -> list[Shape]:
    """Sources of all kinds, tables that ours would not choose, low bits under classes, levels of every size."""
    steep, flat = list(range(16)) + [0] * 4 + [31, 30, 29], [1] * 23
    return [
        Shape(23, 1, range(8), (), [steep]),
        Shape(23, 3, range(8, 16), [0, 1, 2] * 7 + [2, 2], [steep, flat, steep[::-1]]),
        Shape(
            9000,
            2,
            (0, 15) * 4,
            [i % 16 for i in range(2250)],
            [[2 + (i + c) % 9 for i in range(2250)] for c in range(16)],
        ),
        Shape(2, 0, (15,) * 8),
        Shape(5000, 3, (0,) * 8, [0, 0], [[5] * 2500]),
    ]


def frames_of_sources(count: int) -> list[list[int]]:
    rng = np.random.default_rng(8)
    rows = [[1, 2, 8999, 0, 4999]]
    while len(rows) < count:
        drawn = [
            rng.integers(1, 16),
            rng.integers(7, 16),
            rng.integers(0, 9000),
            rng.integers(0, 2),
            rng.integers(0, 5000),
        ]
        rows.append([int(d) if rng.random() < 0.6 else before for d, before in zip(drawn, rows[-1], strict=True)])
    return rows


def stream_of_sources(shy: bool = False) -> tuple[bytes, list[list[int]]]:
    shapes, rows = sources(), frames_of_sources(17)
    parts = [rows[:7], rows[7:14], rows[14:]]
    chunks = [chunk(len(part), code(shapes, part, shy), i) for i, part in enumerate(parts)]
    return stream(model(7, shapes), 17, chunks), rows
