"""Subsets as numbers against math.comb: all of small n, random ones of large n, to the last of 128 bits."""

import itertools
import math
import os
import time

import numpy as np
import pytest

from tersor.entropy import combination

MEASURES = pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 runs it")


def number_of(positions):
    return sum(math.comb(int(position), i + 1) for i, position in enumerate(positions))


def test_all_subsets_of_small_n():
    for n, k in ((most, k) for most in range(13) for k in range(most + 1)):
        subsets = sorted(itertools.combinations(range(n), k), key=number_of)
        rows = np.array(subsets, np.int64).reshape(len(subsets), k)
        assert combination.count(n, k) == len(subsets)
        assert combination.encode(rows, n).tolist() == list(range(len(subsets)))
        np.testing.assert_array_equal(combination.decode(np.arange(len(subsets)), n, k), rows)
        for i in {0, len(subsets) // 2, len(subsets) - 1}:
            assert combination.encode(rows[i], n) == i
            assert combination.decode(i, n, k).tolist() == list(subsets[i])


# The table's limit lies between; the last ones fill 64 and 128 bits nearly.
LARGE = [(20, 10), (67, 33), (68, 34), (131, 65), (130, 40), (128, 127), (5000, 10), (5000, 12), (10**6, 3), (10**5, 8)]
LARGE += [(2**32 + 15, 4), (2**63, 1), (2**63, 2), (2**64 // 3, 2), (200, 199), (2**40, 2**40 - 2)]


@pytest.mark.parametrize(("n", "k"), [pair for pair in LARGE if pair[1] < 2**20])
def test_random_numbers_of_large_n(n, k):
    total = math.comb(n, k)
    assert combination.count(n, k) == total
    rng = np.random.default_rng(k)
    numbers = [0, 1, total - 1, total // 2, *(int.from_bytes(rng.bytes(16), "little") % total for _ in range(20))]
    for number in numbers:
        positions = combination.decode(number, n, k)
        assert (np.diff(positions) > 0).all()
        assert positions[0] >= 0
        assert positions[-1] < n
        assert number_of(positions) == number
        assert combination.encode(positions, n) == number
    rows = np.array([combination.decode(number, n, k) for number in numbers])
    coded = combination.encode(rows, n, threads=2)
    assert coded.dtype == np.uint64
    told = coded.tolist() if coded.ndim == 1 else [low | high << 64 for low, high in coded.tolist()]
    assert (coded.ndim == 1) == (total <= 2**64)
    assert told == numbers
    np.testing.assert_array_equal(combination.decode(coded, n, k), rows)


def test_counts_up_to_128_bits():
    for n, k in LARGE:
        assert combination.count(n, k) == math.comb(n, min(k, n - k))
    assert combination.count(131, 65).bit_length() == 128
    assert combination.count(3, 4) == 0
    for n in range(132):
        for k in range(n + 1):
            assert combination.count(n, k) == math.comb(n, k)
    for n, k in ((132, 66), (1000, 500), (2**63, 3), (2**63, 2**62)):
        with pytest.raises(ValueError, match=rf"C\({n}, {k}\) takes about \d+ bits, at most 128 are allowed"):
            combination.count(n, k)
    with pytest.raises(ValueError, match="about 995 bits"):
        combination.encode(np.arange(500), 1000)
    assert math.comb(1000, 500).bit_length() == 995


def test_bad_positions_are_named():
    rows = np.tile([1, 4, 7], (600, 1))
    for wrong, why in ((4, "is not above the 4 before it"), (8, "is not below 8"), (-1, "is not below 8")):
        rows[500, 2] = wrong
        with pytest.raises(ValueError, match=f"^position {wrong} at place 2 of row 500 {why}"):
            combination.encode(rows, 8)
    with pytest.raises(ValueError, match="subsets of 3 among 2"):
        combination.encode(np.array([0, 1, 2]), 2)
    with pytest.raises(ValueError, match="position 18446744073709551615 is not below 8"):
        combination.encode(np.array([0, 2**64 - 1], np.uint64), 8)
    with pytest.raises(TypeError, match="integers, not float64"):
        combination.encode(np.array([0.0, 1.0]), 8)
    with pytest.raises(ValueError, match="shape"):
        combination.encode(np.zeros((1, 1, 1), np.int64), 8)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match=r"index 70 of row 0, below C\(8, 4\) = 70 is needed"):
        combination.decode(70, 8, 4)
    with pytest.raises(ValueError, match="index 70 of row 2"):
        combination.decode(np.array([0, 69, 70]), 8, 4)
    for number in (-1, 2**64, 2**200):
        with pytest.raises(ValueError, match=rf"index {number} is not in 0\.\.C\(8, 4\) - 1 = 69"):
            combination.decode(number, 8, 4)
    with pytest.raises(ValueError, match="found -1"):
        combination.decode(np.array([-1]), 8, 4)
    with pytest.raises(ValueError, match=r"shape \[rows, 2\]"):
        combination.decode(np.zeros(4, np.uint64), 100, 50)
    with pytest.raises(ValueError, match=r"shape \[rows\]"):
        combination.decode(np.zeros((4, 2), np.uint64), 8, 4)
    with pytest.raises(TypeError, match="integers, not float64"):
        combination.decode(np.zeros(3), 8, 4)
    with pytest.raises(ValueError, match="more than memory holds"):
        combination.decode(0, 1 << 50, (1 << 50) - 1)
    with pytest.raises(ValueError, match="subsets of 9 among 8"):
        combination.decode(0, 8, 9)


@MEASURES
@pytest.mark.parametrize(("n", "k"), [(4, 2), (8, 4), (32, 8), (128, 16), (128, 48)])
def test_figures(n, k):
    """Rows a second on one thread."""
    rows = np.sort(np.random.default_rng(0).random((200_000, n)).argpartition(k, axis=1)[:, :k], axis=1)
    coded = combination.encode(rows, n)
    speed = {}
    for name, run in {
        "encode": lambda: combination.encode(rows, n, threads=1),
        "decode": lambda: combination.decode(coded, n, k, threads=1),
    }.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        speed[name] = len(rows) / min(times) / 1e6
    told = ", ".join(f"{name} {value:.1f} M rows/s" for name, value in speed.items())
    print(f"\n{k} of {n}, {coded.ndim * 64} bits: {told}")
