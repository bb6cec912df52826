"""Writes huffman streams from docs/formats/huffman.md, with freedoms that our encoder does not take.

The goldens named v1_hand_* were written by it. Bit by bit, so for short input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests_entropy_by_hand import varint  # tests/entropy/by_hand.py, loaded before

SPAN_PIECES = 32


def nibbles(values: Sequence[int]) -> bytes:
    padded = [*values, 0]
    return bytes(padded[i] | padded[i + 1] << 4 for i in range(0, len(values), 2))


def code_lengths(lengths: Mapping[int, int]) -> bytes:
    """lengths: of the symbols that have a code."""
    first, last = min(lengths), max(lengths)
    return bytes([first, last]) + nibbles([lengths.get(symbol, 0) for symbol in range(first, last + 1)])


def codes_of(lengths: Mapping[int, int]) -> dict[int, str]:
    codes, code, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - before
        codes[symbol], before = f"{code:0{length}b}", length
        code += 1
    return codes


def coded(symbols: Sequence[int], lengths: Mapping[int, int], log_piece: int) -> bytes:
    codes = codes_of(lengths)
    string, begins = "", []
    for symbol in symbols:
        begins.append(len(string))
        string += codes[symbol]
    piece = 1 << log_piece
    pieces = -(-len(string) // piece)
    first_behind = [next((b for b in begins if b >= p * piece), len(string)) for p in range(pieces)]
    starts = [sum(b // (SPAN_PIECES * piece) == span for b in begins) for span in range(-(-pieces // SPAN_PIECES))]
    out = b"\2" + varint(len(string)) + b"".join(count.to_bytes(2, "little") for count in starts)
    out += nibbles([begin - p * piece for p, begin in enumerate(first_behind)])
    return out + int(string[::-1], 2).to_bytes((len(string) + 7) // 8, "little")


def stream(count: int, lengths: Mapping[int, int] | None, chunks: Sequence[bytes], log_chunk=20, log_piece=10) -> bytes:
    out = bytes([2, 1, log_chunk, log_piece]) + varint(count)
    out += b"\0" if lengths is None else b"\1" + code_lengths(lengths)
    return out + b"".join(varint(len(chunk)) for chunk in chunks) + b"".join(chunks)
