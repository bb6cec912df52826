"""adaptive streams against the reader written from the page; sizes against entropies; damage; goldens.

Goldens are written once and never again. golden.json tells of each: the SHA-256 of its symbols. v1_hand_* come from
adaptive_oracle.py, the others from the encoder of version 0.1.0.
TERSOR_MEASURE=1 pytest -s -k speed tests/entropy/test_adaptive.py prints the speed.
"""

import hashlib
import json
import os
import pathlib
import time

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import adaptive

GOLDEN = pathlib.Path(__file__).parent / "adaptive" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
MODELS = [(bits, order) for bits in (4, 8) for order in (0, 1)]


@pytest.fixture(scope="session")
def oracle(load):
    """The reader and writer in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/adaptive_oracle.py")


def symbols_of(kind, bits, count, seed=0):
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    made = {
        "gaussian": lambda: np.clip(np.rint(rng.normal(top / 2, top / 9, count)), 0, top),
        "constant": lambda: np.full(count, top),
        "rare": lambda: np.where(rng.random(count) < 0.01, rng.integers(0, top + 1, count), 3),
        "uniform": lambda: rng.integers(0, top + 1, count),
        "walk": lambda: np.cumsum(rng.integers(-1, 2, count)) & top,
    }[kind]
    return made().astype(np.uint8)


def entropy_of(symbols):
    """Bits a symbol."""
    p = np.bincount(symbols)[np.bincount(symbols) > 0] / len(symbols)
    return -(p * np.log2(p)).sum()


@pytest.mark.parametrize("kind", ["gaussian", "constant", "rare", "uniform", "walk"])
@pytest.mark.parametrize(("bits", "order"), MODELS)
def test_the_oracle_reads_what_we_write(oracle, kind, bits, order):
    for count, rate in ((0, 7), (1, 4), (2, 9), (511, 5), (1025, 7), (4001, 8)):
        symbols = symbols_of(kind, bits, count, count)
        data = adaptive.encode(symbols, bits=bits, order=order, rate=rate)
        np.testing.assert_array_equal(oracle.decode(data), symbols)
        np.testing.assert_array_equal(adaptive.decode(data), symbols)


@pytest.mark.parametrize(("bits", "order"), MODELS)
def test_every_short_length_comes_back(bits, order):
    for count in range(65):
        for kind in ("gaussian", "constant", "uniform"):
            symbols = symbols_of(kind, bits, count, count)
            data = adaptive.encode(symbols, bits=bits, order=order)
            np.testing.assert_array_equal(adaptive.decode(data), symbols)
            assert len(data) <= 6 + -(-count * bits // 8)  # raw where nothing is gained


def test_models_go_on_from_block_to_block_and_past_raw_ones(oracle):
    """Two coded blocks, a raw one, a coded one; the oracle's bytes are ours."""
    parts = [symbols_of("walk", 4, 65536, 1), symbols_of("walk", 4, 65536, 2), symbols_of("uniform", 4, 65536, 3)]
    parts.append(symbols_of("walk", 4, 999, 4))
    symbols = np.concatenate(parts)
    data = adaptive.encode(symbols, bits=4, order=1)
    model = oracle.Model(4, 1, 7)
    blocks = [oracle.coded_block(parts[0].tolist(), model, 2), oracle.coded_block(parts[1].tolist(), model, 2)]
    blocks += [oracle.raw_block(parts[2].tolist(), model), oracle.coded_block(parts[3].tolist(), model, 1)]
    assert data == oracle.head(len(symbols), model) + b"".join(blocks)
    np.testing.assert_array_equal(adaptive.decode(data), symbols)


@pytest.mark.parametrize(("bits", "order"), MODELS)
@pytest.mark.parametrize("kind", [1, 2])
def test_lanes_that_ours_would_not_choose(oracle, bits, order, kind):
    for count in [*range(1, 12), 700, 1501]:
        symbols = symbols_of("gaussian", bits, count, count)
        model = oracle.Model(bits, order, 6)
        data = oracle.head(count, model) + oracle.coded_block(symbols.tolist(), model, kind)
        np.testing.assert_array_equal(oracle.decode(data), symbols)
        np.testing.assert_array_equal(adaptive.decode(data), symbols)


def test_the_example_of_the_page(oracle):
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/adaptive.md").read_text()
    example = page[page.index("## Example") :].split("\n\n")[1]
    told = bytes.fromhex("".join(line[:24] for line in example.splitlines()))
    symbols = [3, 3, 3, 3, 3, 3, 3, 9] * 4
    assert adaptive.encode(np.array(symbols, np.uint8), bits=4) == told
    assert oracle.decode(told).tolist() == symbols


# ---- the promise: size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "over"), [(5, 0.19), (7, 0.046), (9, 0.019)])
def test_size_approaches_the_entropy_of_what_stays_the_same(rate, over):
    """In bits a nibble; a byte is two. Sharper sources cost less over theirs."""
    for bits in (4, 8):
        symbols = symbols_of("gaussian", bits, 1 << 20)
        size = len(adaptive.encode(symbols, bits=bits, rate=rate)) * 8 / len(symbols)
        assert entropy_of(symbols) <= size <= entropy_of(symbols) + over * bits / 4


def test_a_start_as_quick_as_counting():
    """2000 nibbles cost at most 0.15 bits each over their entropy, all bytes of the stream counted."""
    symbols = symbols_of("gaussian", 4, 2000)
    assert len(adaptive.encode(symbols, bits=4)) * 8 / 2000 <= entropy_of(symbols) + 0.15


@pytest.mark.parametrize("bits", [4, 8])
def test_order_1_beats_order_0_where_symbols_depend_on_the_one_before(bits):
    """The walk costs log2(3) bits a symbol with the one before, `bits` without."""
    symbols = symbols_of("walk", bits, 1 << 18)
    none, one = (len(adaptive.encode(symbols, bits=bits, order=order)) * 8 / len(symbols) for order in (0, 1))
    assert one < np.log2(3) * 1.08
    assert none > 1.9 * one


def test_order_0_follows_what_drifts():
    """A level that changes every 4000 nibbles: less than the entropy of all of them together."""
    rng = np.random.default_rng(0)
    symbols = np.concatenate([np.clip(rng.poisson(level, 4000), 0, 15) for level in (1, 6, 3, 9) * 8]).astype(np.uint8)
    assert len(adaptive.encode(symbols, bits=4)) * 8 < 0.85 * entropy_of(symbols) * len(symbols)


def test_what_does_not_gain_is_raw():
    for bits in (4, 8):
        symbols = symbols_of("uniform", bits, 100_000)
        assert len(adaptive.encode(symbols, bits=bits)) <= 50_000 * bits // 4 + 10


# ---- damage ----------------------------------------------------------------------------------------------------------


def hostile(oracle):
    model = oracle.Model(4, 0, 7)
    head = oracle.head(4, model)
    good = oracle.coded_block([1, 2, 3, 4], model, 1)
    return {
        "stream": b"\5" + head[1:] + good,
        "version": head[:1] + b"\2" + head[2:] + good,
        "flags": head[:2] + b"\5" + head[3:] + good,
        "rate 3": head[:3] + b"\3" + head[4:] + good,
        "rate 10": head[:3] + b"\x0a" + head[4:] + good,
        "kind 3": head + b"\3" + good[1:],
        "no block": head,
        "a state below 2^16": head + good[:2] + b"\xff\xff\0\0" + good[6:],
        "words beyond the nibbles": head + good[:1] + b"\5" + good[2:] + bytes(10),
        "words that are not there": head + good[:1] + b"\4" + good[2:],
        "a byte too many": head + good + b"\0",
        "raw too short": head + b"\0\1",
        "a nibble too many": oracle.head(3, model) + b"\0\x11\x11",
        "another end": head + good[:2] + bytes([good[2] ^ 1]) + good[3:],
        "symbols beyond the bytes": head[:4] + oracle.varint(1 << 60) + good,
        "a needless varint byte": head[:4] + b"\x84\0" + good,
    }


def test_hostile_headers_are_refused_by_both_readers(oracle):
    model = oracle.Model(4, 0, 7)
    good = oracle.head(4, model) + oracle.coded_block([1, 2, 3, 4], model, 1)
    assert adaptive.decode(good).tolist() == [1, 2, 3, 4]
    for name, data in hostile(oracle).items():
        with pytest.raises(oracle.RefusedError):
            print(name, oracle.decode(data))
        with pytest.raises(FormatError, match="adaptive stream"):
            print(name, adaptive.decode(data))


@pytest.mark.parametrize(("bits", "order"), MODELS)
def test_damage_is_refused_by_both_readers_alike(oracle, bits, order):
    data = adaptive.encode(symbols_of("gaussian", bits, 700), bits=bits, order=order)
    changed = [data[:cut] for cut in range(0, len(data), 17)]
    changed += [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        for bit in [*range(0, 8 * 14, 3), *range(8 * 14, 8 * len(data), 401)]
    ]
    for bad in changed:
        try:
            want = oracle.decode(bad)
        except (oracle.RefusedError, ValueError):
            with pytest.raises(FormatError):
                adaptive.decode(bad)
        else:
            np.testing.assert_array_equal(adaptive.decode(bad), want)


# ---- the door --------------------------------------------------------------------------------------------------------


def test_the_door_takes_and_fills_arrays_of_bytes():
    symbols = symbols_of("gaussian", 4, 3000).reshape(30, 100)
    data = adaptive.encode(symbols, bits=4)
    assert data == adaptive.encode(symbols.view(np.int8), bits=4) == adaptive.encode(symbols.tobytes(), bits=4)
    out = np.empty((100, 30), np.int8)
    assert adaptive.decode(data, out) is out
    np.testing.assert_array_equal(out.view(np.uint8).ravel(), symbols.ravel())
    with pytest.raises(TypeError, match="symbols of 8 bits are needed"):
        adaptive.encode(symbols.astype(np.uint16))
    with pytest.raises(ValueError, match=r"out holds 10 bytes of .*, 3000 one-byte elements are needed"):
        adaptive.decode(data, np.empty(10, np.uint8))
    for bad, text in (
        ({"bits": 5}, "symbols of 5 bits"),
        ({"order": 2}, "order 2"),
        ({"rate": 3}, "a rate of 3"),
        ({"rate": 10}, "a rate of 10"),
    ):
        with pytest.raises(ValueError, match=text):
            adaptive.encode(symbols, **bad)
    with pytest.raises(ValueError, match="a symbol of 16 or above"):
        adaptive.encode(bytes([16]), bits=4)


# ---- goldens ---------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    for symbols in (adaptive.decode(data), oracle.decode(data)):
        assert hashlib.sha256(symbols.tobytes()).hexdigest() == GOLDENS[name]["sha256"]


# ---- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 pytest -s -k speed")
def test_speed():
    for bits, order in MODELS:
        symbols = symbols_of("gaussian", bits, 1 << 22)
        out = np.empty_like(symbols)
        seconds: dict[str, list[float]] = {"encode": [], "decode": []}
        for _ in range(7):
            begin = time.perf_counter()
            data = adaptive.encode(symbols, bits=bits, order=order)
            seconds["encode"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            adaptive.decode(data, out)
            seconds["decode"].append(time.perf_counter() - begin)
        speeds = ", ".join(f"{name} {len(symbols) / min(times) / 1e6:.0f}" for name, times in seconds.items())
        print(f"{bits} bits, order {order}: {speeds} M symbols/s")
