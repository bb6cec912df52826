"""Decodes lossless chunks, written from docs/formats/lossless.md alone; tables and blocks by entropy's oracle."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

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
        need(len(table.frequencies) <= 256, "frequencies")
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


def zigzag(cursor: Cursor, bits: int) -> int:
    coded = cursor.varint()
    need(coded < 1 << bits, f"a zigzag of {coded}")
    return coded >> 1 ^ -(coded & 1)


def bin_widths(cursor: Cursor, bins: int, bits: int) -> list[int]:
    widths: list[int] = []
    while len(widths) < bins:
        coded = cursor.number(1)
        widths += [coded % 128] * (cursor.number(1) + 2 if coded >= 128 else 1)
        need(coded % 128 <= bits, f"a bin of {coded % 128} bits")
    need(len(widths) == bins, "more widths than bins")
    return widths


def summed(values: np.ndarray, stride: int) -> np.ndarray:
    padded = np.zeros(-(-len(values) // stride) * stride, values.dtype)
    padded[: len(values)] = values
    return np.cumsum(padded.reshape(-1, stride), axis=0, dtype=values.dtype).reshape(-1)[: len(values)]


def series(cursor: Cursor, count: int, width: int) -> np.ndarray:
    """[count] unsigned integers of `width` bytes."""
    bits, dtype = 8 * width, np.dtype(f"<u{width}")
    stride_count = cursor.number(1)
    need(stride_count <= 2, f"{stride_count} strides")
    strides = [cursor.varint() for _ in range(stride_count)]
    need(all(1 <= stride <= 1 << 20 for stride in strides), f"strides {strides}")
    start, divisor, bins = zigzag(cursor, bits), cursor.varint(), 0
    need(1 <= divisor < 1 << bits, f"divisor {divisor}")
    bins = cursor.varint()
    need(1 <= bins <= 256, f"{bins} bins")
    first = zigzag(cursor, bits)
    widths = bin_widths(cursor, bins, bits)
    beginnings = [(first + sum(1 << w for w in widths[:i])) % (1 << bits) for i in range(bins)]
    names = plane(cursor, count, 32 if bins <= 32 else 256) if bins > 1 else np.zeros(count, np.uint8)
    need(int(names.max()) < bins, "a name of no bin")
    place_bits = np.array(widths)[names]
    size = cursor.varint()
    stream = np.unpackbits(np.frombuffer(cursor.take(size), np.uint8), bitorder="little")
    ends = np.cumsum(place_bits)
    need((int(ends[-1]) + 7) // 8 == size, f"{size} bytes of places")
    places = np.zeros(count, np.uint64)
    for bit in range(max(widths)):
        have = np.flatnonzero(place_bits > bit)
        places[have] |= stream[(ends - place_bits)[have] + bit].astype(np.uint64) << np.uint64(bit)
    values = np.array(beginnings, np.uint64)[names] + places
    values = (values * np.uint64(divisor)).astype(dtype)
    offset = np.array(start % (1 << bits), np.uint64).astype(dtype)
    if not strides:
        return values + offset
    if len(strides) == 2:
        values = summed(values, strides[1])
    values[: strides[0]] += offset
    return summed(values, strides[0])


def in_order(cursor: Cursor, width: int) -> Callable[[np.ndarray], np.ndarray]:
    order = cursor.number(1)
    need(order <= 1, f"order {order}")
    sign = np.array(1 << (8 * width - 1), np.uint64).astype(f"<u{width}")
    return lambda numbers: np.where(numbers > sign, sign - numbers, numbers) if order else numbers


def part(cursor: Cursor, raw_bytes: int, depth: int) -> bytes:
    need(depth > 0, "parts nested too deep")
    return decode_chunk(cursor.take(cursor.varint()), raw_bytes, depth - 1)


def product(multiple: int, mantissa: int, exponent: int, bits: int) -> int:
    """The product of a multiple and a step as a number in the order of floats, before the modulus."""
    exact, length = abs(multiple) * mantissa, (abs(multiple) * mantissa).bit_length()
    if multiple == 0:
        return 0
    rounded = round(Fraction(exact << bits, 1 << length))  # halves to even
    order = ((exponent + length) << (bits - 1)) + rounded
    return -order if multiple < 0 else order


def scaled(cursor: Cursor, width: int, count: int, depth: int) -> bytes:
    mantissa, exponent, bits = cursor.number(8), cursor.number(2), 53 if width == 8 else 24
    need(mantissa >= 1 << 63, "the step's highest bit")
    multiples = np.frombuffer(part(cursor, width * count, depth), f"<i{width}").tolist()
    corrections = np.frombuffer(part(cursor, width * count, depth), f"<i{width}").tolist()
    modulus, sign = 1 << (8 * width), 1 << (8 * width - 1)
    floats = []
    for multiple, correction in zip(multiples, corrections, strict=True):
        order = (product(multiple, mantissa, exponent, bits) + correction) % modulus
        floats.append(sign - order + modulus if order > sign else order)
    return np.array(floats, np.uint64).astype(f"<u{width}").tobytes()


def numbers(cursor: Cursor, method: int, raw_bytes: int, depth: int) -> bytes:
    width = cursor.number(1)
    if method == 7:
        need(width in (1, 2, 4) and raw_bytes % (8 // width) == 0, f"packed to {width} bits")
        packed = plane(cursor, raw_bytes * width // 8, 256)
        return (packed[:, None] >> np.arange(0, 8, width, dtype=np.uint8) & ((1 << width) - 1)).astype("u1").tobytes()
    need(width in (1, 2, 4, 8) and raw_bytes % width == 0, f"width {width}")
    count, dtype = raw_bytes // width, np.dtype(f"<u{width}")
    if method == 5:
        order = in_order(cursor, width)
        return order(series(cursor, count, width)).astype(dtype).tobytes()
    if method == 6:
        order, distinct = in_order(cursor, width), cursor.varint()
        need(1 <= distinct <= min(count, 65536), f"{distinct} values")
        values, ranks = order(series(cursor, distinct, width)), series(cursor, count, 2)
        need(int(ranks.max()) < distinct, "a rank of no value")
        return values[ranks].astype(dtype).tobytes()
    if method == 8:
        flags = np.unpackbits(plane(cursor, -(-count // 8), 256), bitorder="little").astype(bool)
        need(bool(flags[:count].any()) and not flags[count:].any(), "the map")
        values = np.zeros(count, dtype)
        values[flags[:count]] = np.frombuffer(part(cursor, width * int(flags.sum()), depth), dtype)
        return values.tobytes()
    if method == 9:
        runs = cursor.varint()
        need(1 <= runs <= count, f"{runs} runs")
        heads = np.frombuffer(part(cursor, runs * width, depth), dtype)
        lengths = series(cursor, runs, 4).astype(np.int64) + 1
        need(int(lengths.sum()) == count, "lengths of runs")
        return np.repeat(heads, lengths).tobytes()
    if method == 11:
        need(width >= 4, "scaled words")
        return scaled(cursor, width, count, depth)
    values = np.zeros(count, dtype)
    for byte in range(width):
        values |= plane(cursor, count, 256).astype(dtype) << dtype.type(8 * byte)
    return values.tobytes()


def records(cursor: Cursor, raw_bytes: int, depth: int) -> bytes:
    fields = [cursor.varint() for _ in range(cursor.number(1))]
    width = sum(fields)
    need(1 <= len(fields) <= 32 and min(fields) >= 1 and width <= 4096, f"fields {fields}")
    head = cursor.varint()
    need(head < width and raw_bytes >= head + width, f"{head} bytes before records of {width} in {raw_bytes}")
    count, left = divmod(raw_bytes - head, width)
    front, back = cursor.take(head), cursor.take(left)
    columns = [np.frombuffer(part(cursor, count * size, depth), np.uint8).reshape(count, size) for size in fields]
    return front + np.hstack(columns).tobytes() + back


def decode_chunk(data: bytes, raw_bytes: int, depth: int = 3) -> bytes:
    """The raw bytes of a chunk that may hold parts down to a depth. Raises RefusedError."""
    cursor = Cursor(data)
    method = cursor.number(1)
    need(method <= 12, f"method {method}")
    if method == 0:
        raw = cursor.take(cursor.left())
        need(len(raw) == raw_bytes, f"{len(raw)} stored bytes")
        return raw
    need(1 <= raw_bytes <= 1 << 20, f"{raw_bytes} raw bytes")
    if method == 1:
        width = cursor.number(1)
        need(width in (1, 2, 4, 8) and raw_bytes % width == 0, f"width {width}")
        raw = cursor.take(width) * (raw_bytes // width)
    elif method == 2:
        raw = plane(cursor, raw_bytes, 256).tobytes()
    elif method == 3:
        need(raw_bytes % 2 == 0, "odd")
        raw = words(cursor, raw_bytes // 2).tobytes()
    elif method == 12:
        raw = records(cursor, raw_bytes, depth)
    elif method >= 5:
        raw = numbers(cursor, method, raw_bytes, depth)
    else:
        need(raw_bytes % 4 == 0, "no multiple of 4")
        count = raw_bytes // 4
        upper = words(cursor, count).astype("<u4")
        byte1 = plane(cursor, count, 256).astype("<u4")
        byte0 = plane(cursor, count, 256).astype("<u4")
        raw = (upper << 16 | byte1 << 8 | byte0).astype("<u4").tobytes()
    cursor.end()
    return raw
