"""huffman streams against the reader written from the page; streams that our encoder never writes; sizes; goldens.

Goldens are written once and never again. golden.json tells of each: the SHA-256 of its symbols. v1_hand_* come from
huffman_by_hand.py, the others from the encoder of version 0.1.0.
"""

import hashlib
import heapq
import json
import pathlib

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import huffman

GOLDEN = pathlib.Path(__file__).parent / "huffman" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
KINDS = ["geometric", "gaussian", "two", "rare", "uniform", "steep"]


@pytest.fixture(scope="session")
def oracle(load):
    """The reader of huffman streams in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/huffman_oracle.py")


@pytest.fixture(scope="session")
def by_hand(load):
    """The writer of streams that our encoder never emits."""
    load("tests/entropy/by_hand.py")  # which it imports
    return load("tests/entropy/huffman_by_hand.py")


def symbols_of(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    made = {
        "geometric": lambda: np.minimum(rng.geometric(0.385, count) + 99, 131),
        "gaussian": lambda: np.clip(rng.normal(128, 44, count), 0, 255),
        "two": lambda: np.where(rng.random(count) < 0.3, 255, 0),
        "rare": lambda: np.where(rng.random(count) < 0.001, rng.integers(0, 256, count), 7),
        "uniform": lambda: rng.integers(0, 256, count),
        "steep": lambda: np.minimum(rng.geometric(0.62, count), 30),
    }[kind]
    return made().astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 17, 511, 4096, 40_000])
def test_the_oracle_reads_what_we_write(oracle, kind, count):
    symbols = symbols_of(kind, count)
    data = huffman.encode(symbols)
    np.testing.assert_array_equal(oracle.decode(data), symbols)
    np.testing.assert_array_equal(huffman.decode(data), symbols)


def huffman_bits(counts):
    """The cost of Huffman's own code, without a limit, in bits: every join costs what it joins."""
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


@pytest.mark.parametrize("kind", ["geometric", "gaussian", "steep"])
def test_size_is_that_of_the_best_code_and_of_what_lets_threads_in(kind):
    symbols = symbols_of(kind, 1 << 20)
    least = huffman_bits(np.bincount(symbols)) / 8
    size = len(huffman.encode(symbols))
    assert least <= size <= least * 1.0044 * (1 + 1 / 1024) + 150  # gaps and starts; the limit; the head


def test_the_example_of_the_page(oracle, by_hand):
    symbols = [6, 6, 6, 5, 6, 6, 6, 7] * 4
    data = huffman.encode(np.array(symbols, np.uint8))
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/huffman.md").read_text()
    example = page[page.index("## Example") :].split("\n\n")[1:3]
    told = "".join(line[:19] for block in example for line in block.splitlines() if line.startswith("    "))
    assert data == bytes.fromhex(told)
    lengths = {5: 2, 6: 1, 7: 2}
    assert data == by_hand.stream(32, lengths, [by_hand.coded(symbols, lengths, 10)])
    assert oracle.decode(data).tolist() == symbols


# ---- by hand --------------------------------------------------------------------------------------------------------

SKEWED = {3: 1, 4: 2, 9: 3, 200: 4, 201: 5, 202: 6, 203: 7, 204: 8, 205: 9, 206: 10, 207: 11, 208: 12, 255: 12}
FLAT = {symbol: 8 for symbol in range(256)}


def drawn(lengths, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.choice(list(lengths), count, p=[2.0**-length for length in lengths.values()]).tolist()


@pytest.mark.parametrize("lengths", [SKEWED, FLAT, {0: 1, 255: 1}], ids=["skewed", "flat", "two"])
@pytest.mark.parametrize("log_piece", [8, 9, 10])
def test_chunks_and_pieces_of_other_sizes(oracle, by_hand, lengths, log_piece):
    """Chunks of 4096 and of 100, codes that are not the best, a constant and a raw chunk between coded ones."""
    parts = [drawn(lengths, 4096, seed) for seed in range(2)] + [[9] * 4096, list(range(256)) * 16, drawn(lengths, 100)]
    chunks = [by_hand.coded(parts[i], lengths, log_piece) if i not in (2, 3) else b"" for i in range(5)]
    chunks[2:4] = [b"\1\x09", b"\0" + bytes(parts[3])]  # which need no codes
    symbols = [symbol for part in parts for symbol in part]
    data = by_hand.stream(len(symbols), lengths, chunks, 12, log_piece)
    assert oracle.decode(data).tolist() == symbols
    assert huffman.decode(data).tolist() == symbols


def test_streams_without_codes(oracle, by_hand):
    data = by_hand.stream(4096 + 3, None, [b"\1\x2a", b"\0abc"], 12)
    want = [42] * 4096 + list(b"abc")
    assert oracle.decode(data).tolist() == want
    assert huffman.decode(data).tolist() == want


def hostile(by_hand):
    good = by_hand.coded([3, 4, 3, 9], SKEWED, 8)  # 7 bits: 02 07, starts, gap, codes
    table = by_hand.code_lengths(SKEWED)
    head = bytes([2, 1, 12, 8, 4, 1])
    two = {1: 1, 2: 1}
    return {
        "stream": b"\1" + by_hand.stream(4, SKEWED, [good], 12, 8)[1:],
        "version": b"\2\2" + by_hand.stream(4, SKEWED, [good], 12, 8)[2:],
        "chunks of 2^11": by_hand.stream(4, SKEWED, [good], 11, 8),
        "chunks of 2^21": by_hand.stream(4, SKEWED, [good], 21, 8),
        "pieces of 2^7": by_hand.stream(4, SKEWED, [good], 12, 7),
        "pieces of 2^11": by_hand.stream(4, SKEWED, [good], 12, 11),
        "codes is 2": bytes([2, 1, 12, 8, 4, 2]) + table + b"\6" + good,
        "a code of 13 bits": by_hand.stream(4, {**SKEWED, 208: 13}, [good], 12, 8),
        "codes not complete": by_hand.stream(4, {**SKEWED, 208: 11}, [good], 12, 8),
        "codes too few": by_hand.stream(4, {**SKEWED, 208: 11, 255: 11, 3: 2}, [good], 12, 8),
        "too many codes": by_hand.stream(4, {**SKEWED, 100: 12}, [good], 12, 8),
        "one code": head + bytes([3, 3, 1]) + b"\6" + good,
        "first without a code": head + bytes([0, 2, 0x10, 0x01]) + b"\6" + good,
        "last without a code": head + bytes([0, 2, 0x11, 0x00]) + b"\6" + good,
        "a code behind the last": head + bytes([0, 2, 0x02, 0x11 + 0x10]) + b"\6" + good,
        "coded without codes": by_hand.stream(4, None, [good], 12, 8),
        "kind 3": by_hand.stream(4, SKEWED, [b"\3" + good[1:]], 12, 8),
        "raw too short": by_hand.stream(4, SKEWED, [b"\0abc"], 12, 8),
        "constant too long": by_hand.stream(4, SKEWED, [b"\1ab"], 12, 8),
        "fewer bits than symbols": by_hand.stream(4, two, [b"\2\3\4\0\0\0"], 12, 8),
        "more bits than symbols can have": by_hand.stream(4, two, [b"\2\x31\4\0\0" + bytes(7)], 12, 8),
        "a byte too many": by_hand.stream(4, SKEWED, [good + b"\0"], 12, 8),
        "starts too few": by_hand.stream(4, SKEWED, [good[:2] + b"\3" + good[3:]], 12, 8),
        "starts too many": by_hand.stream(4, SKEWED, [good[:2] + b"\5" + good[3:]], 12, 8),
        "a first gap": by_hand.stream(4, SKEWED, [good[:4] + b"\1" + good[5:]], 12, 8),
        "a gap without a piece": by_hand.stream(4, SKEWED, [good[:4] + b"\x10" + good[5:]], 12, 8),
        "bits behind the last": by_hand.stream(4, SKEWED, [good[:-1] + bytes([good[-1] | 128])], 12, 8),
        "codes that end late": by_hand.stream(4, SKEWED, [good[:-1] + b"\x7f"], 12, 8),
        "lengths too short": bytes([2, 1, 12, 8, 4, 1]) + table + b"\5" + good,
        "symbols beyond the bytes": bytes([2, 1, 12, 8]) + by_hand.varint(1 << 60) + b"\1" + table,
        "a needless varint byte": bytes([2, 1, 12, 8, 0x84, 0, 1]) + table + b"\6" + good,
    }


def test_hostile_headers_are_refused_by_both_readers(oracle, by_hand):
    good = by_hand.stream(4, SKEWED, [by_hand.coded([3, 4, 3, 9], SKEWED, 8)], 12, 8)
    assert huffman.decode(good).tolist() == [3, 4, 3, 9]
    for name, data in hostile(by_hand).items():
        with pytest.raises(oracle.RefusedError):
            print(name, oracle.decode(data))
        with pytest.raises(FormatError, match="huffman stream"):
            print(name, huffman.decode(data))


def test_damage_is_refused_by_both_readers_alike(oracle, by_hand):
    symbols = drawn(SKEWED, 6000)
    data = by_hand.stream(len(symbols), SKEWED, [by_hand.coded(symbols, SKEWED, 8)], 13, 8)
    changed = [data[:cut] for cut in range(0, len(data), 41)]
    changed += [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        for bit in [*range(0, 8 * 60, 3), *range(8 * 60, 8 * len(data), 211)]
    ]
    outcomes = set()
    for bad in changed:
        try:
            want = oracle.decode(bad, by_pieces=False)
        except oracle.RefusedError:
            outcomes.add("refused")
            with pytest.raises(FormatError):
                huffman.decode(bad)
        else:
            outcomes.add("read")
            np.testing.assert_array_equal(huffman.decode(bad), want)
    assert outcomes == {"refused", "read"}  # a flipped bit among the codes often leaves as many symbols


def test_gaps_inside_spans_are_for_readers_by_pieces(oracle, by_hand):
    symbols = drawn(FLAT, 400)
    chunk = bytearray(by_hand.coded(symbols, FLAT, 8))
    chunk[3 + 2 + 1] ^= 0x20  # piece 3 of 13
    data = by_hand.stream(400, FLAT, [bytes(chunk)], 12, 8)
    np.testing.assert_array_equal(huffman.decode(data), symbols)
    np.testing.assert_array_equal(oracle.decode(data, by_pieces=False), symbols)
    with pytest.raises(oracle.RefusedError):
        oracle.decode(data)


# ---- the door -------------------------------------------------------------------------------------------------------


def test_the_door_takes_and_fills_arrays_of_bytes():
    symbols = symbols_of("geometric", 3000).reshape(30, 100)
    data = huffman.encode(symbols, threads=2)
    assert data == huffman.encode(symbols.view(np.int8)) == huffman.encode(symbols.tobytes())
    out = np.empty((100, 30), np.int8)
    assert huffman.decode(data, out) is out
    np.testing.assert_array_equal(out.view(np.uint8).ravel(), symbols.ravel())
    with pytest.raises(TypeError, match="symbols of 8 bits are needed"):
        huffman.encode(symbols.astype(np.uint16))
    with pytest.raises(ValueError, match=r"out holds 10 bytes of .*, 3000 one-byte elements are needed"):
        huffman.decode(data, np.empty(10, np.uint8))


# ---- goldens --------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    for symbols in (huffman.decode(data), oracle.decode(data)):
        assert hashlib.sha256(symbols.tobytes()).hexdigest() == GOLDENS[name]["sha256"]
