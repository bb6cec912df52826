"""Outliers and low-rank terms: their oracles, goldens, what they buy, and parts that are wrong.

Goldens are written once and never again: golden.json tells the SHA-256 of what is dequantized.
"""

import dataclasses
import hashlib
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor import FormatError, formats
from tersor.formats import LowRank, Outliers

HERE = pathlib.Path(__file__).parent
EXAMPLE = np.array([[0.5, -1, 0.25, 0, 1, 0.75, -0.5, -0.25, 0.125, -0.75]], np.float32)
DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32}
GOLDENS = [
    (kind, name)
    for kind in ("outliers", "low_rank")
    for name in json.loads((HERE / kind / "golden" / "golden.json").read_text())
]


@pytest.fixture(scope="module")
def terms(load):
    """A kind's name -> its reader in plain NumPy, written from the page."""
    return {kind: load(f"tests/formats/{kind}/oracle.py") for kind in ("outliers", "low_rank")}


def arbitrary_outliers(rng, rows, columns, dtype):
    mask = rng.random((rows, columns)) < rng.random((rows, 1)) ** 4
    return Outliers.of_mask(rng.standard_normal((rows, columns)).astype(np.float32), mask, values=dtype)


def arbitrary_low_rank(rng, rows, columns, dtype):
    rank = int(rng.integers(1, min(rows, columns, 5) + 1))
    if dtype == "int8":
        u, v = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((rows, rank), (rank, columns)))
        return LowRank((rows, columns), u, v, *rng.standard_normal((2, rank)).astype(np.float16))
    u, v = (rng.standard_normal(shape).astype(DTYPES[dtype]) for shape in ((rows, rank), (rank, columns)))
    return LowRank((rows, columns), u, v)


MAKERS = [
    *[("outliers", arbitrary_outliers, dtype) for dtype in ("fp16", "bf16", "fp32")],
    *[("low_rank", arbitrary_low_rank, dtype) for dtype in ("fp16", "bf16", "int8")],
]
each_maker = pytest.mark.parametrize(("kind", "make", "dtype"), MAKERS, ids=[f"{m[0]}-{m[2]}" for m in MAKERS])


@each_maker
def test_the_oracle_agrees_and_undo_takes_away(terms, kind, make, dtype):
    rng = np.random.default_rng(1)
    for rows, columns in [(1, 1), (3, 7), (5, 257), (4, 600), *([(2, 70_000)] if kind == "outliers" else [])]:
        term = make(rng, rows, columns, dtype)
        matrix = rng.standard_normal((rows, columns)).astype(np.float32)
        want = terms[kind].add(term.parts(), matrix)
        assert term.apply(matrix.copy()).tobytes() == want.tobytes()
        np.testing.assert_allclose(term.undo(want.copy()), matrix, atol=1e-3 if dtype == "int8" else 1e-5)
        back = type(term).from_dict(term.to_dict(), term.parts(), (rows, columns))
        assert back.apply(matrix.copy()).tobytes() == want.tobytes()


@each_maker
def test_files_bring_back_every_bit(kind, make, dtype, tmp_path):
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((5, 70)).astype(np.float32)
    term = make(rng, 5, 70, dtype)
    q = tersor.quantize(weights, "int4-g32", side_terms=[term], transforms=[formats.Hadamard(3)])
    assert q.nbytes == sum(part.nbytes for part in (*q.parts.values(), *term.parts().values()))
    for suffix in (".tsr", ".safetensors"):
        q.save(tmp_path / f"weight{suffix}")
        back = formats.QuantizedTensor.load(tmp_path / f"weight{suffix}")
        assert back.dequantize().tobytes() == q.dequantize().tobytes()


def refused(make, kind, parts, shape, text, oracle):
    with pytest.raises((FormatError, ValueError), match=text):
        make.from_dict({}, parts, shape)
    with pytest.raises(oracle.RefusedError):
        oracle.add(parts, np.zeros(shape, np.float32))


def test_outliers_that_are_wrong_are_refused(terms):
    parts = arbitrary_outliers(np.random.default_rng(3), 6, 40, "fp16").parts()
    count = len(parts["columns"])
    assert count > 3

    def changed(name, at, value):
        wrong = parts[name].copy()
        wrong[at] = value
        return {**parts, name: wrong}

    full = int(np.flatnonzero(np.diff(parts["row_starts"]) > 1)[0])
    first = int(parts["row_starts"][full])
    for text, wrong in [
        ("row_starts: from 1", changed("row_starts", 0, 1)),
        (f"to {count + 1}, 0 to {count} is needed", changed("row_starts", -1, count + 1)),
        ("row_starts: ", changed("row_starts", 3, 2**32 - 1)),
        ("below 40", changed("columns", count - 1, 40)),
        ("columns ascend", changed("columns", first + 1, parts["columns"][first])),
        ("part values: number", changed("values", 1, np.nan)),
        ("part values: number", changed("values", 1, np.inf)),
        ("part columns is I32", {**parts, "columns": parts["columns"].astype(np.int32)}),
        ("part columns is U32", {**parts, "columns": parts["columns"].astype(np.uint32)}),
        (r"part values is F16 \[", {**parts, "values": parts["values"][1:]}),
        ("part row_starts is", {**parts, "row_starts": parts["row_starts"][1:]}),
        ("outliers are fp32, fp16, bf16", {**parts, "values": parts["values"].astype(np.float64)}),
        ("are needed", {name: parts[name] for name in ("columns", "values")}),
        ("are needed", {**parts, "stray": parts["values"]}),
    ]:
        refused(Outliers, "outliers", wrong, (6, 40), text, terms["outliers"])
    with pytest.raises(ValueError, match="are needed"):
        Outliers.from_dict({"share": 1}, parts, (6, 40))


def test_low_rank_terms_that_are_wrong_are_refused(terms):
    rng = np.random.default_rng(4)
    u, v = rng.integers(-9, 9, (6, 2)).astype(np.int8), rng.integers(-9, 9, (2, 40)).astype(np.int8)
    scales = np.ones(2, np.float16)
    parts = {"u": u, "v": v, "u_scales": scales, "v_scales": scales}
    floats = {"u": u.astype(np.float16), "v": v.astype(np.float16)}
    bad = np.array([1, np.nan], np.float16)
    for text, wrong in [
        ("part u_scales: number 1", {**parts, "u_scales": bad}),
        ("part v_scales: number 1", {**parts, "v_scales": bad}),
        ("part u_scales is missing", {"u": u, "v": v}),
        ("part u_scales is not one", {**floats, "u_scales": scales}),
        ("part v is I8", {**floats, "v": v}),
        ("part u is", {**parts, "u": u[:, :1]}),
        ("part v is", {**parts, "v": v[:, 1:]}),
        ("rank 7", {"u": np.ones((6, 7), np.float16), "v": np.ones((7, 40), np.float16)}),
        ("rank 0", {"u": np.ones((6, 0), np.float16), "v": np.ones((0, 40), np.float16)}),
        ("part u: number 0", {**floats, "u": np.full((6, 2), np.inf, np.float16)}),
        ("part v: number 0", {**floats, "v": np.full((2, 40), np.nan, np.float16)}),
        ("low-rank terms are fp16, bf16, int8", {"u": u.astype(np.float32), "v": v.astype(np.float32)}),
        ("is needed", {**floats, "v": v[0]}),
        ("are needed", {"u": u}),
    ]:
        refused(LowRank, "low_rank", wrong, (6, 40), text, terms["low_rank"])


def test_outliers_kept_apart_spare_the_scales():
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((64, 512)).astype(np.float32)
    large = rng.random(weights.shape) < 0.004
    weights[large] *= 50
    plain = tersor.quantize(weights, "int4-g128")
    apart = tersor.quantize(weights, "int4-g128", side_terms=[Outliers.fit(weights, 0.005)])
    assert apart.errors["weights"] < plain.errors["weights"] / 3
    assert apart.bits_per_weight - plain.bits_per_weight == pytest.approx(0.005 * 32 + 32 / 512, rel=0.03)
    left = Outliers.fit(weights - plain.dequantize(), 0.005)
    mended = dataclasses.replace(plain, side_terms=(left,))
    assert mended.relative_error(weights) < plain.errors["weights"]


def test_the_largest_are_taken_and_of_those_alike_the_first():
    matrix = np.array([[1, -3, 3, 0], [3, 2, -3, 0]], np.float32)
    term = Outliers.fit(matrix, 3 / 8)
    assert term.row_starts.tolist() == [0, 2, 3]
    assert term.columns.tolist() == [1, 2, 0]
    assert Outliers.fit(matrix, 0).values.size == 0
    assert Outliers.fit(matrix, 1).values.size == 6  # zeros are worth nothing
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="a share is in"):
            Outliers.fit(matrix, share)
    with pytest.raises(ValueError, match="has NaN in column 3"):
        Outliers.fit(np.array([[1, 2, 3, np.nan]], np.float32), 0.5)
    with pytest.raises(ValueError, match="beyond what fp16 holds"):
        Outliers.fit(matrix * 1e6, 0.5)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "int8"])
def test_a_term_of_full_rank_leaves_little(dtype):
    rng = np.random.default_rng(6)
    matrix = (rng.standard_normal((40, 3)) @ rng.standard_normal((3, 90))).astype(np.float32)
    term = LowRank.fit(matrix, 3, dtype=dtype)
    off = np.linalg.norm(matrix - term.apply(np.zeros_like(matrix))) / np.linalg.norm(matrix)
    assert off < {"fp16": 5e-4, "bf16": 4e-3, "int8": 1e-2}[dtype]
    for rank in (0, 41):
        with pytest.raises(ValueError, match=r"1\.\.40 are possible"):
            LowRank.fit(matrix, rank)
    with pytest.raises(ValueError, match="not 'fp32'"):
        LowRank.fit(matrix, 1, dtype="fp32")


def test_the_examples_of_the_pages(root):
    page = (root / "docs/formats/outliers.md").read_text()
    for name, part in Outliers.fit(EXAMPLE, 0.3).parts().items():
        assert f"{name:12}{part.tobytes().hex(' ')} " in page
    page = (root / "docs/formats/low_rank.md").read_text()
    u, v = np.array([[2], [-1]], np.int8), np.array([[1, 0, -3]], np.int8)
    term = LowRank((2, 3), u, v, np.array([0.5], np.float16), np.array([0.25], np.float16))
    for row in term.apply(np.zeros((2, 3), np.float32)):
        assert "    " + " ".join(f"{w:g}" for w in row) + "\n" in page
    for name, part in term.parts().items():
        assert f"{name} {part.tobytes().hex(' ')}" in page


@pytest.mark.parametrize(("kind", "name"), GOLDENS)
def test_goldens_stay_readable(kind, name):
    folder = HERE / kind / "golden"
    told = json.loads((folder / "golden.json").read_text())[name]
    tensors = formats.load_file(folder / name)
    assert set(tensors) == set(told)
    for tensor, digest in told.items():
        assert {term.kind for term in tensors[tensor].side_terms} == {kind}
        assert hashlib.sha256(tensors[tensor].dequantize().tobytes()).hexdigest() == digest


@pytest.mark.parametrize("kind", ["outliers", "low_rank"])
def test_bad_files_are_refused(kind):
    folder = HERE / kind / "bad"
    texts = json.loads((folder / "bad.json").read_text())
    assert {path.name for path in folder.glob("*.safetensors")} == set(texts)
    for name, text in texts.items():
        with pytest.raises(FormatError) as raised:
            formats.load_file(folder / name)
        assert text in str(raised.value), name


def test_every_golden_is_told_of():
    for kind in ("outliers", "low_rank"):
        names = {path.name for path in (HERE / kind / "golden").glob("v*")}
        assert names == {name for of, name in GOLDENS if of == kind}
