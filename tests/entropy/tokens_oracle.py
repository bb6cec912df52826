"""Reads tokens streams and models, written from docs/formats/tokens.md alone. Python's integers are the coder's state.

Varints are those of the page table, so of entropy's oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by
import xxhash

SLOTS = 1 << 16
REPEAT = (1, 2, 4, 9, 18, 35, 63, 105, 151, 193, 221, 238, 247, 252, 254, 255)
WEIGHTS = [0, 1] + [2 ** (level // 2) if level % 2 == 0 else 3 * 2 ** ((level - 3) // 2) for level in range(2, 32)]

RefusedError, need, Cursor = entropy.RefusedError, entropy.need, entropy.Cursor


def crc32c(data: bytes) -> int:
    """Bit by bit: x^32 + 0x1EDC6F41, reflected."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class Code:
    def __init__(self, string: bytes) -> None:
        self.string, self.at, self.state = string, 0, 0
        self.fill()

    def fill(self) -> None:
        while self.state < 1 << 56 and self.at < len(self.string):
            self.state = self.state * 256 + self.string[self.at]
            self.at += 1

    def take(self, bits: int, lengths: list[int]) -> int:
        slot = self.state % (1 << bits)
        symbol = start = 0
        while slot >= start + lengths[symbol]:
            start, symbol = start + lengths[symbol], symbol + 1
        self.state = lengths[symbol] * (self.state >> bits) + slot - start
        self.fill()
        return symbol

    def bits(self, bits: int) -> int:
        return self.take(bits, [1] * (1 << bits))

    def end(self) -> None:
        need(self.state == 0 and self.at == len(self.string), "the code does not end where its symbols do")


def lengths_of(levels: list[int]) -> list[int]:
    weights = [WEIGHTS[level] for level in levels]
    total, present = sum(weights), sum(weight > 0 for weight in weights)
    need(total > 0, "a table without a weight")
    lengths = [1 + weight * (SLOTS - present) // total if weight else 0 for weight in weights]
    lengths[weights.index(max(weights))] += SLOTS - sum(lengths)
    return lengths


@dataclass
class Book:
    size: int
    source: int = 0
    tables: int = 1
    repeat: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)

    @property
    def low(self) -> int:
        return max(0, (self.size - 1).bit_length() - 12)

    @property
    def symbols(self) -> int:
        return ((self.size - 1) >> self.low) + 1


def nibbles(data: bytes) -> list[int]:
    return [nibble for byte in data for nibble in (byte & 15, byte >> 4)]


@dataclass
class Model:
    chunk_frames: int
    books: list[Book]
    id: bytes

    def take_frames(self, code: Code, frames: int) -> list[list[int]]:
        rows: list[list[int]] = []
        flags_before = [0] * len(self.books)
        for _ in range(frames):
            row: list[int] = []
            flags = [1, 1]
            for b, book in enumerate(self.books):
                flag = 0
                if rows:
                    yes = REPEAT[book.repeat[4 * flags_before[b] + 2 * flags[-2] + flags[-1]]]
                    flag = code.take(8, [256 - yes, yes])
                flags.append(flag)
                row.append(rows[-1][b] if flag else self.take_token(code, b, row, rows))
            flags_before = flags[2:] if rows else flags_before
            rows.append(row)
        code.end()
        return rows

    def take_token(self, code: Code, b: int, row: list[int], rows: list[list[int]]) -> int:
        book, table = self.books[b], 0
        if book.source == 2 and rows:
            table = book.classes[rows[-1][b] >> book.low]
        if book.source == 3:
            table = book.classes[row[b - 1] >> self.books[b - 1].low]
        token = code.take(16, book.lengths[table]) << book.low
        token |= code.bits(book.low)
        need(token < book.size, "a token outside its book")
        return token

    def decode_chunk(self, data: bytes, number: int, frames: int | None = None) -> list[list[int]]:
        need(len(data) > 4, "a chunk without a checksum")
        crc = crc32c(number.to_bytes(8, "little") + data[:-4])
        need(crc == int.from_bytes(data[-4:], "little"), "the chunk's CRC")
        cursor = Cursor(data[:-4])
        told = cursor.varint()
        need(1 <= told <= self.chunk_frames and frames in (None, told), "the chunk's frames")
        need(told * len(self.books) <= 2048 * len(data), "more frames than the bytes can stand for")
        return self.take_frames(Code(cursor.take(cursor.left())), told)


def read_model(data: bytes) -> Model:
    cursor = Cursor(data)
    chunk_frames = cursor.varint()
    need(1 <= chunk_frames <= 65535, "frames a chunk")
    count = cursor.number(1)
    need(1 <= count <= 64, "books")
    books: list[Book] = []
    while len(books) < count:
        size, run = cursor.varint() + 1, cursor.number(1)
        need(2 <= size <= 65536 and 1 <= run <= count - len(books), "sizes")
        books += [Book(size) for _ in range(run)]
    for b, book in enumerate(books):
        shape = cursor.number(1)
        book.source, book.tables = shape % 4, shape // 4 + 1
        need(book.tables <= (16 if book.source >= 2 else 1), "tables")
        need(book.source != 3 or b > 0, "no book before the first")
        book.repeat = nibbles(cursor.take(4))
    weights = sum(book.symbols * book.tables for book in books if book.source)
    need(weights <= 1 << 20, "weights")
    count = cursor.number(1)
    need(count <= 32 and (count > 0) == (weights > 0), "levels")
    levels = nibbles(cursor.take((count + 1) // 2))
    need(not any(levels[count:]), "a half byte too many that is not 0")
    need(count == 0 or levels[count - 1] > 0, "the last level has no weight")
    level_lengths = lengths_of(levels[:count]) if count else []
    code = Code(cursor.take(cursor.left()))
    for b, book in enumerate(books):
        if book.source == 0:
            book.lengths = [lengths_of([1] * book.symbols)]
            continue
        if book.source >= 2:
            book.classes = [code.bits(4) for _ in range(books[b - (book.source == 3)].symbols)]
            need(max(book.classes) < book.tables, "a class without a table")
        book.lengths = [
            lengths_of([code.take(16, level_lengths) for _ in range(book.symbols)]) for _ in range(book.tables)
        ]
    code.end()
    return Model(chunk_frames, books, xxhash.xxh3_128_digest(data)[:8])


def unpack(data: bytes) -> Model:
    need(len(data) >= 7 and data[:3] == b"\x0a\1\2", "no model alone")
    need(crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), "the model's CRC")
    return read_model(data[3:-4])


def decode(data: bytes, packed: bytes | None = None) -> np.ndarray:
    """packed: the model alone, where the stream has none inside."""
    cursor = Cursor(data)
    stream, version, kind = cursor.take(3)
    need(stream == 10 and version == 1 and kind < 2, "another stream, version or kind")
    if kind == 0:
        inside = cursor.take(cursor.varint())
        chunk_frames = Cursor(inside).varint()
        need(chunk_frames > 0, "frames a chunk")
    else:
        own = cursor.take(8)
        assert packed is not None
        model = unpack(packed)
        assert own == model.id
        chunk_frames = model.chunk_frames
    frames = cursor.varint()
    chunks = -(-frames // chunk_frames)
    need(chunks <= cursor.left(), "more frames than the bytes can hold")
    lengths = [cursor.varint() for _ in range(chunks)]
    crc = crc32c(data[: cursor.at])
    need(cursor.number(4) == crc, "the head's CRC")
    need(sum(lengths) == cursor.left(), "lengths do not add up")
    if kind == 0:
        model = read_model(inside)
    rows: list[list[int]] = []
    for number, length in enumerate(lengths):
        rows += model.decode_chunk(cursor.take(length), number, min(chunk_frames, frames - number * chunk_frames))
    return np.array(rows, np.uint16).reshape(frames, len(model.books))
