"""Several matrices, experts, rows and codes through the NumPy door, beside `linear` and what was packed."""

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor import gemm

FORMATS = [
    "int1-g128", "ternary", "int2-g64", "int3-g128-zero", "int4-g32", "int4-g128", "int5-g128-minimum", "int6-g128",
    "int8", "nf4", "mxfp4", "nvfp4", "mxfp6", "fp8-e4m3", "q4_k", "codebook16-tensor",
]  # fmt: skip


def matrices(shapes, fmt="int4-g32", seed=0):
    random = np.random.default_rng(seed)
    return [tersor.quantize(random.standard_normal(shape, np.float32), fmt) for shape in shapes]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(48, 192), (33, 300), (1, 1)], ids=str)
def test_rows_and_codes_come_back(name, shape):
    (q,) = matrices([shape], name)
    packed = gemm.PackedMatrix.of(q)
    np.testing.assert_array_equal(packed.codes(q.format), q.parts["codes"])
    ids = np.array([[0, shape[0] - 1], [shape[0] // 2, 0]])
    for dtype in np.float32, np.float16, ml_dtypes.bfloat16:
        rows = packed.rows(ids, dtype)
        assert rows.shape == (2, 2, shape[1])
        np.testing.assert_array_equal(rows, q.dequantize(dtype)[ids])
    np.testing.assert_array_equal(packed.rows(0), q.dequantize()[0])
    assert packed.rows(np.zeros((0, 3), np.int32)).shape == (0, 3, shape[1])


def test_many_are_each_alone():
    random = np.random.default_rng(1)
    packed = [gemm.PackedMatrix.of(q) for q in matrices([(64, 96), (16, 96), (33, 96)])]
    packed.append(gemm.PackedMatrix.of(matrices([(40, 96)], "int8")[0]))
    x = random.standard_normal((2, 3, 96), np.float32)
    bias = [None, random.standard_normal(16, np.float32), None, random.standard_normal(40).astype(np.float16)]
    for activations in "int8", "int8-g128":
        many = gemm.linear_many(x, packed, bias, activations=activations)
        for y, one, added in zip(many, packed, bias, strict=True):
            np.testing.assert_array_equal(y, gemm.linear(x, one, added, activations=activations))
    assert gemm.linear_many(x, []) == []


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_experts_beside_a_loop(dtype, tokens):
    random = np.random.default_rng(2)
    packed = [gemm.PackedMatrix.of(q) for q in matrices([(48, 64)] * 6)]
    bias = [random.standard_normal(48, np.float32) for _ in packed]
    x = random.standard_normal((tokens, 64)).astype(dtype)
    experts = random.integers(0, 5, (tokens, 3))  # nobody goes to the last
    for added in None, bias:
        y = gemm.linear_experts(x, packed, experts, added)
        assert y.shape == (tokens, 3, 48)
        assert y.dtype == dtype
        for token, slot in np.ndindex(experts.shape):
            e = experts[token, slot]
            alone = gemm.linear(x[token], packed[e], None if added is None else added[e])
            np.testing.assert_array_equal(y[token, slot], alone)
    assert gemm.linear_experts(x[:0], packed, experts[:0]).shape == (0, 3, 48)


def test_a_quantized_tensor_is_packed_once():
    (q,) = matrices([(8, 64)])
    x = np.ones((2, 64), np.float32)
    assert gemm.packed_of(q) is gemm.packed_of(q)
    np.testing.assert_array_equal(tersor.linear(x, q), gemm.linear(x, gemm.PackedMatrix.of(q)))


def test_what_is_refused():
    packed = [gemm.PackedMatrix.of(q) for q in matrices([(8, 64), (8, 64), (9, 64)])]
    x = np.zeros((2, 64), np.float32)
    for call, error, text in [
        (lambda: gemm.linear(x, x), TypeError, "found ndarray"),
        (lambda: gemm.linear_many(x, packed, [None]), ValueError, "1 biases for 3 matrices"),
        (lambda: gemm.linear_many(x[:, :63], packed), ValueError, r"x is \[2, 63\]"),
        (lambda: gemm.linear_experts(x, [], np.zeros((2, 1), int)), ValueError, "at least one matrix"),
        (lambda: gemm.linear_experts(x, packed, np.zeros((2, 1), int)), ValueError, r"expert 2 is \[9, 64\]"),
        (lambda: gemm.linear_experts(x, packed[:2], np.zeros((3, 1), int)), ValueError, r"\[3, 1\], \[2, 'slots'\]"),
        (lambda: gemm.linear_experts(x, packed[:2], np.array([[0], [2]])), IndexError, r"expert 2: experts are 0\.\.1"),
        (lambda: gemm.linear_experts(x, packed[:2], np.array([[0.0], [1]])), TypeError, "experts are integers"),
        (lambda: packed[0].rows([1, 8]), IndexError, r"id 8: rows are 0\.\.7"),
        (lambda: packed[0].rows(-1), IndexError, r"id -1: rows are 0\.\.7"),
        (lambda: packed[0].rows([0.5]), TypeError, "ids are integers"),
        (lambda: packed[0].rows([0], np.int32), TypeError, "not int32"),
    ]:
        with pytest.raises(error, match=text):
            call()
    one = gemm.PackedMatrix.of(tersor.quantize(np.ones((8, 64), np.float32), "W4A16"))
    with pytest.raises(ValueError, match="several activations, exact, int8: choose one"):
        gemm.linear_many(x, [packed[0], one])
