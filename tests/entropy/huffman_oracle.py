"""Reads huffman streams, written from docs/formats/huffman.md alone. Enters every chunk at every piece, or at spans.

Varints are those of the page table, so of entropy's oracle.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by

MOST_LENGTH = 12
SPAN_PIECES = 32


RefusedError, need = entropy.RefusedError, entropy.need


class Cursor(entropy.Cursor):
    """Bytes from front to back, and half bytes."""

    def nibbles(self, count: int) -> list[int]:
        packed = self.take((count + 1) // 2)
        values = [nibble for byte in packed for nibble in (byte & 15, byte >> 4)]
        need(not any(values[count:]), "a half byte too many that is not 0")
        return values[:count]


def read_codes(cursor: Cursor) -> dict[tuple[int, ...], int]:
    """Bits of a code -> its symbol."""
    first, last = cursor.take(2)
    need(first < last, "first is not below last")
    lengths = cursor.nibbles(last - first + 1)
    need(all(length <= MOST_LENGTH for length in lengths), "a code of more than 12 bits")
    need(lengths[0] > 0 and lengths[-1] > 0, "first or last has no code")
    need(sum(1 << (MOST_LENGTH - length) for length in lengths if length) == 1 << MOST_LENGTH, "codes are not complete")
    codes, code = {}, 0
    for length in range(1, MOST_LENGTH + 1):
        for place, own in enumerate(lengths):
            if own == length:
                codes[tuple(code >> (length - 1 - i) & 1 for i in range(length))] = first + place
                code += 1
        code *= 2
    return codes


def read_coded(cursor: Cursor, symbols: int, codes: dict, log_piece: int, by_pieces: bool) -> list[int]:
    bits = cursor.varint()
    need(symbols <= bits <= MOST_LENGTH * symbols, f"{bits} bits for {symbols} symbols")
    pieces = -(-bits >> log_piece)
    spans = -(-pieces // SPAN_PIECES)
    starts = np.frombuffer(cursor.take(2 * spans), "<u2").tolist()
    gaps = cursor.nibbles(pieces)
    string = np.unpackbits(np.frombuffer(cursor.take((bits + 7) // 8), np.uint8), bitorder="little").tolist()
    cursor.end()
    need(not any(string[bits:]), "unused bits are not 0")
    need(sum(starts) == symbols, "starts do not add up to the symbols")
    need(gaps[0] == 0, "the first piece has a gap")
    entries = [(piece << log_piece) + gap for piece, gap in enumerate(gaps)]
    step = 1 if by_pieces else SPAN_PIECES
    need(all(entry <= bits for entry in entries[::step]), "a gap leads behind the string")
    out: list[int] = []
    for piece in range(0, pieces, step):
        at, stop = entries[piece], [*entries, *[bits] * step][piece + step]
        if piece % SPAN_PIECES == 0:
            need(len(out) == sum(starts[: piece // SPAN_PIECES]), "a span does not have its symbols")
        while at < stop:
            code: tuple[int, ...] = ()
            while code not in codes:
                need(at < bits, "a code goes on behind the string")
                code, at = (*code, string[at]), at + 1
            out.append(codes[code])
        need(at == stop, "codes do not end where the next begin")
    need(len(out) == symbols, f"{len(out)} symbols, {symbols} are needed")
    return out


def decode(data: bytes, *, by_pieces: bool = True) -> np.ndarray:
    cursor = Cursor(data)
    stream, version, log_chunk, log_piece = cursor.take(4)
    need(stream == 2 and version == 1, "another stream or version")
    need(12 <= log_chunk <= 20 and 8 <= log_piece <= 10, "chunks or pieces of a size that is not allowed")
    count = cursor.varint()
    chunks = -(-count >> log_chunk)
    need(chunks <= cursor.left() // 2, "more symbols than the bytes can hold")
    has_codes = cursor.take(1)[0]
    need(has_codes < 2, "codes is 0 or 1")
    codes = read_codes(cursor) if has_codes else None
    lengths = [cursor.varint() for _ in range(chunks)]
    need(sum(lengths) == cursor.left(), "lengths do not add up")
    out: list[int] = []
    for number, end in enumerate(accumulate(lengths)):
        symbols = min(1 << log_chunk, count - (number << log_chunk))
        chunk = Cursor(cursor.take(end - (sum(lengths[:number]))))
        kind = chunk.take(1)[0]
        if kind == 0:
            need(chunk.left() == symbols, "a raw chunk of another length")
            out += chunk.take(symbols)
        elif kind == 1:
            need(chunk.left() == 1, "a constant chunk of another length")
            out += chunk.take(1) * symbols
        else:
            need(kind == 2 and codes is not None, "another kind, or no codes for it")
            out += read_coded(chunk, symbols, codes, log_piece, by_pieces)
    return np.array(out, np.uint8)
