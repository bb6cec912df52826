"""Tables and rans8 streams against the reader written from the pages; streams that our encoder never writes; goldens.

Goldens are written once and never again. golden.json tells of each: the SHA-256 of its symbols, and its given table.
v1_hand_* come from by_hand.py, the others from the encoder of version 0.1.0.
"""

import hashlib
import itertools
import json
import pathlib

import numpy as np
import pytest

from tersor import FormatError, entropy

GOLDEN = pathlib.Path(__file__).with_name("golden")
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
KINDS = ["geometric", "gaussian", "apart", "rare", "uniform"]


def symbols_of(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    made = {
        "geometric": lambda: np.minimum(rng.geometric(0.385, count) + 99, 131),
        "gaussian": lambda: np.clip(rng.normal(128, 44, count), 0, 255),
        "apart": lambda: 40 * rng.integers(0, 7, count),
        "rare": lambda: np.where(rng.random(count) < 0.001, rng.integers(0, 256, count), 7),
        "uniform": lambda: rng.integers(0, 256, count),
    }[kind]
    return made().astype(np.uint8)


def parsed(oracle, data):
    cursor = oracle.Cursor(data)
    table = oracle.parse_table(cursor)
    cursor.end()
    return table


@pytest.mark.parametrize("mode", ["alias", "contiguous"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 17, 511, 600, 4095, 4096, 9000, 90_000])
def test_the_oracle_reads_what_we_write(oracle, kind, count, mode):
    symbols = symbols_of(kind, count)
    np.testing.assert_array_equal(oracle.decode(entropy.encode(symbols, mode=mode)), symbols)


@pytest.mark.parametrize("mode", ["alias", "contiguous"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [12, 14, 16])
def test_the_oracle_derives_what_we_derive_from_a_given_table(oracle, kind, precision, mode):
    symbols = symbols_of(kind, 6000)
    known = np.bincount(symbols, minlength=256) + (np.arange(256) % 3 == 0)
    table = entropy.Table.from_counts(known, precision)
    given = parsed(oracle, table.to_bytes())
    assert given.frequencies == table.frequencies.tolist()
    data = entropy.encode(symbols, table, mode=mode)
    np.testing.assert_array_equal(oracle.decode(data, given), symbols)


def test_tables_of_every_shape_are_read_alike(oracle, by_hand):
    rng = np.random.default_rng(3)
    for precision, count in itertools.product(range(12, 17), (2, 3, 40, 256, 3000)):
        counts = (rng.exponential(1, count) ** 4 * 50).astype(np.int64)
        counts[0] += 1
        table = entropy.Table.from_counts(counts, precision)
        assert parsed(oracle, table.to_bytes()).frequencies == table.frequencies.tolist()
        if not table.has_escape:
            assert by_hand.table(table.frequencies.tolist(), precision) == table.to_bytes()
            longer = by_hand.table(table.frequencies.tolist(), precision, longest_run=3)
            assert entropy.Table.from_bytes(longer) == table


@pytest.mark.parametrize(
    ("frequencies", "kind", "text"),
    [
        ([4095.5, 0.5], TypeError, "frequencies are integers, not float64"),
        ([[1, 4095]], ValueError, "frequencies have one dimension, not 2"),
        ([-1, 4097], ValueError, "frequencies are not negative, found -1"),
        ([4000, 97], ValueError, "frequencies sum to 4097"),
        ([1 << 32, 1], ValueError, "found one of 4294967296"),
    ],
    ids=["float", "matrix", "negative", "sum", "large"],
)
def test_frequencies_are_taken_as_they_are_or_refused(frequencies, kind, text):
    with pytest.raises(kind, match=text):
        entropy.Table.from_frequencies(frequencies, 12)


def test_the_examples_of_the_pages(oracle):
    table = entropy.Table.from_frequencies([0, 0, 0, 0, 0, 1024, 3072], 12)
    assert table.to_bytes().hex(" ") == "0c 05 01 00 14 00 01 10"
    data = entropy.encode(np.array([6, 6, 5, 6], np.uint8), table)
    assert data.hex(" ") == "01 01 00 14 04 05 00 06 06 05 06"
    symbols = np.array([6, 6, 6, 5] * 8, np.uint8)
    want = bytes.fromhex("01010014 200a 02 002001 4bb46b04 0040")
    assert entropy.encode(symbols, table) == want
    np.testing.assert_array_equal(oracle.decode(want, parsed(oracle, table.to_bytes())), symbols)


# ---- by hand --------------------------------------------------------------------------------------------------------


def with_hole(precision=16):
    """Frequencies of 40 symbols with holes of two lengths, at a precision that our encoder would not take."""
    frequencies = [0] * 40
    frequencies[3], frequencies[5], frequencies[39] = 1, 5000, 70
    frequencies[20] = (1 << precision) - sum(frequencies)
    return frequencies


def drawn(frequencies, count, seed=0):
    rng = np.random.default_rng(seed)
    shares = np.array(frequencies) / sum(frequencies)
    symbols = rng.choice(len(frequencies), count, p=shares).astype(np.uint8)
    symbols[: count // 50] = rng.choice(np.flatnonzero(shares), count // 50)
    return symbols


@pytest.mark.parametrize(
    ("groups", "rows", "tail"),
    [(0, 0, tail) for tail in (1, 40, 511, 512, 1000)]
    + [shape for shape in itertools.product((1, 2, 4, 8), (0, 1, 5), (0, 1, 40, 600)) if any(shape[1:])],
)
def test_blocks_of_every_shape(oracle, by_hand, groups, rows, tail):
    """Few symbols on many lanes, rows without a tail, tails without a row, narrow words beyond the states' room."""
    count = 32 * groups * rows + tail
    frequencies = with_hole()
    symbols = drawn(frequencies, count)
    table = by_hand.table(frequencies, 16, longest_run=4)
    slots = oracle.alias_slots(oracle.Table(frequencies, 16, False))
    block = by_hand.block(symbols.tolist(), [(count, slots)], groups, tail)
    data = by_hand.stream(count, 1, table, [b"\2" + block])
    np.testing.assert_array_equal(oracle.decode(data), symbols)
    np.testing.assert_array_equal(entropy.decode(data), symbols)


@pytest.mark.parametrize("names", [2, 3, 32])
def test_contiguous_streams_of_short_chunks(oracle, by_hand, names):
    """Chunks of 4096, each of another kind; escapes raw, constant and coded; symbols named in any order."""
    frequencies = [1024] * names
    frequencies[names // 2] += 65536 - 1024 * names
    named = [(200 - 5 * name) for name in range(names - 1)]
    slots = oracle.contiguous_slots(frequencies)
    chosen = drawn(frequencies, 3 * 4096 + 100, seed=names).tolist()
    rare = [s for s in range(256) if s not in named]
    escaped_of = [lambda i: rare[i % 7], lambda i: rare[4], lambda i: i * 77 % 256]
    few = [0] * 256
    for symbol in rare[:7]:
        few[symbol] = 585
    few[rare[0]] += 1
    few_slots = oracle.alias_slots(oracle.Table(few, 12, False))
    symbols, chunks = [], []
    for number in range(3):
        part = chosen[4096 * number : 4096 * (number + 1)]
        block = by_hand.block(part, [(4096, slots)], 2 * number, 0 if number else 4096)
        escaped = [escaped_of[number](i) for i in range(part.count(names - 1))]
        coded = by_hand.block(escaped, [(len(escaped), few_slots)], 0, len(escaped)) if number == 0 else b""
        chunk = b"\3" + by_hand.varint(len(block)) + block + by_hand.varint(len(escaped))
        chunk += [b"\2" + by_hand.table(few, 12) + coded, b"\1" + bytes(escaped[:1]), b"\0" + bytes(escaped)][number]
        chunks.append(chunk)
        escape = iter(escaped)
        symbols += [named[name] if name < names - 1 else next(escape) for name in part]
    chunks.append(b"\1\x09")
    symbols += [9] * 100
    tables = by_hand.table(frequencies, 16) + bytes(named)
    data = by_hand.stream(len(symbols), 3, tables, chunks, log_chunk=12)
    assert oracle.decode(data).tolist() == symbols
    assert entropy.decode(data).tolist() == symbols


def test_a_contiguous_list_may_repeat_symbols_and_escapes_may_have_names(oracle, by_hand):
    frequencies, named, count = [20000, 1024, 30000, 65536 - 51024 - 2000, 2000], [9, 200, 9, 9], 600
    slots = oracle.contiguous_slots(frequencies)
    names = [i * i % 5 if i % 7 else 4 for i in range(count)]
    escaped = [(9, 200, 3)[i % 3] for i in range(names.count(4))]
    block = by_hand.block(names, [(count, slots)], 1, count - 32 * 4)
    chunk = b"\3" + by_hand.varint(len(block)) + block + by_hand.varint(len(escaped)) + b"\0" + bytes(escaped)
    data = by_hand.stream(count, 3, by_hand.table(frequencies, 16) + bytes(named), [chunk])
    escape = iter(escaped)
    symbols = [named[name] if name < 4 else next(escape) for name in names]
    assert oracle.decode(data).tolist() == symbols
    assert entropy.decode(data).tolist() == symbols


@pytest.mark.parametrize("symbols", [[0, 255], [7, 8], list(range(100, 132)), [*range(0, 256, 9), 254, 255]])
@pytest.mark.parametrize("flags", [1, 5])
def test_named_alphabets(oracle, by_hand, symbols, flags):
    """Small alphabets, wide or not: the flag alone decides whether blocks hold names."""
    frequencies = [0] * 256
    for symbol in symbols:
        frequencies[symbol] = 4096 // len(symbols)
    frequencies[symbols[0]] += 4096 - sum(frequencies)
    chosen = drawn(frequencies, 32 * 8 * 5 + 77)
    held = [f for f in frequencies if f] if flags & 4 else frequencies
    coded = np.searchsorted(symbols, chosen) if flags & 4 else chosen
    slots = oracle.alias_slots(oracle.Table(held, 12, False))
    block = by_hand.block(coded.tolist(), [(len(chosen), slots)], 8, 77)
    data = by_hand.stream(len(chosen), flags, by_hand.table(frequencies, 12), [b"\2" + block])
    np.testing.assert_array_equal(oracle.decode(data), chosen)
    np.testing.assert_array_equal(entropy.decode(data), chosen)


@pytest.mark.parametrize("flags", [6, 7, 8, 16, 128])
def test_unknown_flags_are_refused(oracle, by_hand, flags):
    data = by_hand.stream(3, flags, b"", [b"\1\7"])
    with pytest.raises(oracle.RefusedError):
        oracle.decode(data)
    with pytest.raises(FormatError):
        entropy.decode(data)


def test_names_for_33_symbols_are_refused(oracle, by_hand):
    data = by_hand.stream(3, 5, by_hand.table([32] * 32 + [0] * 9 + [3072], 12), [b"\1\7"])
    with pytest.raises(oracle.RefusedError):
        oracle.decode(data)
    with pytest.raises(FormatError):
        entropy.decode(data)


def test_damage_is_refused_by_both_readers_alike(oracle, by_hand):
    frequencies = with_hole(12 + 1)
    symbols = drawn(frequencies, 32 * 5 + 40)
    slots = oracle.alias_slots(oracle.Table(frequencies, 13, False))
    block = by_hand.block(symbols.tolist(), [(len(symbols), slots)], 1, 40)
    data = by_hand.stream(len(symbols), 1, by_hand.table(frequencies, 13), [b"\2" + block])
    changed = [data[:cut] for cut in range(0, len(data), 3)]
    changed += [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        for bit in range(0, 8 * len(data), 5)
    ]
    refused = 0
    for bad in changed:
        try:
            want = oracle.decode(bad)
        except oracle.RefusedError:
            refused += 1
            with pytest.raises(FormatError):
                entropy.decode(bad)
        else:
            np.testing.assert_array_equal(entropy.decode(bad), want)
    assert refused > 0.95 * len(changed)


# ---- goldens --------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS) | {
        facts["table"] for facts in GOLDENS.values() if facts["table"]
    }


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    facts = GOLDENS[name]
    data = (GOLDEN / f"{name}.bin").read_bytes()
    given = (GOLDEN / f"{facts['table']}.bin").read_bytes() if facts["table"] else None
    table = entropy.Table.from_bytes(given) if given else None
    for symbols in (entropy.decode(data, table), oracle.decode(data, parsed(oracle, given) if given else None)):
        assert hashlib.sha256(symbols.tobytes()).hexdigest() == facts["sha256"]
