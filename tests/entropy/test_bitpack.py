"""Packed bits against the reader written from the page, every width and level; goldens. TERSOR_MEASURE=1 prints speeds.

Goldens are written once and never again. golden.json tells of each: bits, count, the SHA-256 of its values as uint16.
"""

import hashlib
import json
import os
import pathlib
import time

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import bitpack

GOLDEN = pathlib.Path(__file__).parent / "bitpack" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
MEASURES = pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 runs it")
WIDTHS = [(np.uint8, bits) for bits in range(1, 9)] + [(np.uint16, bits) for bits in range(1, 17)]


@pytest.fixture(scope="session")
def oracle(load):
    """The reader of packed bits in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/golomb_oracle.py")


def values_of(dtype, bits, count):
    return np.random.default_rng(count).integers(0, 1 << bits, count).astype(dtype)


@pytest.mark.parametrize(("dtype", "bits"), WIDTHS)
def test_every_width_and_length(oracle, dtype, bits):
    for count in [*range(65), 1000, 300_001]:
        values = values_of(dtype, bits, count)
        data = bitpack.encode(values, bits, threads=2)
        assert len(data) == (count * bits + 7) // 8
        np.testing.assert_array_equal(bitpack.decode(data, bits, count, dtype), values)
        if count <= 1000:
            assert oracle.unpack(data, bits, count) == values.tolist()


@pytest.mark.parametrize(("dtype", "bits"), WIDTHS)
def test_the_first_value_that_does_not_fit_is_named(dtype, bits):
    values = values_of(dtype, bits, 400_000)
    most = int(np.iinfo(dtype).max)
    for place in (0, 17, 399_999) if most >> bits else ():
        bad = values.copy()
        bad[[place, 399_999]] = 1 << bits, most
        with pytest.raises(ValueError, match=f"value {bad[place]} at place {place} does not fit {bits} bits"):
            bitpack.encode(bad, bits, threads=2)


def test_other_integers_are_taken_where_they_fit():
    values = np.arange(100).reshape(10, 10)
    want = bitpack.encode(values.astype(np.uint8), 7)
    for dtype in ("i1", "i2", "u4", "i4", "u8", "i8", ">i4"):
        assert bitpack.encode(values.astype(dtype), 7) == want
    assert bitpack.encode(values[:, ::-1][:, ::-1], 7) == want
    for wrong in (-1, 128, 1 << 40):
        values[3, 4] = wrong
        with pytest.raises(ValueError, match=f"value {wrong} at place 34 does not fit 7 bits"):
            bitpack.encode(values, 7)
    with pytest.raises(TypeError, match="found F64"):
        bitpack.encode(values / 2, 7)


def test_the_example_of_the_page():
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/bitpack.md").read_text()
    example = page[page.index("## Example") :].split("\n\n")[1]
    assert bitpack.encode(np.array([1, 2, 3, 4, 5], np.uint8), 3) == bytes.fromhex(example[:10])


def test_bits_behind_the_last_value_are_written_as_0_and_not_read():
    assert bitpack.encode(np.full(3, 7, np.uint8), 3) == b"\xff\1"
    assert bitpack.decode(b"\xff\xff", 3, 3).tolist() == [7, 7, 7]


def test_what_is_asked_for_must_be_there():
    data = bitpack.encode(np.arange(10, dtype=np.uint8), 4)
    for cut in (data[:-1], data + b"\0", b""):
        with pytest.raises((FormatError, ValueError)):
            bitpack.decode(cut, 4, 10)
        with pytest.raises(FormatError, match=f"{len(cut)} bytes, 5 are needed for 10 values of 4 bits"):
            bitpack.decode(cut, 4, out=np.empty(10, np.uint8))
    with pytest.raises(ValueError, match=r"count is 1099511627776, 0\.\.40 are possible"):
        bitpack.decode(data, 4, 1 << 40)
    with pytest.raises(ValueError, match="count is None"):
        bitpack.decode(data, 4)
    for bits in (0, 17, -1):
        with pytest.raises(ValueError, match=f"{bits} bits a value"):
            bitpack.encode(np.zeros(8, np.uint16), bits)
        with pytest.raises(ValueError, match=f"{bits} bits a value"):
            bitpack.decode(data, bits, 10)
    with pytest.raises(ValueError, match=r"9 bits a value, 1\.\.8 are allowed"):
        bitpack.decode(bytes(9), 9, 8, np.uint8)
    with pytest.raises(TypeError, match="U8, U16, not I32"):
        bitpack.decode(data, 4, 10, np.int32)
    with pytest.raises(TypeError, match="uint16 is asked for"):
        bitpack.decode(data, 4, 10, np.uint16, np.empty(10, np.uint8))


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    data, told = (GOLDEN / f"{name}.bin").read_bytes(), GOLDENS[name]
    for read in (bitpack.decode, oracle.unpack):
        values = np.asarray(read(data, told["bits"], told["count"]), np.uint16)
        assert hashlib.sha256(values.tobytes()).hexdigest() == told["sha256"]


def fastest(runs, rounds):
    """The shortest time of each, interleaved."""
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(some) for name, some in times.items()}


@MEASURES
@pytest.mark.parametrize("count", [1 << 20, 1 << 24])
@pytest.mark.parametrize(("dtype", "bits"), WIDTHS)
def test_figures(dtype, bits, count):
    """Speed beside a copy of the unpacked array into a warm buffer, one thread; decode into a warm buffer as well."""
    values = values_of(dtype, bits, count)
    data, out = bitpack.encode(values, bits, threads=1), np.empty_like(values)
    runs = {
        "copy": lambda: np.copyto(out, values),
        "encode": lambda: bitpack.encode(values, bits, threads=1),
        "decode": lambda: bitpack.decode(data, bits, out=out, threads=1),
    }
    took = fastest(runs, 30 if count < 1 << 22 else 6)
    told = ", ".join(f"{name} {took['copy'] / took[name]:.2f}" for name in ("encode", "decode"))
    print(f"\n{np.dtype(dtype)} {bits} bits, {count}: copy {values.nbytes / took['copy'] / 1e9:.1f} GB/s, of it {told}")
