"""Sets of tables against the builder written from the page, against real distributions, and on other compilers."""

import copy
import math
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import time

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import Table, TableSet

TABLE_HASH = "3d484719061d6520"
FAMILIES = ["gaussian", "laplace", "logistic"]


def scales_q16(scales):
    return [round(scale * 65536) for scale in scales]


def equal(tables, built):
    fractions = 1 << built.fraction_bits
    assert tables.fractions == fractions
    assert len(tables) * fractions == len(built.tables)
    assert tables.offsets.tolist() == [table.low for table in built.tables]
    for number, table in enumerate(built.tables):
        assert tables.frequencies(*divmod(number, fractions)).tolist() == table.frequencies, number


@pytest.mark.parametrize("family", [*FAMILIES, "student_t"])
@pytest.mark.parametrize(("precision", "fractions"), [(16, 1), (12, 4)])
def test_the_oracle_builds_the_same_tables(indexed_oracle, family, precision, fractions):
    scales, freedom = [1 / 256, 0.11, 0.5, 3.3, 41, 256], 3.5
    given = [[(1, 0, scale, 896 if family == "student_t" else 0)] for scale in scales_q16(scales)]
    built = indexed_oracle.build(family, given, precision, fractions.bit_length() - 1)
    more = (freedom,) if family == "student_t" else ()
    equal(getattr(TableSet, family)(scales, *more, precision, fractions=fractions), built)


def test_the_oracle_builds_the_same_mixtures(indexed_oracle):
    weights = [[0.5, 0.25, 0.25, 1e-4], [1, 2, 3, 4], [1, 0, 0, 0]]
    means = [[-3.3, 0, 700.25, 5], [0, 0.5, 0.25, -0.125], [9, 9, 9, 9]]
    scales = [[1, 4, 2, 0.2], [0.3, 0.3, 10, 100], [2, 1, 1, 1]]
    rows = [
        [(round(w * 65536), round(m * 65536), round(s * 65536), 0) for w, m, s in zip(*row, strict=True)]
        for row in zip(weights, means, scales, strict=True)
    ]
    built = indexed_oracle.build("gaussian", rows, 16, 1)
    equal(TableSet.mixture(weights, means, scales, fractions=2), built)


def test_the_oracle_rounds_pmfs_alike(indexed_oracle):
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 300, 65536):
        pmf = rng.exponential(1, count) ** 4 * (rng.random(count) < 0.8)
        pmf[count // 2] += 1
        tail = float(rng.random() * 0.1)
        exponent = math.frexp(max(*pmf, tail))[1]
        factor = 2.0 ** (46 - (count + 1).bit_length() - exponent)
        masses = [round(float(p) * factor) for p in pmf]
        for precision in (16, 13):
            want = indexed_oracle.rounded(-5, masses, round(tail * factor), precision)
            equal(TableSet.from_pmfs([pmf], [-5], precision, tails=[tail]), indexed_oracle.TableSet(0, [want]))


def test_bytes_are_read_alike(indexed_oracle):
    sets = [
        TableSet.gaussian(np.geomspace(0.11, 256, 20), fractions=2),
        TableSet.from_pmfs([[0.5, 0, 0, 0.5], [1], np.ones(65536)], [0, -(2**31), 2**31 - 65537]),
        TableSet.from_cdfs([[0, 4096, 12288, 16384]], offsets=[-1], precision=14),
        TableSet.from_cdfs([[0, 4096]], precision=12, escape=False),
    ]
    for tables in sets:
        equal(tables, indexed_oracle.parse_set(tables.to_bytes()))
        assert TableSet.from_bytes(tables.to_bytes()) == tables
        assert hash(TableSet.from_bytes(tables.to_bytes())) == hash(tables)


@pytest.mark.parametrize(("scale", "precision"), [(900, 16), (4000, 16), (8192, 16), (900, 13)])
def test_wide_tables_are_built_alike(indexed_oracle, scale, precision):
    built = indexed_oracle.build("logistic" if precision == 16 else "gaussian", [[(1, 0, scale << 16, 0)]], precision)
    equal((TableSet.logistic if precision == 16 else TableSet.gaussian)([scale], precision), built)


def test_flat_pmfs_keep_the_greatest(indexed_oracle):
    for pmf, tail, precision in [
        (np.ones(5000), 0.0, 12),
        (np.ones(65536), 1.0, 16),
        (1 + 0.01 * (np.arange(65536) * 40503 % 65536) / 65536, 0.0, 16),
    ]:
        tables = TableSet.from_pmfs([pmf], precision=precision, tails=[tail])
        frequencies = tables.frequencies(0) >> (16 - precision)
        assert (frequencies > 0).sum() == 1 << precision
        exponent = math.frexp(max(*pmf, tail))[1]
        factor = 2.0 ** (46 - (pmf.size + 1).bit_length() - exponent)
        masses = [round(float(p) * factor) for p in pmf]
        want = indexed_oracle.rounded(0, masses, round(tail * factor), precision)
        equal(tables, indexed_oracle.TableSet(0, [want]))


def test_tables_are_pickled_and_copied():
    tables = TableSet.gaussian([1, 2], fractions=2)
    assert pickle.loads(pickle.dumps(tables)) == copy.deepcopy(tables) == tables
    table = Table.from_counts([1, 2, 3])
    assert pickle.loads(pickle.dumps(table)) == table
    assert TableSet.from_bytes(bytearray(tables.to_bytes())) == tables


def test_the_example_of_the_page(indexed_oracle):
    tables = TableSet.from_cdfs([[0, 4096, 12288, 16384]], offsets=[-1], precision=14)
    assert tables.to_bytes().hex(" ") == "04 01 0e 00 01 01 8e 00 02 00 14 00 04 00 0c 00"
    assert tables.frequencies(0).tolist() == [16384, 32768, 16384]


# ---- the real distributions -----------------------------------------------------------------------------------------


def upper_tail(family, x):
    if family == "gaussian":
        return 0.5 * math.erfc(x / math.sqrt(2))
    if family == "laplace":
        return 0.5 * math.exp(-x)
    return math.exp(-x) / (1 + math.exp(-x))


def excess(family, scale, tables, index):
    """Entropy of the real distribution, and what its symbols cost above it, in bits; escapes as the stream has them."""
    frequencies, low = tables.frequencies(index), int(tables.offsets[index])
    count, entropy, cost = frequencies.size - 1, 0.0, 0.0
    order = max(0, count.bit_length() - 4)
    for k in range(math.ceil(40 * scale) + 40):
        p = upper_tail(family, (k - 0.5) / scale) - upper_tail(family, (k + 0.5) / scale)
        if k == 0:
            p = 1 - 2 * upper_tail(family, 0.5 / scale)
        if p <= 0:
            break
        times = 2 if k else 1
        u = k - low
        bits = 16 - math.log2(frequencies[min(u, count)])
        if u >= count:
            bits += 2 + order + 2 * math.floor(math.log2(((u - count) >> order) + 1))
        entropy -= times * p * math.log2(p)
        cost += times * p * bits
    return entropy, cost - entropy


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_lose_next_to_nothing(family):
    scales = [0.11, 0.15, 0.25, 0.5, 1, 2, 5, 12, 33, 100, 256]
    tables = getattr(TableSet, family)(scales)
    for index, scale in enumerate(scales_q16(scales)):
        entropy, loss = excess(family, scale / 65536, tables, index)
        assert -1e-9 <= loss <= max(0.0005, 0.0003 * entropy), (scale / 65536, loss)


def test_fractions_move_the_mean():
    """With four fractions every table is the Gaussian around its own quarter."""
    tables = TableSet.gaussian([0.7, 9], fractions=4)
    for index, scale in enumerate((0.7, 9)):
        for fraction in range(4):
            frequencies = tables.frequencies(index, fraction)[:-1]
            symbols = int(tables.offsets[4 * index + fraction]) + np.arange(frequencies.size)
            want = statistics.NormalDist(fraction / 4, round(scale * 65536) / 65536)
            for symbol, frequency in zip(symbols.tolist(), frequencies.tolist(), strict=True):
                p = want.cdf(symbol + 0.5) - want.cdf(symbol - 0.5)
                assert abs(frequency - 65536 * p) < 1.6 + 0.001 * frequency


def test_means_are_rounded_to_fractions():
    tables = TableSet.gaussian([1.0], fractions=8)
    assert tables.quantize_means([0.0, 0.0625, 0.1875, -0.3, 100.124]).tolist() == [0, 0, 2, -2, 801]
    with pytest.raises(ValueError, match="means are finite"):
        tables.quantize_means([math.nan])


@pytest.mark.skipif("TERSOR_MEASURE" not in os.environ, reason="set TERSOR_MEASURE=1 (and give pytest -s) to measure")
def test_speed_of_building():
    scales = np.geomspace(0.11, 256, 64)
    makers = {
        "gaussian": lambda: TableSet.gaussian(scales),
        "gaussian, 8 fractions": lambda: TableSet.gaussian(scales, fractions=8),
        "laplace": lambda: TableSet.laplace(scales),
        "logistic": lambda: TableSet.logistic(scales),
        "student_t, 3 degrees": lambda: TableSet.student_t(scales, 3.0),
        "mixture of 4": lambda: TableSet.mixture(
            np.ones((64, 4)), np.tile([0, 1, 5, 9], (64, 1)), np.tile(scales[:, None], (1, 4))
        ),
        "from_pmfs": lambda: TableSet.from_pmfs([np.ones(500)] * 64),
    }
    for name, make in makers.items():
        tables, seconds = make(), []
        for _ in range(7):
            start = time.perf_counter()
            make()
            seconds.append(time.perf_counter() - start)
        entries = sum(tables.frequencies(i, f).size for i in range(len(tables)) for f in range(tables.fractions))
        print(f"\n{name}: {entries} entries, {entries / statistics.median(seconds) / 1e6:.1f} M entries/s", end="")
        assert entries / min(seconds) > 1e6


# ---- calls and bytes that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TableSet.gaussian([]), "0 tables"),
        (lambda: TableSet.gaussian([0.001]), "a scale of 0.001"),
        (lambda: TableSet.gaussian([math.inf]), "scales are finite"),
        (lambda: TableSet.gaussian([9000]), "1/256..8192"),
        (lambda: TableSet.gaussian([-1.0]), "scales are finite, from 0 to"),
        (lambda: TableSet.gaussian([8192.0], 12), "too wide for a precision of 12"),
        (lambda: TableSet.gaussian([8192.0] * 600), "over 16777216 symbols"),
        (lambda: TableSet.from_pmfs([np.r_[1, np.zeros(65534), 1]] * 20), "over 1048576 symbols without a slot"),
        (lambda: TableSet.gaussian([[1.0]]), "one dimension"),
        (lambda: TableSet.gaussian([1.0] * 4097), "4097 tables"),
        (lambda: TableSet.gaussian([1.0], 11), "12..16"),
        (lambda: TableSet.gaussian([1.0], fractions=3), "1, 2, 4, 8 or 16"),
        (lambda: TableSet.student_t([1.0], 0.5), "degrees of freedom are 0.5"),
        (lambda: TableSet.mixture([[1] * 5], [[0] * 5], [[1] * 5]), "1..4"),
        (lambda: TableSet.mixture([[0, 0]], [[0, 0]], [[1, 1]]), "weights sum to 0"),
        (lambda: TableSet.mixture([[1, 1]], [[0]], [[1, 1]]), "one shape"),
        (lambda: TableSet.mixture([[1, 1]], [[-32768, 32767]], [[1, 1]]), "apart"),
        (lambda: TableSet.mixture([[1]], [[0]], [[1]], family="cauchy"), "family is one of"),
        (lambda: TableSet.from_pmfs([]), "0 tables"),
        (lambda: TableSet.from_pmfs([[]]), "no symbol"),
        (lambda: TableSet.from_pmfs([[0.0, 0.0]]), "no symbol"),
        (lambda: TableSet.from_pmfs([[0.5, -0.1]]), "probability 1 is -0.1"),
        (lambda: TableSet.from_pmfs([[0.5, math.nan]]), "probability 1 is"),
        (lambda: TableSet.from_pmfs([np.ones(65537)]), "65537 symbols"),
        (lambda: TableSet.from_pmfs([[1.0]], [1, 2]), "2 offsets for 1"),
        (lambda: TableSet.from_pmfs([[1.0]], [2**31]), "offsets have 32 bits"),
        (lambda: TableSet.from_pmfs([[1.0]], tails=[1, 2]), "tails have shape"),
        (lambda: TableSet.from_cdfs([[0, 5, 65536]], [4]), "size 4"),
        (lambda: TableSet.from_cdfs([[0, 7, 5, 65536]]), "does not rise"),
        (lambda: TableSet.from_cdfs([[0, 7, 1 << 40]]), "found 0 to 1099511627776"),
        (lambda: TableSet.from_cdfs([np.zeros(0, int)]), "size 0, 1 to its length"),
        (lambda: TableSet.from_cdfs([[0, 7, 65535]]), "does not rise from 0 to 65536: it goes from 0 to 65535"),
        (lambda: TableSet.from_cdfs([[0, 65536]]), "cdf 0 has 2 values, 3 are needed"),
        (lambda: TableSet.from_cdfs([[-5, 7, 65536]]), "does not rise from 0 to 65536: it goes from -5"),
    ],
)
def test_wrong_parameters_are_told_of(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_floats_are_no_cdfs():
    with pytest.raises(TypeError, match="cdfs are integers"):
        TableSet.from_cdfs([[0.0, 1.0]])


def test_damaged_bytes_are_refused_by_both_readers_alike(indexed_oracle):
    data = TableSet.from_pmfs([[0.5, 0.25, 0, 0.25], [3, 1]], [-7, 100], 12).to_bytes()
    changed = [data[:cut] for cut in range(len(data))]
    changed += [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :] for bit in range(8 * len(data))
    ]
    refused = 0
    for bad in changed:
        try:
            want = indexed_oracle.parse_set(bad)
        except indexed_oracle.RefusedError:
            refused += 1
            with pytest.raises(FormatError):
                TableSet.from_bytes(bad)
        else:
            equal(TableSet.from_bytes(bad), want)
    assert refused > len(changed) // 2


# ---- other compilers ------------------------------------------------------------------------------------------------

PLAIN = ["-O1", "-ffp-contract=off"]
FUSED = ["-O2", "-mavx2", "-mfma", "-ffp-contract=fast"]
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 and FMA are x86's")


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        pytest.param("g++", FUSED, marks=needs_x86, id="gcc fused"),
        pytest.param("clang++-14", PLAIN, id="clang plain"),
        pytest.param("clang++-14", FUSED, marks=needs_x86, id="clang fused"),
    ],
)
def test_every_compiler_builds_the_same_tables(root, tmp_path, compiler, flags):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    sources = ["distribution", "table_set", "table", "bit_io"]
    command = [compiler, "-std=c++20", *flags, f"-I{root / 'csrc'}", "-o", str(tmp_path / "hash")]
    command += [str(root / "csrc" / "entropy" / f"{name}.cpp") for name in sources]
    command += [str(root / "csrc" / "core" / "error.cpp"), str(root / "tests" / "entropy" / "table_hash.cpp")]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "hash"], capture_output=True, text=True, check=True).stdout.strip() == TABLE_HASH
