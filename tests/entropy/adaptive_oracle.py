"""Reads and writes adaptive streams, written from docs/formats/adaptive.md alone: slot by slot, lane by lane.

Varints are those of the page table, so of entropy's oracle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by

BLOCK = 65536
LANES = {1: 1, 2: 4}
RefusedError, need = entropy.RefusedError, entropy.need


class Model:
    def __init__(self, bits: int, order: int, rate: int) -> None:
        self.bits, self.order, self.rate, self.d, self.before = bits, order, rate, 0, 0
        self.starts: defaultdict[int, list[int]] = defaultdict(lambda: [2048 * i for i in range(16)])  # by row
        self.ages: defaultdict[int, int] = defaultdict(lambda: 8)

    def row(self, high: int | None) -> int:
        context = self.before if self.order else 0
        if self.bits == 4:
            return context
        return 17 * context + (0 if high is None else 1 + high)

    def part(self, row: int, nibble: int) -> tuple[int, int]:
        starts = self.starts[row]
        return starts[nibble], (starts[nibble + 1] if nibble < 15 else 32768) - starts[nibble]

    def follow(self, row: int, nibble: int) -> None:
        least = 2 ** (self.rate - 4)
        self.d = (self.d + 40503) % 65536
        r = self.ages[row].bit_length() - 1
        h = self.d // 2 ** (16 - r)
        starts, reach = self.starts[row], 32768 - 16 * least
        steps = [i * least + (reach if i > nibble else 0) + h - start for i, start in enumerate(starts)]
        assert min(steps) >= -32768
        assert max(steps) <= 32767
        self.starts[row] = [start + (step >> r) for start, step in zip(starts, steps, strict=True)]
        assert self.starts[row][0] == 0
        self.ages[row] = min(self.ages[row] + 1, 2**self.rate)

    def run(self, symbol_count: int, nibble) -> list[int]:
        """nibble(row, place) for each; the symbols."""
        out = []
        for at in range(symbol_count):
            if self.bits == 4:
                row = self.row(None)
                self.before = nibble(row, at)
                self.follow(row, self.before)
            else:
                row = self.row(None)
                high = nibble(row, 2 * at)
                self.follow(row, high)
                row = self.row(high)
                low = nibble(row, 2 * at + 1)
                self.follow(row, low)
                self.before = 16 * high + low
            out.append(self.before)
        return out


def read_coded(cursor: entropy.Cursor, model: Model, lanes: int, count: int) -> list[int]:
    words = cursor.varint()
    need(words <= count * model.bits // 4, "more words than nibbles")
    states = [cursor.number(4) for _ in range(lanes)]
    need(all(state >= 65536 for state in states), "a state below 2^16")
    left = np.frombuffer(cursor.take(2 * words), "<u2").tolist()[::-1]

    def nibble(row: int, place: int) -> int:
        x = states[place % lanes]
        slot = x % 32768
        found = bisect_right(model.starts[row], slot) - 1
        start, frequency = model.part(row, found)
        x = frequency * (x // 32768) + slot - start
        if x < 65536:
            need(len(left) > 0, "a word is missing")
            x = x * 65536 + left.pop()
        states[place % lanes] = x
        return found

    out = model.run(count, nibble)
    need(not left and states == [65536] * lanes, "words or states are left")
    return out


def decode(data: bytes) -> np.ndarray:
    cursor = entropy.Cursor(data)
    stream, version, flags, rate = cursor.take(4)
    need(stream == 6 and version == 1, "another stream or version")
    need(flags < 4 and 4 <= rate <= 9, "a model that is not known")
    model = Model(4 if flags & 1 else 8, flags >> 1, rate)
    count = cursor.varint()
    need(-(-count // BLOCK) <= cursor.left() // 2, "more symbols than the bytes can hold")
    out: list[int] = []
    while len(out) < count:
        symbols = min(BLOCK, count - len(out))
        kind = cursor.number(1)
        need(kind <= 2, "another kind")
        if kind:
            out += read_coded(cursor, model, LANES[kind], symbols)
            continue
        raw = cursor.take(-(-symbols * model.bits // 8))
        halves = [half for byte in raw for half in ((byte & 15, byte >> 4) if model.bits == 4 else (byte,))]
        need(not any(halves[symbols:]), "a nibble too many")
        out += halves[:symbols]
        model.before = out[-1]
    cursor.end()
    return np.array(out, np.uint8)


# ---- writing: also what our encoder does not, such as four lanes of few symbols --------------------------------------


def coded_block(symbols: Sequence[int], model: Model, kind: int) -> bytes:
    parts = []

    def nibble(row: int, place: int) -> int:
        symbol = symbols[place * 4 // model.bits]
        value = symbol if model.bits == 4 else symbol >> 4 if place % 2 == 0 else symbol & 15
        parts.append(model.part(row, value))
        return value

    model.run(len(symbols), nibble)
    lanes, words = LANES[kind], []
    states = [65536] * lanes
    for place, (start, frequency) in reversed(list(enumerate(parts))):
        x = states[place % lanes]
        if x >= frequency << 17:
            words.append(x % 65536)
            x //= 65536
        states[place % lanes] = x // frequency * 32768 + x % frequency + start
    head = bytes([kind]) + varint(len(words)) + b"".join(state.to_bytes(4, "little") for state in states)
    return head + b"".join(word.to_bytes(2, "little") for word in reversed(words))


def raw_block(symbols: Sequence[int], model: Model) -> bytes:
    model.before = symbols[-1]
    if model.bits == 8:
        return b"\0" + bytes(symbols)
    padded = [*symbols, 0]
    return b"\0" + bytes(padded[i] | padded[i + 1] << 4 for i in range(0, len(symbols), 2))


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out, value = out + bytes([value % 128 | 128]), value // 128
    return out + bytes([value])


def head(count: int, model: Model) -> bytes:
    return bytes([6, 1, (model.bits == 4) | model.order << 1, model.rate]) + varint(count)
