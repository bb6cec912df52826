"""golomb and gap streams against the reader written from the page; what our encoder never writes; sizes; goldens.

Goldens are written once and never again. golden.json tells of each: the SHA-256 of its values as int64. v1_hand_* come
from golomb_by_hand.py, the others from the encoder of version 0.1.0. TERSOR_MEASURE=1 and -s print sizes and speeds.
"""

import hashlib
import json
import os
import pathlib
import time

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import gap, golomb

GOLDEN = pathlib.Path(__file__).parent / "golomb" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
MEASURES = pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 runs it")


@pytest.fixture(scope="session")
def oracle(load):
    """The reader of golomb and gap streams in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/golomb_oracle.py")


@pytest.fixture(scope="session")
def by_hand(load):
    """The writer of streams that our encoder never emits."""
    load("tests/entropy/by_hand.py")  # which it imports
    return load("tests/entropy/golomb_by_hand.py")


def values_of(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "zeros": lambda: np.zeros(count, np.uint64),
        "geometric": lambda: rng.geometric(0.01, count).astype(np.uint64),
        "huge": lambda: np.where(rng.random(count) < 0.01, 2**64 - 1, 3).astype(np.uint64),
        "uniform": lambda: rng.integers(0, 2**64, count, np.uint64, endpoint=False),
        "any length": lambda: rng.integers(0, 2**64, count, np.uint64) >> rng.integers(0, 64, count, np.uint64),
    }[kind]()


VALUES = ["zeros", "geometric", "huge", "uniform", "any length"]


def support(size, density, seed=0):
    return np.flatnonzero(np.random.default_rng(seed).random(size) < density)


def entropy_bytes(size, count):
    p = count / size
    return size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8


# ---- golomb ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VALUES)
def test_the_oracle_reads_what_we_write(oracle, kind):
    for count in [*range(65), 1000, 40_000]:
        values = values_of(kind, count, count)
        data = golomb.encode(values)
        np.testing.assert_array_equal(golomb.decode(data), values)
        if count < 17 or count > 900:
            assert oracle.decode(data) == values.tolist()


@pytest.mark.parametrize("parameter", [1, 2, 3, 5, 7, 64, 100, 2**32 - 1, 2**32 + 1, 2**55 + 1, 2**56 - 1, 2**56])
def test_every_parameter(oracle, parameter):
    values = np.concatenate([values_of(kind, 40) for kind in VALUES] + [np.arange(2 * min(parameter, 200), dtype="u8")])
    data = golomb.encode(values, parameter)
    np.testing.assert_array_equal(golomb.decode(data), values)
    assert oracle.decode(data) == values.tolist()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_every_dtype_signed_and_not(oracle, dtype):
    info = np.iinfo(dtype)
    values = np.array([0, 1, 5, info.max, info.max - 1, 3], dtype)
    assert golomb.encode(values) == golomb.encode(values.astype("u8"))
    for signed in (False, True) if dtype != "u8" else (False,):
        data = golomb.encode(values, signed=signed)
        assert golomb.decode(data, np.empty(6, dtype)).tolist() == oracle.decode(data) == values.tolist()
    if info.min < 0:
        values[2:4] = -5, info.min
        data = golomb.encode(values, signed=True)
        assert golomb.decode(data, np.empty(6, dtype)).tolist() == golomb.decode(data).tolist() == values.tolist()
        assert oracle.decode(data) == values.tolist()
        with pytest.raises(ValueError, match="value -5 at place 2 is below 0"):
            golomb.encode(values)
        with pytest.raises(ValueError, match="value -5 at place 2 does not fit 8 unsigned bits"):
            golomb.decode(data, np.empty(6, np.uint8))


def test_sizes_are_near_the_entropy_and_outliers_are_cheap():
    for p in (0.5, 0.1, 0.01, 0.001):
        values = np.random.default_rng(1).geometric(p, 1 << 17).astype(np.uint64) - 1
        least = entropy_bytes(values.size / p, values.size)
        assert least * 0.99 <= len(golomb.encode(values)) <= least * 1.02
    small = np.random.default_rng(2).integers(0, 4, 10_000, np.uint64)
    data = golomb.encode(small, 2)
    small[5000] = 2**64 - 1
    assert len(golomb.encode(small, 2)) - len(data) <= 14
    assert len(golomb.encode(values_of("uniform", 10_000))) <= 80_000 + 20


def test_a_parameter_that_is_chosen_costs_no_more_than_its_neighbors():
    for kind, p in [("geometric", 0.3), ("geometric", 0.02), ("geometric", 1e-6)]:
        values = np.random.default_rng(3).geometric(p, 20_000).astype(np.uint64)
        chosen = len(golomb.encode(values))
        assert chosen <= 1.004 * min(len(golomb.encode(values, max(1, int(m / p / 8)))) for m in range(3, 12)), kind


def test_the_example_of_the_page(oracle, by_hand):
    values = [3, 0, 7, 1, 300, 2, 5]
    data = golomb.encode(np.array(values, np.uint16), 5)
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/golomb.md").read_text()
    block = page[page.index("## Example") :].split("\n\n")[1]
    assert data == bytes.fromhex("".join(line[:20] for line in block.splitlines() if line.startswith("    ")))
    assert data == by_hand.golomb(7, [by_hand.chunk(values, 5)])
    assert oracle.decode(data) == values


# ---- gap ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0, 0.001, 0.02, 0.3, 0.45, 0.55, 0.7, 0.98, 1])
def test_supports_of_every_density(oracle, density):
    for size in [*range(65), 2000, 100_000]:
        positions = support(size, density, size)
        data = gap.encode(positions, size)
        np.testing.assert_array_equal(gap.decode(data), positions)
        assert len(data) <= (size + 7) // 8 + 24
        if size < 17 or size > 1000:
            assert oracle.positions(data) == positions.tolist()


@pytest.mark.parametrize("density", [0.001, 0.01])
def test_sizes_are_within_a_percent_of_the_entropy(density):
    size = 10_000_000
    positions = support(size, density)
    least = entropy_bytes(size, positions.size)
    assert least <= len(gap.encode(positions, size)) <= 1.01 * least


def test_a_full_support_takes_no_more_than_its_bytes_may_stand_for():
    """A few bytes must not stand for any number of positions: a large full support is a bitmap."""
    for size in (500_000, 1_000_000):
        data = gap.encode(np.arange(size), size)
        assert len(data) == (10 if size < 1_000_000 else size // 8 + 10)
        np.testing.assert_array_equal(gap.decode(data), np.arange(size))


def test_patterns_cost_no_more_than_a_bitmap():
    size = 50_000
    for step in (1, 2, 3, 8, 16, 17, 18):
        for positions in (np.arange(0, size, step), np.delete(np.arange(size), np.arange(0, size, step))):
            data = gap.encode(positions, size)
            assert len(data) <= size // 8 + 24
            np.testing.assert_array_equal(gap.decode(data), positions)


@pytest.mark.parametrize("dtype", ["u4", "i4", "u8", "i8"])
def test_positions_of_every_dtype(dtype):
    size = min(2**63, int(np.iinfo(dtype).max) + 1)
    positions = np.array([0, 1, 77, 2**20, size - 2, size - 1], dtype)
    data = gap.encode(positions, size)
    assert data == gap.encode(positions.astype(np.int64), size)
    assert gap.decode(data).tolist() == gap.decode(data, np.empty(6, dtype)).tolist() == positions.tolist()
    with pytest.raises(ValueError, match="do not fit 32 signed bits"):
        gap.decode(gap.encode(positions, max(size, 2**31 + 1)), np.empty(6, np.int32))


@pytest.mark.parametrize("count", [3, 200_000])
@pytest.mark.parametrize("step", [2, 1])
def test_the_first_position_that_is_wrong_is_named(count, step):
    size = step * count
    good = np.arange(0, size, step)[: count - 1]
    for place in {1, count // 2, count - 2}:
        for wrong, why in [
            (good[place - 1], "is not above the"),
            (size, f"is not below the size of {size}"),
            (-1, "is not below the size"),
            (-(2**63), "is not below the size"),
        ]:
            bad = good.copy()
            bad[place] = wrong
            bad[-1] = bad[-1] if place == count - 2 else 0  # a later one, which must not be the one that is told
            with pytest.raises(ValueError, match=f"^position {wrong} at place {place} {why}"):
                gap.encode(bad, size, threads=2)


def test_more_positions_than_places():
    with pytest.raises(ValueError, match="position 3 at place 3 is not below the size of 3"):
        gap.encode(np.arange(5), 3)
    with pytest.raises(ValueError, match="position 0 at place 0 is not below the size of 0"):
        gap.encode(np.arange(1), 0)


# ---- by hand --------------------------------------------------------------------------------------------------------


def mixed(by_hand):
    """Chunks of 1024 and of 300 values, each with another divisor, one with its values as they are."""
    parts = [values_of("any length", 1024, 1).tolist(), [2, 0, 40] * 341 + [1], list(range(300))]
    chunks = [by_hand.chunk(part, divisor) for part, divisor in zip(parts, [0, 3, 37], strict=True)]
    return [value for part in parts for value in part], chunks


def test_chunks_of_other_sizes_and_divisors(oracle, by_hand):
    values, chunks = mixed(by_hand)
    data = by_hand.golomb(len(values), chunks, 10)
    assert golomb.decode(data).tolist() == oracle.decode(data) == values


def test_gaps_of_other_sizes_and_divisors(oracle, by_hand):
    gaps, chunks = [0, 5, 900, 2] * 256 + [7] * 50, []
    chunks = [by_hand.chunk(gaps[:1024], 6), by_hand.chunk(gaps[1024:], 0)]
    advances = [sum(gaps[:1024]) + 1024, sum(gaps[1024:]) + 50]
    positions = (np.cumsum(gaps) + np.arange(1074)).tolist()
    size = sum(advances) + 9
    data = by_hand.gap(size, 1074, advances, chunks, 10)
    assert gap.decode(data).tolist() == oracle.positions(data) == positions
    others = np.setdiff1d(np.arange(size), positions).tolist()
    data = by_hand.gap(size, len(others), advances, chunks, 10, 1)
    assert gap.decode(data, threads=2).tolist() == oracle.positions(data) == others


def hostile(by_hand):
    values = [3, 0, 7, 1, 300, 2, 5]
    good = by_hand.chunk(values, 5)  # 05 19 01 | 1b 00 60 01 | 63 08 | 00 | 2c
    stream = by_hand.golomb(7, [good])
    return {
        "stream": b"\1" + stream[1:],
        "version": b"\7\2" + stream[2:],
        "chunks of 2^9": by_hand.golomb(7, [good], 9),
        "chunks of 2^21": by_hand.golomb(7, [good], 21),
        "signed is 2": by_hand.golomb(7, [good], signed=2),
        "values beyond the bytes": by_hand.golomb(1 << 60, [good]),
        "a byte too many": by_hand.golomb(7, [good + b"\0"]),
        "a byte too few": by_hand.golomb(7, [good[:-1]]),
        "a divisor above 2^56": by_hand.golomb(7, [by_hand.chunk(values, (1 << 56) + 1)]),
        "as they are, too short": by_hand.golomb(7, [by_hand.chunk(values, 0)[:-1]]),
        "too few bits": by_hand.golomb(7, [good[:1] + b"\6" + good[2:]]),
        "too many bits": by_hand.golomb(7, [good[:1] + b"\x78" + good[2:]]),
        "extras of a power of two": by_hand.golomb(7, [b"\4\7\1\x7f\0\0\0"]),
        "an extra too many": by_hand.golomb(7, [good[:2] + b"\2" + good[3:]]),
        "an extra too few": by_hand.golomb(7, [good[:2] + b"\0" + good[3:9] + good[10:]]),
        "a one too few": by_hand.golomb(7, [good[:3] + b"\x1a" + good[4:]]),
        "a one too many": by_hand.golomb(7, [good[:3] + b"\x1f" + good[4:]]),
        "no one at the end": by_hand.golomb(7, [good[:4] + b"\1\x60\0" + good[7:]]),
        "17 zeros": by_hand.golomb(7, [good[:3] + b"\x1b\0\xc0\1" + good[7:]]),
        "bits behind the quotients": by_hand.golomb(7, [good[:6] + b"\3" + good[7:]]),
        "bits behind the remainders": by_hand.golomb(7, [good[:8] + b"\x48" + good[9:]]),
        "bits behind the extras": by_hand.golomb(7, [good[:9] + b"\2" + good[10:]]),
        "over 64 bits": by_hand.golomb(7, [good[:-1] + by_hand.varint((1 << 64) // 5)]),
        "a needless varint byte": by_hand.golomb(7, [good[:-1] + b"\xac\0"]),
        "a chunk too few": by_hand.golomb(1025, [by_hand.chunk([0] * 1024, 1)], 10),
    }


def hostile_gaps(by_hand):
    chunk = by_hand.chunk([2, 0, 36, 22], 7)
    two = [by_hand.chunk([0] * 1024, 1), by_hand.chunk([2, 3], 4)]
    return {
        "stream": b"\7" + by_hand.gap(100, 4, [64], [chunk])[1:],
        "kind 3": by_hand.gap(100, 4, [64], [chunk], kind=3),
        "more positions than places": by_hand.gap(3, 4, [64], [chunk]),
        "size above 2^63": by_hand.gap((1 << 63) + 1, 4, [64], [chunk]),
        "an index beyond the size": by_hand.gap(63, 4, [64], [chunk]),
        "an advance too short": by_hand.gap(100, 4, [63], [chunk]),
        "an advance too long": by_hand.gap(100, 4, [65], [chunk]),
        "advances that wrap": by_hand.gap(2000, 1026, [(1 << 64) - 1, 3], two, 10),
        "an advance below its indexes": by_hand.gap(3000, 1974, [1000, 31], two, 10, 1),
        "a chunk that leads too far": by_hand.gap(3000, 1974, [1024, 8], two, 10, 1),
        "gaps that wrap": by_hand.gap(100, 4, [64], [by_hand.chunk([2, (1 << 64) - 2, 36, 24], 0)]),
        "positions beyond the bytes": by_hand.gap(1 << 50, 1 << 40, [64], [chunk]),
        "others beyond the bytes": by_hand.gap(1 << 50, 1 << 40, [64], [chunk], kind=1),
        "positions out of nothing": by_hand.gap(1 << 40, 1 << 40, [], [], kind=1),
        "a bitmap too short": by_hand.gap(100, 4, [], [], kind=2) + bytes(12),
        "a bitmap of other positions": by_hand.gap(16, 4, [], [], kind=2) + b"\7\0",
        "bits behind the bitmap": by_hand.gap(9, 2, [], [], kind=2) + b"\1\2",
    }


def test_hostile_streams_are_refused_by_both_readers(oracle, by_hand):
    for name, data in hostile(by_hand).items():
        with pytest.raises(oracle.RefusedError):
            print(name, oracle.decode(data))
        with pytest.raises(FormatError, match=r"golomb|varint"):
            print(name, golomb.decode(data))
    assert gap.decode(by_hand.gap(100, 4, [64], [by_hand.chunk([2, 0, 36, 22], 7)])).tolist() == [2, 3, 40, 63]
    for name, data in hostile_gaps(by_hand).items():
        with pytest.raises(oracle.RefusedError):
            print(name, oracle.positions(data))
        with pytest.raises(FormatError, match=r"gap|varint"):
            print(name, gap.decode(data))


@pytest.mark.parametrize("kind", ["golomb", "positions", "others", "bitmap"])
def test_damage_is_refused_by_both_readers_alike(oracle, by_hand, kind):
    if kind == "golomb":
        data, ours, theirs = golomb.encode(values_of("any length", 90), 48), golomb.decode, oracle.decode
    else:
        data = gap.encode(support(500, {"positions": 0.1, "others": 0.9, "bitmap": 0.5}[kind]), 500)
        ours, theirs = gap.decode, oracle.positions
    flips = (data[: b // 8] + bytes([data[b // 8] ^ 1 << b % 8]) + data[b // 8 + 1 :] for b in range(8 * len(data)))
    outcomes = set()
    for bad in [*(data[:cut] for cut in range(len(data))), *flips]:
        try:
            want = theirs(bad)
        except oracle.RefusedError:
            outcomes.add("refused")
            with pytest.raises(FormatError):
                ours(bad)
        else:
            outcomes.add("read")
            assert ours(bad).tolist() == want
    assert outcomes >= {"refused"}


# ---- the doors ------------------------------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_threads():
    values, positions = values_of("geometric", 200_000), support(2_000_000, 0.1)
    dense = support(400_000, 0.9)
    assert golomb.encode(values, threads=3) == golomb.encode(values, threads=1)
    assert gap.encode(positions, 2_000_000, threads=3) == gap.encode(positions, 2_000_000, threads=1)
    np.testing.assert_array_equal(gap.decode(gap.encode(dense, 400_000), threads=3), dense)
    np.testing.assert_array_equal(golomb.decode(golomb.encode(values), threads=3), values)


def test_the_doors_take_and_fill_arrays_of_integers():
    values = values_of("geometric", 60).reshape(6, 10)
    data = golomb.encode(values)
    out = np.empty((10, 6), np.uint32)
    assert golomb.decode(data, out) is out
    np.testing.assert_array_equal(out.ravel(), values.ravel())
    with pytest.raises(ValueError, match="60 values are needed"):
        golomb.decode(data, np.empty(59, np.uint32))
    with pytest.raises(TypeError, match="not F32"):
        golomb.decode(data, np.empty(60, np.float32))
    with pytest.raises(TypeError, match="not F64"):
        golomb.encode(np.zeros(3))
    with pytest.raises(ValueError, match="parameter is 0"):
        golomb.encode(values, 0)
    with pytest.raises(TypeError, match="not I16"):
        gap.encode(np.arange(3, dtype=np.int16), 3)
    with pytest.raises(ValueError, match="size is -1"):
        gap.encode(np.arange(3), -1)
    with pytest.raises(ValueError, match="3 positions are needed"):
        gap.decode(gap.encode(np.arange(3), 9), np.empty(4, np.int64))


# ---- goldens and figures --------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    both = (gap.decode(data), oracle.positions(data)) if data[0] == 8 else (golomb.decode(data), oracle.decode(data))
    for values in both:
        told = hashlib.sha256(np.asarray(values, np.int64).tobytes()).hexdigest()
        assert told == GOLDENS[name]["sha256"]


def fastest(run, rounds=15):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@MEASURES
@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [10_000_000, 100_000_000])
def test_figures_of_gaps(size, density):
    """Size beside the entropy of such a support, and indexes a second on one thread, NumPy in and out."""
    rng = np.random.default_rng(0)
    positions = np.cumsum(rng.geometric(density, int(size * density * 1.02) + 1000)) - 1
    positions = positions[positions < size]
    data, out = gap.encode(positions, size, threads=1), np.empty_like(positions)
    ratio = len(data) / entropy_bytes(size, positions.size)
    speed = {
        "encode": fastest(lambda: gap.encode(positions, size, threads=1), 7),
        "decode": fastest(lambda: gap.decode(data, threads=1), 7),
        "decode into out": fastest(lambda: gap.decode(data, out, threads=1), 7),
    }
    np.testing.assert_array_equal(out, positions)
    told = ", ".join(f"{name} {positions.size / seconds / 1e6:.0f} M/s" for name, seconds in speed.items())
    print(f"\ngap {density:g} of {size}: {ratio:.4f} of the entropy, {told}")
