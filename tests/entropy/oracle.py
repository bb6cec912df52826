"""Reads tables and rans8 streams, written from docs/formats/table.md and docs/formats/rans8.md alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SLOTS = 65536


class RefusedError(Exception):
    """The page does not allow these bytes."""


def need(condition: bool, text: str) -> None:
    if not condition:
        raise RefusedError(text)


class Cursor:
    """Bytes from front to back; nothing is taken that is not there."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        need(size <= self.left(), f"{size} bytes needed, {self.left()} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = 0
        for place in range(10):
            byte = self.number(1)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                need(byte != 0 or place == 0, "a varint with a needless byte")
                break
        else:
            raise RefusedError("a varint of over 10 bytes")
        need(value < 1 << 64, "a varint of over 64 bits")
        return value

    def end(self) -> None:
        need(self.left() == 0, f"{self.left()} bytes too many")


# ---- table ----------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    frequencies: list[int]
    precision: int
    escape: bool

    def present(self) -> list[int]:
        return [symbol for symbol, f in enumerate(self.frequencies) if f]


class _Bits:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor, self.held, self.count = cursor, 0, 0

    def take(self, bits: int) -> int:
        while self.count < bits:
            self.held |= self.cursor.number(1) << self.count
            self.count += 8
        value = self.held & ((1 << bits) - 1)
        self.held >>= bits
        self.count -= bits
        return value

    def gamma(self, most: int) -> int:
        k = 0
        while self.take(1) == 0:
            k += 1
            need(k <= most, "gamma too long")
        return (1 << k) + self.take(k)


def parse_table(cursor: Cursor) -> Table:
    head = cursor.number(1)
    precision, escape = head & 127, head >= 128
    need(12 <= precision <= 16, f"precision {precision}")
    first, span, after = cursor.varint(), cursor.varint(), cursor.varint()
    need(first + span + after < 65536 + escape, "too many symbols")
    frequencies = [0] * (first + span + after + 1)
    if span == 0:
        frequencies[first] = 1 << precision
        return Table(frequencies, precision, escape)
    bits = _Bits(cursor)
    last, previous, symbol = first + span, precision - 4, first
    while symbol <= last:
        code = bits.gamma(6)
        width = previous + (code // 2 if code % 2 == 0 else -((code - 1) // 2))
        need(0 <= width <= precision, f"width {width}")
        if width > 0:
            frequencies[symbol] = (1 << (width - 1)) + bits.take(width - 1)
            previous = width
            symbol += 1
        else:
            run = bits.gamma(17)
            need(symbol > first and symbol + run <= last, "absent symbols at an end")
            symbol += run
    need(bits.held == 0, "padding")
    need(sum(frequencies) == 1 << precision, "sum")
    return Table(frequencies, precision, escape)


# ---- what a slot means ----------------------------------------------------------------------------------------------


@dataclass
class Slots:
    """Of each of the 65,536 slots: its symbol, that symbol's frequency, and its rank among that symbol's slots."""

    symbol: np.ndarray
    frequency: np.ndarray
    rank: np.ndarray


def coding_table(table: Table) -> None:
    need(not table.escape, "an escape")
    present = table.present()
    need(len(present) >= 2 and present[-1] < 256, "2 to 256 symbols are needed")


def alias_slots(table: Table) -> Slots:
    coding_table(table)
    present = table.present()
    base, buckets = (present[0], 32) if present[-1] - present[0] < 32 else (0, 256)
    width = SLOTS // buckets
    scaled = [f << (16 - table.precision) for f in table.frequencies[base : base + buckets]]
    scaled += [0] * (buckets - len(scaled))

    rest, own, alias = list(scaled), [width] * buckets, list(range(buckets))
    small = [b for b in range(buckets) if rest[b] < width]
    large = [b for b in range(buckets) if rest[b] >= width]
    while small:
        s, giver = small.pop(), large[-1]
        own[s], alias[s] = rest[s], giver
        rest[giver] -= width - rest[s]
        if rest[giver] < width:
            small.append(large.pop())
    used, offset = list(own), [0] * buckets
    for b in range(buckets):
        if own[b] < width:
            offset[b] = used[alias[b]] - own[b]
            used[alias[b]] += width - own[b]

    slot = np.arange(SLOTS)
    bucket, inside = slot // width, slot % width
    mine = inside < np.array(own)[bucket]
    symbol = np.where(mine, bucket, np.array(alias)[bucket])
    rank = np.where(mine, inside, inside + np.array(offset)[bucket])
    return Slots(symbol + base, np.array(scaled)[symbol], rank)


def contiguous_slots(frequencies: list[int]) -> Slots:
    need(2 <= len(frequencies) <= 32, f"{len(frequencies)} names")
    need(all(1024 <= f < SLOTS for f in frequencies), "a frequency below 1024")
    names = np.repeat(np.arange(len(frequencies)), frequencies)
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]])
    return Slots(names, np.array(frequencies)[names], np.arange(SLOTS) - starts[names])


# ---- block ----------------------------------------------------------------------------------------------------------


def decode_block(data: bytes, runs: list[tuple[int, Slots]]) -> np.ndarray:
    """runs: symbols and their slots; all but the last run are multiples of 256 symbols. Returns all symbols, uint8."""
    count = sum(symbols for symbols, _ in runs)
    ends = np.cumsum([symbols for symbols, _ in runs])

    def slots_at(symbol: int) -> Slots:
        return runs[int(np.searchsorted(ends, symbol, side="right"))][1]

    cursor = Cursor(data)
    groups = cursor.number(1)
    need(groups in (0, 1, 2, 4, 8), f"{groups} groups")
    lanes = 32 * groups
    tail, narrow_words = cursor.varint(), cursor.varint()
    need(tail <= count and (tail == count if groups == 0 else (count - tail) % lanes == 0), f"a tail of {tail}")
    need(narrow_words <= tail, f"{narrow_words} narrow words")
    narrow_lanes = 0 if tail == 0 else 1 if tail < 512 else 8
    narrow = [cursor.number(4) for _ in range(narrow_lanes)]
    need(all(x >= SLOTS for x in narrow), "a narrow state below 2^16")
    extra = [cursor.number(2) for _ in range(max(0, narrow_words - lanes))]
    out = np.empty(count, np.uint8)
    in_states: list[int] = []

    if groups:
        rows = (count - tail) // lanes
        words_of = [cursor.varint() for _ in range(groups)]
        need(all(words <= 32 * rows for words in words_of), "more words than symbols")
        low = np.frombuffer(cursor.take(2 * lanes), "<u2").astype(np.int64)
        words = np.frombuffer(cursor.take(2 * sum(words_of)), "<u2").astype(np.int64)
        high = np.frombuffer(cursor.take(2 * lanes), "<u2").astype(np.int64)
        need(bool((high != 0).all()), "a state below 2^16")
        x = high << 16 | low
        begin = np.concatenate([[0], np.cumsum(words_of)])
        at = begin[1:].copy()
        for row in range(rows):
            slots = slots_at(row * lanes)
            slot = x & 0xFFFF
            out[row * lanes : (row + 1) * lanes] = slots.symbol[slot]
            x = slots.frequency[slot] * (x >> 16) + slots.rank[slot]
            for g in range(groups):
                hungry = g * 32 + np.flatnonzero(x[g * 32 : g * 32 + 32] < SLOTS)
                at[g] -= len(hungry)
                need(at[g] >= begin[g], f"group {g} wants more words")
                # the last lane reads first, from the end: so lanes and words ascend together
                x[hungry] = x[hungry] << 16 | words[at[g] : at[g] + len(hungry)]
        need(bool((at == begin[:-1]).all()), "words are left")
        need(bool((x >> 16 == 1).all()), "a lane did not come back")
        kept = min(narrow_words, lanes)
        in_states = [int(value) for value in x[:kept] & 0xFFFF]
        need(not (x[kept:] & 0xFFFF).any(), "a lane without a word did not come back")
    cursor.end()

    stack = in_states + extra
    for symbol in range(count - tail, count):
        slots = slots_at(symbol)
        lane = (count - 1 - symbol) % narrow_lanes
        slot, above = narrow[lane] & 0xFFFF, narrow[lane] >> 16
        out[symbol] = slots.symbol[slot]
        value = int(slots.frequency[slot]) * above + int(slots.rank[slot])
        if value < SLOTS:
            need(len(stack) > 0, "the narrow coder wants more words")
            value = value << 16 | stack.pop()
        narrow[lane] = value
    need(not stack, "narrow words are left")
    need(all(x == SLOTS for x in narrow), "a narrow lane did not come back")
    return out


# ---- the direct alphabet of a given table ---------------------------------------------------------------------------


def _log2_entries() -> list[int]:
    entries = []
    for i in range(1024):
        mantissa, log = (1024 + i) << 21, 0
        for bit in range(31, 11, -1):
            mantissa = mantissa * mantissa >> 31
            if mantissa >= 1 << 32:
                mantissa >>= 1
                log |= 1 << bit
        entries.append(log)
    return [*entries, 1 << 32]


_LOG2 = _log2_entries()


def _log2(value: int) -> int:
    exponent = value.bit_length() - 1
    mantissa = (value << (32 - exponent)) & 0xFFFFFFFF
    i, rest = mantissa >> 22, mantissa & 0x3FFFFF
    return (exponent << 32) + _LOG2[i] + ((_LOG2[i + 1] - _LOG2[i]) * (rest >> 2) >> 20)


def price(part: int, whole: int) -> int:
    return (_log2(whole) - _log2(part)) >> 16


def _share_slots(shares: list[int]) -> list[int]:
    frequencies, free, sharing = [0] * len(shares), SLOTS, sum(shares)
    changed = True
    while changed:
        changed = False
        for i, share in enumerate(shares):
            if frequencies[i] == 0 and share * free < 1024 * sharing:
                frequencies[i] = 1024
                free, sharing, changed = free - 1024, sharing - share, True
    frequencies = [f or share * free // sharing for f, share in zip(frequencies, shares, strict=True)]
    frequencies[shares.index(max(shares))] += SLOTS - sum(frequencies)
    return frequencies


def direct_alphabet(table: Table) -> tuple[list[int], list[int]]:
    """Of a given table: the named symbols, and the frequencies of names and escape."""
    counts = table.frequencies[:256]
    order = sorted((s for s, f in enumerate(counts) if f), key=lambda s: (-counts[s], s))
    need(len(order) >= 2, "no contiguous form")
    total, best = sum(counts), None
    for m in range(1, min(31, len(order)) + 1):
        named, escaped = order[:m], order[m:]
        left = sum(counts[s] for s in escaped)
        frequencies = _share_slots([*(counts[s] for s in named), max(left, 1)])
        cost = sum(counts[s] * price(f, SLOTS) for s, f in zip(named, frequencies, strict=False))
        if left:
            cost += left * price(frequencies[-1], SLOTS) - left * price(left, total)
            cost += sum(counts[s] * price(counts[s], total) for s in escaped)
        if best is None or cost < best[0]:
            best = cost, named, frequencies
    assert best is not None
    _, named, frequencies = best
    pairs = sorted(zip(named, frequencies, strict=False))
    return [s for s, _ in pairs], [*(f for _, f in pairs), frequencies[-1]]


# ---- stream ---------------------------------------------------------------------------------------------------------


def _decode_escaped(data: bytes, count: int) -> np.ndarray:
    cursor = Cursor(data)
    kind = cursor.number(1)
    need(kind <= 2, f"escaped symbols of kind {kind}")
    if kind == 2:
        slots = alias_slots(parse_table(cursor))
        return decode_block(cursor.take(cursor.left()), [(count, slots)])
    return _plain(cursor, kind, count)


def _plain(cursor: Cursor, kind: int, count: int) -> np.ndarray:
    content = np.frombuffer(cursor.take(count if kind == 0 else 1), np.uint8)
    cursor.end()
    return np.resize(content, count)


def _decode_chunk(
    data: bytes, count: int, alias: Slots | None, symbols: list[int], direct: tuple[list[int], Slots] | None
) -> np.ndarray:
    cursor = Cursor(data)
    kind = cursor.number(1)
    need(kind <= 3, f"kind {kind}")
    if kind <= 1:
        return _plain(cursor, kind, count)
    if kind == 2:
        need(alias is not None, "no alias table")
        coded = decode_block(cursor.take(cursor.left()), [(count, alias)])
        return np.array(symbols, np.uint8)[coded] if symbols else coded
    need(direct is not None, "no contiguous table")
    named, slots = direct
    names = decode_block(cursor.take(cursor.varint()), [(count, slots)])
    escapes = cursor.varint()
    need(escapes <= count, f"{escapes} escapes")
    escaped = _decode_escaped(cursor.take(cursor.left()), escapes) if escapes else np.empty(0, np.uint8)
    cursor.end()
    places = names == len(named)
    need(int(places.sum()) == escapes, "another number of escapes")
    out = np.array([*named, 0], np.uint8)[names]
    out[places] = escaped
    return out


def decode(data: bytes, given: Table | None = None) -> np.ndarray:
    """The symbols of a rans8 stream, uint8. given: the caller's table, for streams that do not hold theirs."""
    cursor = Cursor(data)
    stream, version, flags, log_chunk = (cursor.number(1) for _ in range(4))
    need((stream, version) == (1, 1), f"stream {stream}, version {version}")
    need(flags < 8 and flags & 6 != 6 and 12 <= log_chunk <= 20, "flags or chunk")
    count, chunk = cursor.varint(), 1 << log_chunk
    chunks = -(-count // chunk)
    need(chunks <= cursor.left() // 2, "more symbols than the bytes can hold")
    alias, symbols, direct = None, [], None
    if flags & 2:
        if flags & 1:
            table = parse_table(cursor)
            need(table.precision == 16 and not table.escape and len(table.present()) >= 2, "not a contiguous table")
            slots = contiguous_slots(table.frequencies)
            direct = list(cursor.take(len(table.frequencies) - 1)), slots
        else:
            need(given is not None, "the caller's table is needed")
            named, frequencies = direct_alphabet(given)
            direct = named, contiguous_slots(frequencies)
    elif flags & 1 or (given is not None and len(given.present()) > 1):
        table = parse_table(cursor) if flags & 1 else given
        assert table is not None
        coding_table(table)
        if flags & 4:
            symbols = table.present()
            need(2 <= len(symbols) <= 32, "names for another number of symbols")
            table = Table([table.frequencies[symbol] for symbol in symbols], table.precision, False)
        alias = alias_slots(table)
    sizes = [cursor.varint() for _ in range(chunks)]
    need(sum(sizes) == cursor.left(), "chunks of another length")
    ends = [*range(0, count, chunk), count]
    parts = [
        _decode_chunk(cursor.take(size), end - begin, alias, symbols, direct)
        for size, (begin, end) in zip(sizes, pairwise(ends), strict=True)
    ]
    return np.concatenate([np.empty(0, np.uint8), *parts])
