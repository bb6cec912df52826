"""Writes golomb and gap streams from docs/formats/golomb.md, with freedoms that our encoder does not take.

The goldens named v1_hand_* were written by it. Bit by bit, so for short input.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests_entropy_by_hand import varint  # tests/entropy/by_hand.py, loaded before


def string(bits: str) -> bytes:
    return int("0" + bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def low_first(value: int, bits: int) -> str:
    return f"{value:0{bits}b}"[::-1] if bits else ""


def chunk(values: Sequence[int], divisor: int) -> bytes:
    if divisor == 0:
        return b"\0" + b"".join(value.to_bytes(8, "little") for value in values)
    width = divisor.bit_length() - 1
    excess = divisor - (1 << width)
    unary = remainders = extras = ""
    beyond = b""
    for value in values:
        quotient, rest = divmod(value, divisor)
        unary += "0" * min(quotient, 16) + "1"
        if quotient >= 16:
            beyond += varint(quotient - 16)
        if rest >= (1 << width) - excess:
            extras += "01"[rest >> width]
            rest -= (rest >> width) * excess
        remainders += low_first(rest, width)
    head = varint(divisor) + varint(len(unary)) + varint(len(extras))
    return head + string(unary) + string(remainders) + string(extras) + beyond


def joined(chunks: Sequence[bytes]) -> bytes:
    return b"".join(varint(len(chunk)) for chunk in chunks) + b"".join(chunks)


def golomb(count: int, chunks: Sequence[bytes], log_chunk=15, signed=0) -> bytes:
    return bytes([7, 1, log_chunk, signed]) + varint(count) + joined(chunks)


def gap(size: int, count: int, advances: Sequence[int], chunks: Sequence[bytes], log_chunk=15, kind=0) -> bytes:
    head = bytes([8, 1, log_chunk, kind]) + varint(size) + varint(count)
    return head + b"".join(varint(advance) for advance in advances) + joined(chunks)
