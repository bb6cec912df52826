"""Builds tables and reads indexed streams, written from docs/formats/table_set.md and docs/formats/indexed.md alone."""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass

ORACLE = sys.modules["tests_entropy_oracle"]  # tables and varints, which tests/entropy/conftest.py has loaded
RefusedError, need = ORACLE.RefusedError, ORACLE.need

ONE = 1 << 62
LN2, LOG2E = 3196577161300663914, 6653256548922161245


@dataclass
class Table:
    low: int
    frequencies: list[int]  # of 2^16, the escape's last

    @property
    def count(self) -> int:
        return len(self.frequencies) - 1

    @property
    def holes(self) -> bool:
        return 0 in self.frequencies

    @functools.cached_property
    def starts(self) -> list[int]:
        starts = [0]
        for f in self.frequencies:
            starts.append(starts[-1] + f)
        return starts


@dataclass
class TableSet:
    fraction_bits: int
    tables: list[Table]


# ---- tables from parameters -----------------------------------------------------------------------------------------


def mul(a: int, b: int) -> int:
    return a * b >> 62


@functools.cache
def steps() -> list[int]:
    ratio = 1 << 61
    for _ in range(7):
        ratio = math.isqrt(ratio << 62)
    found = [ONE]
    while len(found) < 128:
        found.append(mul(found[-1], ratio))
    return found


def exp2_minus(y: int) -> int:
    whole, fraction = y >> 56, y % (1 << 56)
    if whole >= 62:
        return 0
    x = mul(fraction % (1 << 49) << 6, LN2)
    series = ONE
    for k in range(7, 0, -1):
        series = ONE - mul(x, series) // k
    return mul(steps()[fraction >> 49], series) >> whole


def log2(u: int) -> int:
    k = u.bit_length() - 1
    mantissa = u >> (k - 63)
    result = (k - 72) << 48
    for bit in range(47, -1, -1):
        square = mantissa * mantissa
        if square >> 127:
            result |= 1 << bit
            mantissa = square >> 64
        else:
            mantissa = square >> 63
    return result


def density(family: str, freedom: int, z: int) -> int:
    if family == "gaussian":
        half = z * z >> 17
        return 0 if half >> 63 else exp2_minus(half * LOG2E >> 62)
    if family == "laplace":
        return exp2_minus(z * LOG2E >> 42)
    if family == "logistic":
        e = exp2_minus(z * LOG2E >> 42)
        q = (ONE << 62) // (ONE + e)
        return mul(ONE - q, q)
    u = (1 << 72) + (z * z << 8) // freedom
    return exp2_minus(log2(u) * (freedom + 256) >> 1)


@functools.cache
def pieces(family: str, freedom: int) -> list[tuple[int, int, int, int]]:
    last = 64 * (21 if family == "student_t" else 7)

    def octave(i: int) -> int:
        return 0 if i < 64 else i // 64 - 1

    def node(i: int) -> int:
        return (i if i < 64 else 64 + i % 64) << (30 + octave(i))

    heights = [density(family, freedom, node(i)) for i in range(last + 1)]
    tails = [0] * (last + 1)
    tails[last] = (heights[last] * 24 << 28) // freedom if family == "student_t" else 0
    for i in range(last - 1, -1, -1):
        part = (node(i + 1) - node(i)) // 8
        total = heights[i] + heights[i + 1]
        total += sum((4 if k % 2 else 2) * density(family, freedom, node(i) + k * part) for k in range(1, 8))
        tails[i] = tails[i + 1] + (total * 8 << octave(i)) // 512
    values = [(tail << 46) // tails[0] for tail in tails]
    found = []
    for i in range(last):
        left, right = (((h * 24 << octave(i)) // 64 << 46) // tails[0] for h in heights[i : i + 2])
        fall = values[i] - values[i + 1]
        found.append((values[i], left, 3 * fall - 2 * left - right, left + right - 2 * fall))
    return found


def tail(family: str, freedom: int, z: int) -> int:
    o = max(0, z.bit_length() - 25)
    piece, rest = z >> (18 + o), z % (1 << (18 + o))
    piece += 64 * o if piece >= 64 else 0
    if piece >= len(pieces(family, freedom)):
        return 0
    t = rest << (2 - o) if o < 2 else rest >> (o - 2)
    value, a, b, c = pieces(family, freedom)[piece]
    return max(0, value - (t * (a + (t * (b + (t * c >> 20)) >> 20)) >> 20))


def masses(family: str, components: list[tuple[int, int, int, int]], precision: int) -> tuple[int, list[int], int]:
    """components: weight, mean, scale, freedom. -> low, masses, outside."""
    weights = sum(component[0] for component in components)

    def upper(edge: int) -> int:
        found = []
        for weight, mean, scale, freedom in components:
            d = edge * 32768 - mean
            beyond = tail(family, freedom, (abs(d) << 24) // scale)
            found.append((weight, beyond if d >= 0 else (1 << 47) - beyond))
        return found[0][1] if len(found) == 1 else sum(w * u for w, u in found) // weights

    centers = [(mean + 32768) >> 16 for _, mean, _, _ in components]
    first, last, least = min(centers), max(centers), 1 << (46 - precision)
    inner = edge = upper(2 * first - 1)
    below: list[int] = []
    while len(below) < (65535 - (last - first + 1)) // 2:
        following = max(edge, upper(2 * (first - 1 - len(below)) - 1))
        if following - edge < least:
            break
        below.append(following - edge)
        edge = following
    outside, found = (1 << 47) - edge, below[::-1]
    edge, k = inner, first
    while len(found) < 65535:
        following = min(edge, upper(2 * k + 1))
        if k > last and edge - following < least:
            break
        found.append(edge - following)
        edge, k = following, k + 1
    return first - len(below), found, outside + edge


def rounded(low: int, given: list[int], outside: int, precision: int) -> Table:
    slots, whole = 1 << precision, sum(given) + outside

    chosen = [s for s, m in enumerate(given) if m and m * slots >= -(-whole // 4)]
    if len(chosen) + 1 > slots:
        chosen = sorted(chosen, key=lambda s: (-given[s], s))[: slots - 1]
    outside = whole - sum(given[s] for s in chosen)
    frequencies = [0] * len(given)
    for s in chosen:
        frequencies[s] = max(1, (given[s] * slots + whole // 2) // whole)
    frequencies.append(max(1, (outside * slots + whole // 2) // whole))
    lacking = slots - sum(frequencies)
    weights = [f if lacking > 0 else max(0, f - 1) for f in frequencies]
    total, before, d = sum(weights), 0, abs(lacking)
    if d:
        for s, weight in enumerate(weights):
            share = d * (before + weight) // total - d * before // total
            frequencies[s] += share if lacking > 0 else -share
            before += weight
    body, escape = frequencies[:-1], frequencies[-1]
    while body[-1] == 0:
        body.pop()
    first = next(s for s, f in enumerate(body) if f)
    return Table(low + first, [f << (16 - precision) for f in [*body[first:], escape]])


def build(
    family: str, rows: list[list[tuple[int, int, int, int]]], precision: int = 16, fraction_bits: int = 0
) -> TableSet:
    """rows: the components of each index."""
    tables = []
    for row in rows:
        for fraction in range(1 << fraction_bits):
            moved = [(w, mean + (fraction << (16 - fraction_bits)), scale, v) for w, mean, scale, v in row]
            tables.append(rounded(*masses(family, moved, precision), precision))
    return TableSet(fraction_bits, tables)


def parse_set(data: bytes) -> TableSet:
    cursor = ORACLE.Cursor(data)
    need(cursor.number(1) == 4 and cursor.number(1) == 1, "stream or version")
    precision, bits = cursor.number(1), cursor.number(1)
    need(12 <= precision <= 16 and bits <= 4, "precision or fraction bits")
    count = cursor.varint()
    need(count <= cursor.left() and 1 <= count <= 4096 << bits and count % (1 << bits) == 0, "tables")
    tables, symbols, slotless, buckets = [], 0, 0, 0
    for _ in range(count):
        code = cursor.varint()
        need(code < 1 << 32, "low")
        low = -(code // 2) - 1 if code % 2 else code // 2
        table = ORACLE.parse_table(cursor)
        f = table.frequencies
        need(table.escape and table.precision >= precision and len(f) > 1, "a table without an escape")
        need(f[0] > 0 and f[-2] > 0 and f[-1] > 0, "a table's ends")
        need(low + len(f) - 1 < 1 << 31, "a table ends above 2^31")
        symbols += len(f)
        slotless += f.count(0)
        slots = [x << (16 - table.precision) for x in f]
        enough = [b for b in range(4, 13) if sum(x for x in slots if x < 65536 >> b) <= 1024]
        buckets += 1 << min([*enough, 12])
        need(symbols <= 1 << 24 and slotless <= 1 << 20 and buckets <= 1 << 24, "too many symbols or buckets")
        tables.append(Table(low, slots))
    cursor.end()
    return TableSet(bits, tables)


# ---- streams --------------------------------------------------------------------------------------------------------


class Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.left, self.size = int.from_bytes(data, "little"), 8 * len(data), len(data)

    def take(self, count: int) -> int:
        need(count <= self.left, "escapes end too early")
        self.left -= count
        found = self.value % (1 << count)
        self.value >>= count
        return found

    def gamma(self, most: int) -> int:
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
            need(zeros <= most, "a gamma code that is too long")
        return (1 << zeros) + self.take(zeros)

    def end(self) -> None:
        need(self.left < 8 and self.value == 0, "escapes that nobody takes")


def escape(bits: Bits, table: Table) -> int:
    count = table.count
    if table.holes and bits.take(1):
        u = bits.take((count - 1).bit_length())
        need(u < count, "an escape beyond its table")
        return u
    below, k = bits.take(1), max(0, count.bit_length() - 4)
    g = bits.gamma(31)
    d = ((g - 1) << k) + bits.take(k)
    return (2**32 - 1 - d if below else d + count) % 2**32


def decode(data: bytes, indexes: list[int], tables: TableSet, means: list[int] | None = None) -> list[int]:
    cursor = ORACLE.Cursor(data)
    need(cursor.number(1) == 3 and cursor.number(1) == 1, "stream or version")
    layout = cursor.number(1)
    need(layout < 32 and layout % 8 <= 5, "layout")
    lanes, symbols = 1 << layout % 8, cursor.varint()
    need(symbols <= 1 << 48, "too many symbols")
    need(symbols > 0 or layout == 0, "a layout without a symbol")
    chunk, lengths = symbols, [cursor.left()] if symbols else []
    if layout & 8:
        log_chunk = cursor.number(1)
        need(12 <= log_chunk <= 22, "chunk")
        chunk = 1 << log_chunk
        chunks = -(-symbols // chunk)
        need(chunks >= 2 and 6 * chunks <= cursor.left(), "chunks")
        lengths = [cursor.varint() for _ in range(chunks)]
    need(sum(lengths) == cursor.left(), "lengths")
    assert symbols == len(indexes), "the caller gives as many indexes as the stream has symbols"
    found: list[int] = []
    for length in lengths:
        end = min(symbols, len(found) + chunk)
        found += read_chunk(cursor.take(length), lanes, layout & 16 > 0, indexes, tables, means, len(found), end)
    return found


def read_chunk(data, lanes, has_escapes, indexes, tables, means, begin, end) -> list[int]:
    cursor = ORACLE.Cursor(data)
    escape_bytes = cursor.varint() if has_escapes else 0
    lengths = Bits(cursor.take((3 * lanes + 7) // 8))
    sizes = [4 + lengths.take(3) for _ in range(lanes)]
    need(lengths.value == 0 and max(sizes) <= 8, "lengths of states")
    states = [cursor.number(size) for size in sizes]
    for state, size in zip(states, sizes, strict=True):
        need(1 << 31 <= state < 1 << 63 and state >> (8 * size - 8) > 0, "a state")
    need(escape_bytes <= cursor.left() and (cursor.left() - escape_bytes) % 4 == 0, "words")
    words = ORACLE.Cursor(cursor.take(cursor.left() - escape_bytes))
    bits = Bits(cursor.take(escape_bytes))
    found = []
    for n in range(end - begin):
        mean = means[begin + n] if means is not None else 0
        b = tables.fraction_bits
        table = tables.tables[(indexes[begin + n] << b) + mean % (1 << b)]
        x = states[n % lanes]
        slot = x % 65536
        symbol = next(s for s in range(table.count + 1) if table.starts[s] <= slot < table.starts[s + 1])
        x = table.frequencies[symbol] * (x >> 16) + slot - table.starts[symbol]
        states[n % lanes] = (x << 32) + words.number(4) if x < 1 << 31 else x
        u = escape(bits, table) if symbol == table.count else symbol
        value = (u + table.low + (mean >> b)) % 2**32
        found.append(value - 2**32 if value >> 31 else value)
    need(words.left() == 0 and all(state == 1 << 31 for state in states), "a chunk's end")
    bits.end()
    return found
