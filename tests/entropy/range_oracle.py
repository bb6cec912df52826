"""Reads and writes range streams, written from docs/formats/range.md alone: bin by bin, with integers of any size."""

from __future__ import annotations

import tests_entropy_oracle as entropy  # tests/entropy/oracle.py, under the name that tests/conftest.py loads it by

WHOLE = 1 << 64
RefusedError, need = entropy.RefusedError, entropy.need


class Contexts:
    def __init__(self, contexts: int, rates: tuple[int, int] = (4, 7), start: list[int] | None = None) -> None:
        self.rates = rates
        self.estimates = [[begin, begin] for begin in start or [32768] * contexts]

    def bound(self, width: int, context: int) -> int:
        quick, slow = self.estimates[context]
        return (width // 65536) * ((quick + slow) // 2)

    def follow(self, context: int, one: int) -> None:
        for i, rate in enumerate(self.rates):
            self.estimates[context][i] += (one * 65536 - self.estimates[context][i] + 2 ** (rate - 1)) // 2**rate
            assert 1 <= self.estimates[context][i] <= 65535


def prefix_contexts(count: int, first: int, span: int) -> list[int]:
    return [first + min(n, span - 1) for n in range(count)]


class Decoder:
    def __init__(self, data: bytes, contexts: int, **model) -> None:
        need(data[:2] == b"\5\1", "another stream or version")
        self.data, self.at, self.model = data[2:], 0, Contexts(contexts, **model)
        self.range = WHOLE - 1
        self.value = self.next4() << 32
        self.value += self.next4()
        need(self.value < self.range, "a fraction of 1")

    def next4(self) -> int:
        self.at += 4
        return int.from_bytes(self.data[self.at - 4 : self.at].ljust(4, b"\0"), "big")

    def normalize(self) -> None:
        if self.range < 1 << 32:
            self.range <<= 32
            self.value = (self.value << 32) + self.next4()
        assert self.value < self.range
        assert 1 << 32 <= self.range < WHOLE
        need(self.at <= len(self.data) + 8, "ends too early")

    def bin(self, context: int) -> int:
        bound = self.model.bound(self.range, context)
        one = int(self.value < bound)
        self.value -= 0 if one else bound
        self.range = bound if one else self.range - bound
        self.model.follow(context, one)
        self.normalize()
        return one

    def bits(self, width: int) -> int:
        self.range >>= width
        found = self.value // self.range
        need(found < 1 << width, "a value behind the last")
        self.value -= found * self.range
        self.normalize()
        return found

    def number(self, first: int, span: int, order: int, signed: bool) -> int:
        n = 0
        while n < 32 - order and self.bin(first + min(n, span - 1)):
            n += 1
        number = (1 << (n + order)) - (1 << order) + (self.bits(n + order) if n + order else 0)
        need(number < 1 << 32, "a number of over 32 bits")
        if not signed:
            return number
        return number // 2 if number % 2 == 0 else -(number + 1) // 2

    def finish(self) -> None:
        need(self.at - len(self.data) >= 4, "bytes are left")


class Encoder:
    """low is never cut: a carry needs no care."""

    def __init__(self, contexts: int, **model) -> None:
        self.model, self.low, self.range, self.words = Contexts(contexts, **model), 0, WHOLE - 1, 0

    def normalize(self) -> None:
        if self.range < 1 << 32:
            self.low, self.range, self.words = self.low << 32, self.range << 32, self.words + 1

    def bin(self, one: int, context: int) -> None:
        bound = self.model.bound(self.range, context)
        self.low += 0 if one else bound
        self.range = bound if one else self.range - bound
        self.model.follow(context, one)
        self.normalize()

    def bits(self, value: int, width: int) -> None:
        self.range >>= width
        self.low += value * self.range
        self.normalize()

    def number(self, number: int, first: int, span: int, order: int, signed: bool) -> None:
        if signed:
            number = 2 * number if number >= 0 else -2 * number - 1
        n = (number + (1 << order)).bit_length() - 1 - order
        for k, context in enumerate(prefix_contexts(min(n + 1, 32 - order), first, span)):
            self.bin(int(k < n), context)
        if n + order:
            self.bits(number + (1 << order) - (1 << (n + order)), n + order)

    def finish(self) -> bytes:
        total = 8 + 4 * self.words
        for kept in range(4 * self.words, total + 1):
            cut = 8 * (total - kept)
            fraction = -(-self.low >> cut)
            if fraction << cut < self.low + self.range:
                return b"\5\1" + fraction.to_bytes(kept, "big")
        raise AssertionError
