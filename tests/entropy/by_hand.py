"""Writes rans8 streams from docs/formats/rans8.md, with every freedom that the page leaves and our encoder does not take.

The goldens named v1_hand_* were written by it. Tables come from the oracle's Table; symbol by symbol, so for short input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SLOTS = 65536


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


class _Bits:
    def __init__(self) -> None:
        self.value, self.count = 0, 0

    def put(self, value: int, bits: int) -> None:
        self.value |= value << self.count
        self.count += bits

    def gamma(self, value: int) -> None:
        k = value.bit_length() - 1
        self.put(1 << k, k + 1)
        self.put(value - (1 << k), k)

    def bytes(self) -> bytes:
        return self.value.to_bytes((self.count + 7) // 8, "little")


def table(frequencies: Sequence[int], precision: int, longest_run: int = 1 << 17) -> bytes:
    """longest_run: absent symbols are told in runs of at most so many."""
    present = [s for s, f in enumerate(frequencies) if f]
    first, last = present[0], present[-1]
    out = bytes([precision]) + varint(first) + varint(last - first) + varint(len(frequencies) - 1 - last)
    if first == last:
        return out
    bits, previous, symbol = _Bits(), precision - 4, first
    while symbol <= last:
        width = frequencies[symbol].bit_length()
        step = width - previous
        bits.gamma(2 * step if step > 0 else 1 - 2 * step)
        if width:
            bits.put(frequencies[symbol] - (1 << (width - 1)), width - 1)
            previous, symbol = width, symbol + 1
        else:
            run = next(s for s in range(symbol, last + 1) if frequencies[s]) - symbol
            bits.gamma(min(run, longest_run))
            symbol += min(run, longest_run)
    return out + bits.bytes()


class _Coder:
    """One step backwards: the inverse of the page's step."""

    def __init__(self, slots: Any) -> None:
        order = np.lexsort((slots.rank, slots.symbol))
        self.slot_of = order.tolist()
        self.frequency = np.bincount(slots.symbol, minlength=256).tolist()
        self.start = np.concatenate([[0], np.cumsum(self.frequency)]).tolist()

    def push(self, x: int, symbol: int, words: list[int]) -> int:
        f = self.frequency[symbol]
        if x >> 16 >= f:
            words.append(x & 0xFFFF)
            x >>= 16
        return x // f << 16 | self.slot_of[self.start[symbol] + x % f]


def _words(values: Sequence[int], size: int = 2) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def block(symbols: Sequence[int], runs: Sequence[tuple[int, Any]], groups: int, tail: int) -> bytes:
    """runs: symbols and slots of each. tail: of the narrow coder; the others fill whole rows of 32 * groups."""
    n, lanes = len(symbols), 32 * groups
    coders = {id(slots): _Coder(slots) for _, slots in runs}
    coder_at = [coders[id(slots)] for size, slots in runs for _ in range(size)]
    narrow_lanes = 0 if tail == 0 else 1 if tail < 512 else 8
    narrow, narrow_words = [SLOTS] * narrow_lanes, []
    for i in range(n - 1, n - tail - 1, -1):
        lane = (n - 1 - i) % narrow_lanes
        narrow[lane] = coder_at[i].push(narrow[lane], symbols[i], narrow_words)
    out = bytes([groups]) + varint(tail) + varint(len(narrow_words)) + _words(narrow, 4) + _words(narrow_words[lanes:])
    if not groups:
        return out
    states = [SLOTS | (narrow_words[lane] if lane < len(narrow_words) else 0) for lane in range(lanes)]
    words: list[list[int]] = [[] for _ in range(groups)]
    for row in range((n - tail) // lanes - 1, -1, -1):
        for lane in range(lanes):
            i = row * lanes + lane
            states[lane] = coder_at[i].push(states[lane], symbols[i], words[lane // 32])
    out += b"".join(varint(len(w)) for w in words) + _words([x & 0xFFFF for x in states])
    return out + b"".join(_words(w) for w in words) + _words([x >> 16 for x in states])


def stream(count: int, flags: int, tables: bytes, chunks: Sequence[bytes], log_chunk: int = 20) -> bytes:
    lengths = b"".join(varint(len(chunk)) for chunk in chunks)
    return bytes([1, 1, flags, log_chunk]) + varint(count) + tables + lengths + b"".join(chunks)
