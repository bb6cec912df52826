"""Rotations, channel scales and permutations: bit for bit with their oracle, back again, and beside x.

Goldens are written once and never again: golden.json tells the SHA-256 of what is dequantized.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tersor
from tersor import FormatError, formats
from tersor.formats import ChannelScales, Hadamard, Permutation

GOLDEN = pathlib.Path(__file__).parent / "hadamard" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
WIDTHS = [1, 2, 3, 4, 6, 8, 12, 14, 20, 24, 28, 36, 40, 48, 56, 64, 100, 192, 269, 320, 448, 512, 768, 4304]


@pytest.fixture(scope="module")
def oracle(load):
    """The rotation in plain NumPy, written from the page."""
    return load("tests/formats/hadamard/oracle.py")


@pytest.mark.parametrize("columns", WIDTHS)
def test_rotations_are_those_of_the_page(oracle, columns):
    matrix = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
    for seed in (None, 0, 1, 2**64 - 1):
        rotation = Hadamard(seed)
        turned = rotation.apply(matrix)
        assert turned.tobytes() == oracle.rotate(matrix, seed, False).tobytes()
        assert rotation.undo(matrix).tobytes() == oracle.rotate(matrix, seed, True).tobytes()
        np.testing.assert_allclose(rotation.undo(turned), matrix, atol=4e-6)
        np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(matrix, axis=1), rtol=1e-5)


@pytest.mark.parametrize("columns", [8, 12, 20, 28, 24, 48, 96, 112, 160])
def test_a_block_is_a_hadamard_matrix(columns):
    whole = Hadamard(None).apply(np.eye(columns, dtype=np.float32)) * np.sqrt(columns)
    np.testing.assert_allclose(np.abs(whole), 1, atol=1e-5)
    np.testing.assert_allclose(whole @ whole.T, columns * np.eye(columns), atol=1e-3)


def test_blocks_where_there_is_no_matrix(oracle):
    assert oracle.layout(4304) == (16, 1)
    matrix = np.zeros((1, 4304), np.float32)
    matrix[0, 40] = 1
    assert np.flatnonzero(Hadamard(5).apply(matrix)).tolist() == list(range(32, 48))
    assert (np.abs(Hadamard(5).apply(np.ones((1, 269), np.float32))) == 1).all()


@pytest.mark.parametrize("make", [
    lambda rng, k: Hadamard(int(rng.integers(1 << 62))),
    lambda rng, k: ChannelScales(np.exp(rng.standard_normal(k)).astype(np.float32)),
    lambda rng, k: ChannelScales(-np.exp(rng.standard_normal(k)).astype(np.float16)),
    lambda rng, k: Permutation(rng.permutation(k)),
])  # fmt: skip
def test_x_has_a_counterpart(make):
    rng = np.random.default_rng(1)
    for columns in (1, 12, 70, 128):
        transform = make(rng, columns)
        x, weights = (rng.standard_normal((n, columns)).astype(np.float32) for n in (3, 5))
        kept = weights.copy()
        stored = transform.apply(weights)
        np.testing.assert_allclose(transform.inputs(x) @ stored.T, x @ weights.T, atol=1e-4)
        np.testing.assert_allclose(transform.undo(stored), weights, rtol=1e-5, atol=4e-6)
        assert weights.tobytes() == kept.tobytes()
        back = type(transform).from_dict(transform.to_dict(), transform.parts(), (5, columns))
        assert back.apply(weights).tobytes() == stored.tobytes()


def test_a_rotation_spreads_outliers():
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((64, 768)).astype(np.float32)
    weights[:, rng.choice(768, 8, replace=False)] *= 30
    plain = tersor.quantize(weights, "int4-channel")
    turned = tersor.quantize(weights, "int4-channel", transforms=[Hadamard()])
    assert turned.nbytes == plain.nbytes
    # Beside the columns that were turned up, the others come back better.
    small = np.abs(weights).max(axis=0) < 6
    off = [np.linalg.norm((q.dequantize() - weights)[:, small]) for q in (plain, turned)]
    assert off[1] < off[0] / 2


def test_files_bring_back_every_bit(tmp_path):
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((5, 84)).astype(np.float32)
    transforms = [
        ChannelScales(np.exp(rng.standard_normal(84)).astype(np.float16)),
        Permutation(rng.permutation(84)),
        Hadamard(2**63 + 5),
    ]
    q = tersor.quantize(weights, "int8-channel", transforms=transforms)
    assert q.errors["weights"] < 0.05
    assert q.nbytes == sum(part.nbytes for part in q.parts.values()) + 84 * (2 + 4)
    for suffix in (".tsr", ".safetensors"):
        q.save(tmp_path / f"weight{suffix}")
        back = formats.QuantizedTensor.load(tmp_path / f"weight{suffix}")
        assert [one.kind for one in back.transforms] == ["channel_scales", "permutation", "hadamard"]
        assert back.dequantize().tobytes() == q.dequantize().tobytes()


def test_what_is_no_transform_is_refused():
    for seed in (-1, 2**64, 1.5, "0", True):
        with pytest.raises(ValueError, match="a seed is None or in"):
            Hadamard(seed)
    for numbers, parts in [({}, {}), ({"seed": 0, "more": 1}, {}), ({"seed": 0}, {"x": np.zeros(4, np.float32)})]:
        with pytest.raises(ValueError, match="a seed and no parts"):
            Hadamard.from_dict(numbers, parts, (3, 4))
    scales = np.ones(4, np.float32)
    for bad in (0, np.nan, np.inf):
        wrong = scales.copy()
        wrong[2] = bad
        with pytest.raises(FormatError, match=f"number 2 is {bad:g}|number 2 is 0.0"):
            ChannelScales(wrong)
    for wrong in (scales.astype(np.float64), scales[None]):
        with pytest.raises(ValueError, match="float32 or float16"):
            ChannelScales(wrong)
    order = np.arange(4, dtype=np.uint32)
    for kind, name, part in ((ChannelScales, "scales", scales), (Permutation, "order", order)):
        for parts in ({}, {"other": part}, {name: part[:3]}, {name: part.astype(np.int64)}, {name: part, "x": part}):
            with pytest.raises(FormatError, match=f"{name} .*is needed"):
                kind.from_dict({}, parts, (3, 4))
        with pytest.raises(ValueError, match="there are no numbers"):
            kind.from_dict({"seed": 1}, {name: part}, (3, 4))
        with pytest.raises(ValueError, match="4"):
            kind(part).apply(np.ones((2, 5), np.float32))
    with pytest.raises(FormatError, match="has column 1 twice, again at place 3"):
        Permutation(np.array([0, 1, 2, 1], np.uint32))
    with pytest.raises(FormatError, match="a permutation of 4 columns has 4 at place 1"):
        Permutation(np.array([0, 4, 2, 1], np.uint32))
    for wrong in ([0, 1, 2, 4], [0, -1, 2, 1]):
        with pytest.raises(ValueError, match="an order of 4 columns has"):
            Permutation(np.array(wrong))
    with pytest.raises(ValueError, match="integers"):
        Permutation(np.array([0.0, 1.0]))


PRINT_ALL = """
import hashlib, numpy as np
from tersor.formats import Hadamard
for columns in (7, 64, 84, 192, 4096):
    turned = Hadamard(9).apply(np.random.default_rng(1).standard_normal((33, columns)).astype(np.float32))
    print(hashlib.sha256(turned.tobytes()).hexdigest())
"""


def test_machines_and_threads_decide_nothing(isa_levels):
    told = {
        subprocess.run(
            [sys.executable, "-c", PRINT_ALL],
            capture_output=True, text=True, check=True,
            env={**os.environ, "TERSOR_ISA": level, "TERSOR_NUM_THREADS": threads},
        ).stdout
        for level, threads in [*((level, "1") for level in isa_levels), ("scalar", "3")]
    }  # fmt: skip
    assert len(told) == 1
    assert told != {""}


def test_the_example_of_the_page(root):
    page = (root / "docs/formats/hadamard.md").read_text()
    rows = np.array([[1, 2, 3, 4], [1, 0, 0, 0]], np.float32)
    for row, turned in zip(rows, Hadamard(0).apply(rows), strict=True):
        assert f"{' '.join(f'{w:g}' for w in row)} becomes {' '.join(f'{w:g}' for w in turned)}" in page


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(name):
    tensors = formats.load_file(GOLDEN / name)
    assert {tensor: hashlib.sha256(q.dequantize().tobytes()).hexdigest() for tensor, q in tensors.items()} == (
        GOLDENS[name]
    )
    assert {one.kind for q in tensors.values() for one in q.transforms} == {"hadamard", "channel_scales", "permutation"}


def test_bad_files_are_refused():
    folder = GOLDEN.parent / "bad"
    texts = json.loads((folder / "bad.json").read_text())
    assert {path.name for path in folder.glob("*.safetensors")} == set(texts)
    for name, text in texts.items():
        with pytest.raises(FormatError) as raised:
            formats.load_file(folder / name)
        assert text in str(raised.value), name


def test_every_golden_is_told_of():
    assert {path.name for path in GOLDEN.glob("v*")} == set(GOLDENS)
