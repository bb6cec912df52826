"""Chunks of numbers (methods 5 to 12) against the decoder written from the page, inside whole .tsr files."""

import numpy as np
import pytest

import tersor

DTYPES = (
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float64",
    "float32",
    "float16",
    "bool",
)
LAWS = ("rows", "sorted", "few", "multiples", "runs", "sparse", "bits", "extremes", "decimals", "points")


def numbers(law, dtype, count):
    """[count] of a dtype: what telemetry, indices, masks and unpacked measurements look like."""
    rng = np.random.default_rng(count)
    place = np.arange(count)
    values = {
        "rows": lambda: 40 * np.sin(place % 100 / 9) + 30 * np.cos(place // 100 / 7) + rng.standard_normal(count),
        "sorted": lambda: np.cumsum(rng.integers(0, 7, count)),
        "few": lambda: rng.integers(0, 2**62, 50)[rng.integers(0, 50, count)],
        "multiples": lambda: 40 * rng.integers(-3000, 3000, count),
        "runs": lambda: np.repeat(rng.integers(0, 2**31, count // 20 + 1), 20)[:count],
        "sparse": lambda: np.where(rng.random(count) < 0.05, rng.integers(1, 2**40, count), 0),
        "bits": lambda: rng.integers(-(2**63), 2**63 - 1, count),
        "extremes": lambda: np.where(
            rng.random(count) < 0.2, rng.choice([-(2**63), 2**63 - 1], count), rng.integers(-3, 3, count)
        ),
        "decimals": lambda: rng.integers(-9999, 9999, count),
        "points": lambda: np.stack([rng.integers(0, most, count) + most for most in (300, 30, 2)], 1).reshape(-1)[
            :count
        ],
    }[law]()
    if dtype.startswith("float"):
        if law in ("bits", "extremes"):
            return values.view(dtype)[:count].copy()
        return (np.rint(values) / 100 if law in ("rows", "decimals", "points") else values).astype(dtype)
    if dtype == "bool":
        return values.astype(np.int64) % 3 == 0
    return np.rint(values).astype(np.int64).astype(dtype)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("count", [1, 30, 20_001])
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_the_oracle_reads_what_we_write(oracle, container, law, dtype, level, count):
    array = numbers(law, dtype, count)
    coded = tersor.compress(array, level=level)
    file = container.read(coded)
    assert file.read(0, {2: oracle.decode_chunk, **container.STORED}) == array.tobytes()
    assert tersor.decompress(coded).tobytes() == array.tobytes()


def test_complex_numbers_are_pairs_of_floats():
    rng = np.random.default_rng(1)
    array = (rng.standard_normal(50_000) + 1j * rng.standard_normal(50_000)).astype(np.complex64)
    assert tersor.decompress(tersor.compress(array)).tobytes() == array.tobytes()
    floats = len(tersor.compress(array.view(np.float32)))
    assert abs(len(tersor.compress(array)) - floats) <= 64
