"""Five proofs of every family: oracle, round trip, golden, bad input, determinism.

A family is a folder of tests/formats with case.py and oracle.py. case.py has ALIASES, alias -> the most relative error
of Gaussian weights [48, 640], and damaged(numbers, parts) -> pairs of a text in the error and parts that are wrong.
oracle.py has decode(numbers, parts, rows, columns), RefusedError and expected(numbers, rows, columns), name -> dtype
and shape; packed(...) where codes lie packed; and, where the page says what our writer does, encode(numbers, weights).
case.py may have arbitrary(rng, numbers, expected, rows, columns): any parts that the page allows, codes a byte each.
Goldens are written once and never again: golden.json tells of each the SHA-256 of what is dequantized.
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tersor
from tersor import FormatError, formats
from tersor.lossless import NUMPY_DTYPES

HERE = pathlib.Path(__file__).parent


@functools.cache
def case_of(family):
    spec = importlib.util.spec_from_file_location(f"case_{family}", HERE / family / "case.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAMILIES = sorted(path.parent.name for path in HERE.glob("*/case.py"))
CASES = [(family, alias) for family in FAMILIES for alias in case_of(family).ALIASES]
GOLDENS = [
    (family, name) for family in FAMILIES for name in json.loads((HERE / family / "golden" / "golden.json").read_text())
]
each_case = pytest.mark.parametrize(("family", "alias"), CASES, ids=[alias for _, alias in CASES])


def alike(some, others):
    """Bit for bit."""
    assert set(some) == set(others)
    for name in some:
        assert some[name].dtype == others[name].dtype, name
        assert some[name].shape == others[name].shape, name
        assert some[name].tobytes() == others[name].tobytes(), name


def decoded(oracle, q):
    with np.errstate(over="ignore"):
        matrix = oracle.decode(q.format.to_dict(), q.parts, *q.shape)
    assert matrix.dtype == np.float32
    return matrix


@each_case
def test_oracle_and_round_trip(oracles, family, alias, edges):
    for name, weights in edges.items():
        for clip in ("none", "mse"):
            q = tersor.quantize(weights, alias, clip=clip)
            want = decoded(oracles[family], q)
            assert q.dequantize(np.float32).tobytes() == want.tobytes(), name
            assert q.dequantize().dtype == weights.dtype, name
            assert q.dequantize().tobytes() == want.astype(weights.dtype).tobytes(), name
            assert q.nbytes == sum(part.nbytes for part in q.parts.values())
            parts = q.format.symbols(q.parts, q.shape)
            alike(q.format.packed(parts, q.shape), q.parts)
            if hasattr(oracles[family], "packed"):
                alike(oracles[family].packed(q.format.to_dict(), parts, *q.shape), q.parts)


@each_case
def test_our_writer_does_what_the_page_says(oracles, family, alias, edges):
    if not hasattr(oracles[family], "encode"):
        pytest.skip("the page leaves it to the writer")
    for weights in edges.values():
        want = oracles[family].encode(formats.parse(alias).to_dict(), weights.astype(np.float32))
        alike(tersor.quantize(weights, alias).parts, want)


@each_case
def test_parts_that_we_never_write(oracles, family, alias):
    oracle, fmt, rng = oracles[family], formats.parse(alias), np.random.default_rng(6)
    for rows, columns in [(1, 1), (3, 77), (5, 256), (2, 300), (1, 1025)]:
        expected = oracle.expected(fmt.to_dict(), rows, columns)
        assert {
            name: (NUMPY_DTYPES[part.dtype].name, part.shape) for name, part in fmt.parts(rows, columns).items()
        } == expected
        if not hasattr(case_of(family), "arbitrary"):
            continue
        parts = case_of(family).arbitrary(rng, fmt.to_dict(), expected, rows, columns)
        parts = oracle.packed(fmt.to_dict(), parts, rows, columns)
        q = formats.QuantizedTensor(format=fmt, shape=(rows, columns), parts=parts)
        assert q.dequantize().tobytes() == decoded(oracle, q).tobytes()


@each_case
def test_the_error_is_what_the_format_promises(family, alias, gaussian):
    plain, clipped = (tersor.quantize(gaussian, alias, clip=clip) for clip in ("none", "mse"))
    off = np.linalg.norm(plain.dequantize() - gaussian) / np.linalg.norm(gaussian)
    assert plain.errors["weights"] == pytest.approx(off, rel=1e-4)
    assert off <= case_of(family).ALIASES[alias]
    assert clipped.errors["weights"] <= plain.errors["weights"] * 1.001


@each_case
@pytest.mark.parametrize("name", ["1 x 1", "3 x 7", "halves"])
def test_files_bring_back_every_bit(read_file, family, alias, edges, name, tmp_path):
    q = tersor.quantize(edges[name], alias)
    for suffix in (".tsr", ".safetensors"):
        path = tmp_path / f"weight{suffix}"
        q.save(path)
        back = formats.QuantizedTensor.load(path)
        alike(back.parts, q.parts)
        for member in ("format", "shape", "dtype", "activations", "errors"):
            assert getattr(back, member) == getattr(q, member), member
        assert read_file(path)["weight"].tobytes() == q.dequantize().tobytes()


@pytest.mark.parametrize(("family", "name"), GOLDENS, ids=[name for _, name in GOLDENS])
def test_goldens_stay_readable(read_file, family, name):
    path = HERE / family / "golden" / name
    told = json.loads((path.parent / "golden.json").read_text())[name]
    for tensor, digest in told.items():
        matrix = formats.load_file(path)[tensor].dequantize()
        assert hashlib.sha256(matrix.tobytes()).hexdigest() == digest
    for tensor, matrix in read_file(path).items():
        assert hashlib.sha256(matrix.tobytes()).hexdigest() == told[tensor]


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_files_are_refused(family):
    told = HERE / family / "bad" / "bad.json"
    texts = json.loads(told.read_text()) if told.exists() else {}
    assert {path.name for path in (HERE / family / "bad").glob("*.*")} - {told.name} == set(texts)
    for name, text in texts.items():
        with pytest.raises(FormatError) as raised:
            formats.load_file(told.parent / name)
        assert text in str(raised.value), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_golden_is_told_of(family):
    files = {path.name for path in (HERE / family / "golden").glob("v*")}
    assert files == set(json.loads((HERE / family / "golden" / "golden.json").read_text()))


def made(q, parts):
    return formats.QuantizedTensor(format=q.format, shape=q.shape, parts=parts)


@each_case
def test_parts_that_are_wrong_are_refused(oracles, family, alias):
    weights = np.random.default_rng(3).standard_normal((3, 37)).astype(np.float32)
    q = tersor.quantize(weights, alias)
    oracle, numbers = oracles[family], q.format.to_dict()
    wrong = list(case_of(family).damaged(numbers, {name: part.copy() for name, part in q.parts.items()}))
    for name, part in q.parts.items():
        rest = {other: array for other, array in q.parts.items() if other != name}
        shape = [*part.shape[:-1], part.shape[-1] + 1]
        wrong += [
            (f"part {name} is missing", rest),
            (f"part {name} is", {**rest, name: np.zeros(shape, part.dtype)}),
            (f"part {name} is", {**rest, name: part[None]}),
            (f"part {name} is", {**rest, name: part.view(f"u{part.dtype.itemsize}").astype(np.int32)}),
        ]
    wrong.append(("part stray", {**q.parts, "stray": np.zeros(3, np.uint8)}))
    for text, parts in wrong:
        with pytest.raises(FormatError, match=text):
            made(q, parts)
        with pytest.raises(oracle.RefusedError):
            oracle.decode(numbers, parts, *q.shape)


@each_case
def test_flipped_bits_are_refused_or_read_as_the_page_says(oracles, family, alias):
    rng = np.random.default_rng(4)
    q = tersor.quantize(rng.standard_normal((3, 37)).astype(np.float32), alias)
    oracle = oracles[family]
    for _ in range(60):
        name = rng.choice(sorted(q.parts))
        part = q.parts[name].copy()
        part.reshape(-1).view(np.uint8)[rng.integers(part.nbytes)] ^= 1 << rng.integers(8)
        parts = {**q.parts, name: part}
        try:
            want = oracle.decode(q.format.to_dict(), parts, *q.shape)
        except oracle.RefusedError:
            want = None
        if want is None:
            with pytest.raises(FormatError, match=f"part {name}|{name}:"):
                made(q, parts)
        else:
            got = made(q, parts).dequantize()
            assert got.tobytes() == want.tobytes() or np.array_equal(got, want, equal_nan=True)


@each_case
def test_damaged_files_are_refused_or_read(family, alias, tmp_path):
    rng = np.random.default_rng(5)
    q = tersor.quantize(rng.standard_normal((3, 37)).astype(np.float32), alias)
    path = tmp_path / "weight.safetensors"
    q.save(path)
    data = path.read_bytes()
    for cut in rng.choice(len(data), 40, replace=False):
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError):
            formats.load_file(path)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            for tensor in formats.load_file(path).values():
                if isinstance(tensor, formats.QuantizedTensor):
                    tensor.dequantize()
        except FormatError:
            pass


@each_case
def test_threads_decide_nothing(family, alias, gaussian):
    for clip in ("none", "mse"):
        want = tersor.quantize(gaussian, alias, clip=clip, threads=1)
        for threads in (2, 7):
            q = tersor.quantize(gaussian, alias, clip=clip, threads=threads)
            alike(q.parts, want.parts)
            assert q.dequantize(threads=threads).tobytes() == want.dequantize(threads=1).tobytes()


PRINT_ALL = """
import sys, hashlib, numpy as np, tersor
weights = np.random.default_rng(1).standard_normal((9, 300)).astype(np.float32)
for alias in sys.argv[1:]:
    for clip in ("none", "mse"):
        q = tersor.quantize(weights, alias, clip=clip)
        for name, part in q.parts.items():
            print(alias, clip, name, hashlib.sha256(part.tobytes()).hexdigest())
        print(hashlib.sha256(q.dequantize().tobytes()).hexdigest())
"""


def test_instruction_sets_decide_nothing(isa_levels):
    def told(level):
        command = [sys.executable, "-c", PRINT_ALL, *(alias for _, alias in CASES)]
        environment = {**os.environ, "TERSOR_ISA": level}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    want = told("scalar")
    assert want
    for level in isa_levels[1:]:
        assert told(level) == want


@each_case
def test_numbers_come_back(family, alias):
    fmt = formats.parse(alias)
    assert fmt.family == family
    assert formats.from_dict(json.loads(json.dumps(fmt.to_dict()))) == fmt
    if "(" not in str(fmt):
        assert formats.parse(str(fmt)) == fmt
    for name in fmt.to_dict():
        numbers = fmt.to_dict()
        del numbers[name]
        with pytest.raises(ValueError, match=r"a format is|numbers of"):
            formats.from_dict(numbers)
    with pytest.raises(ValueError, match="numbers of"):
        formats.from_dict({**fmt.to_dict(), "stray": 1})


@each_case
def test_weights_that_are_no_numbers_are_refused(family, alias):
    weights = np.ones((4, 50), np.float32)
    weights[2, 17], weights[3, 4] = np.nan, -np.inf
    with pytest.raises(ValueError, match=r"2 of 200 weights are not finite, the first is nan at \[2, 17\]"):
        tersor.quantize(weights, alias)
