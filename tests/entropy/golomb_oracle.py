"""Reads golomb and gap streams and packed bits, written from docs/formats/golomb.md and bitpack.md alone.

Varints are those of the page table, so of entropy's oracle.
"""

from __future__ import annotations

import numpy as np
import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by

RefusedError, need, Cursor = entropy.RefusedError, entropy.need, entropy.Cursor
MOST_UNARY = 16


def bits_of(string: bytes) -> list[int]:
    return np.unpackbits(np.frombuffer(string, np.uint8), bitorder="little").tolist()


def take_string(cursor: Cursor, bits: int) -> list[int]:
    string = bits_of(cursor.take(-(-bits // 8)))
    need(not any(string[bits:]), "bits behind the last")
    return string[:bits]


def number(bits: list[int]) -> int:
    return sum(bit << place for place, bit in enumerate(bits))


def read_chunk(cursor: Cursor, n: int) -> list[int]:
    divisor = cursor.varint()
    need(divisor <= 1 << 56, "a divisor above 2^56")
    if divisor == 0:
        need(cursor.left() == 8 * n, "values as they are, of another length")
        return [cursor.number(8) for _ in range(n)]
    width = divisor.bit_length() - 1
    excess = divisor - (1 << width)
    unary_bits, extra_bits = cursor.varint(), cursor.varint()
    need(n <= unary_bits <= (MOST_UNARY + 1) * n, "bits of quotients out of range")
    need(extra_bits <= (n if excess else 0), "extras out of range")
    unary, remainders = take_string(cursor, unary_bits), take_string(cursor, n * width)
    extras = take_string(cursor, extra_bits)
    need(sum(unary) == n and unary[-1] == 1, "the quotients are not n")
    quotients, zeros = [], 0
    for bit in unary:
        if bit:
            quotients.append(zeros)
        zeros = 0 if bit else zeros + 1
    values, used = [], 0
    for i, quotient in enumerate(quotients):
        need(quotient <= MOST_UNARY, "a quotient of too many zeros")
        rest = number(remainders[i * width : (i + 1) * width])
        if rest >= (1 << width) - excess:
            need(used < extra_bits, "an extra is missing")
            rest, used = rest + extras[used] * excess, used + 1
        more = cursor.varint() if quotient == MOST_UNARY else 0
        values.append(divisor * (quotient + more) + rest)
        need(values[-1] < 1 << 64, "a value of over 64 bits")
    need(used == extra_bits, "an extra of no value")
    cursor.end()
    return values


def read_chunks(cursor: Cursor, count: int, log_chunk: int) -> list[list[int]]:
    chunks = -(-count >> log_chunk)
    lengths = [cursor.varint() for _ in range(chunks)]
    need(sum(lengths) == cursor.left(), "lengths do not add up")
    return [
        read_chunk(Cursor(cursor.take(length)), min(1 << log_chunk, count - (i << log_chunk)))
        for i, length in enumerate(lengths)
    ]


def decode(data: bytes) -> list[int]:
    """The values of a golomb stream."""
    cursor = Cursor(data)
    stream, version, log_chunk, signed = cursor.take(4)
    need(stream == 7 and version == 1, "another stream or version")
    need(10 <= log_chunk <= 20 and signed < 2, "chunks of a size that is not allowed, or signed is neither 0 nor 1")
    count = cursor.varint()
    need(-(-count // 8) <= cursor.left(), "more values than the bytes can hold")
    values = [value for chunk in read_chunks(cursor, count, log_chunk) for value in chunk]
    return [-(value + 1) // 2 if value % 2 else value // 2 for value in values] if signed else values


def positions(data: bytes) -> list[int]:
    """The positions of a gap stream."""
    cursor = Cursor(data)
    stream, version, log_chunk, kind = cursor.take(4)
    need(stream == 8 and version == 1, "another stream or version")
    need(10 <= log_chunk <= 20 and kind < 3, "chunks of a size that is not allowed, or another kind")
    size, count = cursor.varint(), cursor.varint()
    need(count <= size <= 1 << 63, "more positions than places, or too many places")
    need(count <= len(data) << 16, "more positions than are allowed for the bytes")
    if kind == 2:
        need(cursor.left() == -(-size // 8), "a bitmap of another length")
        bitmap = take_string(cursor, size)
        need(sum(bitmap) == count, "a bitmap of more or fewer positions")
        return [place for place, bit in enumerate(bitmap) if bit]
    coded = count if kind == 0 else size - count
    need(-(-coded // 8) <= cursor.left(), "more indexes than the bytes can hold")
    advances = [cursor.varint() for _ in range(-(-coded >> log_chunk))]
    need(sum(advances) <= size, "an index beyond the size")
    indexes, last, end = [], -1, -1
    for gaps, advance in zip(read_chunks(cursor, coded, log_chunk), advances, strict=True):
        for gap in gaps:
            last += gap + 1
            indexes.append(last)
        end += advance
        need(last == end, "a chunk does not end where it should")
    if kind == 0:
        return indexes
    others = set(indexes)
    return [place for place in range(size) if place not in others]


def unpack(data: bytes, bits: int, count: int) -> list[int]:
    """Packed bits."""
    need(len(data) == -(-count * bits // 8), "bytes of another number")
    string = bits_of(data)
    return [number(string[i * bits : (i + 1) * bits]) for i in range(count)]
