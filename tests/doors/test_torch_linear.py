"""torch.ops.tersor.linear and its like: as the NumPy door, gradients beside dense, opcheck, torch.compile, overhead."""

import os
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor  # noqa: E402
import tersor.nn  # noqa: E402
import tersor.torch  # noqa: E402
from tersor import gemm  # noqa: E402
from tersor.torch.low_bit import NO_BIAS  # noqa: E402

OPS = torch.ops.tersor


def packed(rows, columns=96, seed=0, fmt="int4-g32"):
    weight = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    return gemm.PackedMatrix.of(tersor.quantize(weight, fmt))


def dense(matrix):
    return torch.from_numpy(matrix.rows(np.arange(matrix.shape[0])))


def normal(*shape, seed=1, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(**options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_bits_are_those_of_the_numpy_door(dtype):
    matrix, x, bias = packed(40), normal(2, 3, 96, dtype=dtype), normal(40)
    y = tersor.torch.linear(x, matrix, bias)
    assert y.dtype == dtype
    want = gemm.linear(x, matrix, bias)
    np.testing.assert_array_equal(y.float().numpy(), want.astype(np.float32))
    assert torch.equal(tersor.linear(x, matrix, bias), y)
    assert torch.equal(tersor.torch.linear(x, matrix, bias, activations="int8"), y)
    x[0, 0, 5] = 100  # what int8-outlier keeps apart
    for activations in tersor.formats.format.ACTIVATIONS:
        y = tersor.torch.linear(x, matrix, bias, activations=activations)
        want = gemm.linear(x, matrix, bias, activations=activations)
        np.testing.assert_array_equal(y.float().numpy(), want.astype(np.float32))
    wide, tokens = packed(40, 256), normal(3, 256, dtype=dtype)
    by_groups = tersor.torch.linear(tokens, wide, activations="int8-g128")
    assert not torch.equal(by_groups, tersor.torch.linear(tokens, wide))
    want = gemm.linear(tokens, wide, activations="int8-g128")
    np.testing.assert_array_equal(by_groups.float().numpy(), want.astype(np.float32))


def test_strides_and_no_tokens():
    matrix = packed(40)
    wide = normal(96, 8)
    assert torch.equal(tersor.torch.linear(wide.T, matrix), tersor.torch.linear(wide.T.contiguous(), matrix))
    bias = normal(80)[::2]
    assert torch.equal(tersor.torch.linear(wide.T, matrix, bias), tersor.torch.linear(wide.T, matrix, bias.clone()))
    assert tersor.torch.linear(wide.T[:0], matrix).shape == (0, 40)
    assert tersor.torch.linear(wide[:, 0], matrix).shape == (40,)
    ids = torch.arange(12).reshape(3, 4).T
    assert torch.equal(tersor.torch.packed_rows(matrix, ids), dense(matrix)[ids])


def test_many_and_experts_and_rows():
    several = [packed(40, seed=i) for i in range(4)]
    x, bias = normal(5, 96), [None, normal(40), None, None]
    many = tersor.torch.linear_many(x, [*several, packed(7)], [*bias, None])
    for y, one, added in zip(many, [*several, packed(7)], [*bias, None], strict=True):
        assert torch.equal(y, tersor.torch.linear(x, one, added))
    assert tersor.torch.linear_many(x, []) == []
    for dtype in torch.int32, torch.int64:
        experts = torch.tensor([[0, 3], [1, 1], [2, 0], [3, 2], [0, 1]], dtype=dtype)
        y = tersor.torch.linear_experts(x, several, experts, bias)
        for token in range(5):
            for slot in range(2):
                e = int(experts[token, slot])
                assert torch.equal(y[token, slot], tersor.torch.linear(x[token], several[e], bias[e]))
        rows = tersor.torch.packed_rows(several[0], experts, torch.bfloat16)
        assert torch.equal(rows, dense(several[0]).to(torch.bfloat16)[experts.long()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_dense_matrix(dtype, monkeypatch):
    monkeypatch.setattr("tersor.torch.operators._BLOCK", 96 * 7)  # several blocks
    several = [packed(40, seed=i) for i in range(3)]
    experts = torch.tensor([[0, 2], [2, 2], [0, 2], [2, 0]])
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-1}

    def gradients(run):
        x = normal(4, 96, dtype=dtype).requires_grad_()
        biases = [normal(40, seed=5 + i, dtype=dtype).requires_grad_() for i in range(3)]
        y = run(x, biases)
        y.backward(normal(*y.shape, seed=9, dtype=dtype))
        return [x.grad, *[bias.grad for bias in biases if bias.grad is not None]]

    weights = [dense(one).to(dtype) for one in several]
    for ours, theirs in [
        (
            lambda x, b: tersor.torch.linear(x, several[0], b[0]),
            lambda x, b: torch.nn.functional.linear(x, weights[0], b[0]),
        ),
        (
            lambda x, b: torch.cat(tersor.torch.linear_many(x, several, [b[0], None, b[2]]), -1),
            lambda x, b: torch.nn.functional.linear(x, torch.cat(weights), torch.cat([b[0], 0 * b[0].detach(), b[2]])),
        ),
        (
            lambda x, b: tersor.torch.linear_experts(x, several, experts, b),
            lambda x, b: torch.stack([torch.stack([x[m] @ weights[e].T + b[e] for e in chosen])
                                      for m, chosen in enumerate(experts.tolist())]),
        ),
    ]:  # fmt: skip
        got, want = gradients(ours), gradients(theirs)
        if len(want) < len(got):  # an expert to which nobody goes has a gradient of zeros here
            assert not got.pop(2).any()
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other, **close)


def test_no_gradient_is_asked_for():
    matrix = packed(40)
    with torch.no_grad():
        assert not tersor.torch.linear(normal(1, 96).requires_grad_(), matrix).requires_grad
    assert tersor.torch.linear(normal(1, 96).requires_grad_(), matrix).requires_grad
    assert tersor.torch.linear(normal(1, 96), matrix, normal(40).requires_grad_()).requires_grad


def test_opcheck():
    held, other = tersor.torch.packed_tensor(packed(40)), tersor.torch.packed_tensor(packed(40, seed=1))
    x, bias = normal(3, 96).requires_grad_(), normal(40).requires_grad_()
    experts = torch.tensor([[0], [1], [0]])
    check = torch.library.opcheck
    check(OPS.linear.default, (x, held.data, bias, 40, 0))
    check(OPS.linear.default, (x.detach().T.contiguous().T, held.data, NO_BIAS, 40, 1))
    check(OPS.linear_forward.default, (x.detach(), held.data, NO_BIAS, 40, 0))
    check(OPS.linear_many.default, (x, [held.data, other.data], [bias, NO_BIAS], [40, 40], 0))
    check(OPS.linear_experts.default, (x, [held.data, other.data], [bias, NO_BIAS], experts, 40, 0))
    check(OPS.packed_rows.default, (held.data, experts, 96, torch.bfloat16))
    check(OPS.linear_backward.default, (normal(3, 40), held.data, 96))
    check(OPS.linear_experts_backward.default, (normal(3, 1, 40), [held.data, other.data], experts, 96))


def test_compiled_whole():
    held = tersor.torch.packed_tensor(packed(40))

    @torch.compile(fullgraph=True)
    def through(x, data, ids):
        y = OPS.linear(x * 2, data, NO_BIAS, 40, 0).relu()
        a, b = OPS.linear_many(x.T.contiguous().T, [data, data], [NO_BIAS, NO_BIAS], [40, 40], 0)
        return y, a + b, OPS.packed_rows(data, ids, 96, torch.float32) + 1

    ids = torch.tensor([3, 1])
    for tokens in 3, 5, 6:
        x = normal(tokens, 96)
        y, twice, rows = through(x, held.data, ids)
        assert torch.equal(y, tersor.torch.linear(x * 2, packed(40)).relu())
        assert torch.equal(twice, 2 * tersor.torch.linear(x, packed(40)))
        assert torch.equal(rows, dense(packed(40))[ids] + 1)
    x = normal(3, 96).requires_grad_()
    through(x, held.data, ids)[0].sum().backward()
    want = normal(3, 96).requires_grad_()
    tersor.torch.linear(want * 2, packed(40)).relu().sum().backward()
    torch.testing.assert_close(x.grad, want.grad)


def test_clones_serve_and_views_that_begin_elsewhere_do_not():
    matrix = packed(40)
    held = tersor.torch.packed_tensor(matrix)
    assert held.data.data_ptr() == matrix.data.ctypes.data
    x = normal(1, 96)
    assert torch.equal(OPS.linear(x, held.data.clone(), NO_BIAS, 40, 0), tersor.torch.linear(x, matrix))
    shifted = torch.cat([torch.zeros(8, dtype=torch.uint8), held.data])[8:]
    with pytest.raises(RuntimeError, match="begins 8 bytes behind a multiple of 64"):
        OPS.linear(x, shifted, NO_BIAS, 40, 0)


def test_what_is_refused():
    matrix = packed(40)
    data, x = tersor.torch.packed_tensor(matrix).data, normal(2, 96)
    ids, e = torch.tensor([1]), torch.zeros((2, 1), dtype=torch.int64)
    for call, text in [
        (lambda: OPS.linear(x.double(), data, NO_BIAS, 40, 0), "x: F32, F16 or BF16 is needed, found F64"),
        (lambda: OPS.linear(x[:, 1:], data, NO_BIAS, 40, 0), "x has 95 columns, the matrix has 96"),
        (lambda: OPS.linear(torch.tensor(1.0), data, NO_BIAS, 40, 0), r"x: \[..., K\] is needed"),
        (lambda: OPS.linear(x, data, normal(41), 40, 0), "bias has 41 elements, the matrix has 40 rows"),
        (lambda: OPS.linear(x, data, normal(40).int(), 40, 0), "bias: F32, F16 or BF16 is needed, found I32"),
        (lambda: OPS.linear(x, data, NO_BIAS, 41, 0), "rows: 41 are given, the matrix has 40"),
        (lambda: OPS.linear(x, data, NO_BIAS, 40, 9), "activations: 9 is not the number"),
        (lambda: OPS.linear(x, data.view(torch.int8), NO_BIAS, 40, 0), "packed: U8 and contiguous needed, found I8"),
        (lambda: OPS.linear(x, data[:-64], NO_BIAS, 40, 0), "packed matrix"),
        (lambda: OPS.linear_many(x, [data], [], [40], 0), "1 matrices, 0 biases and 1 numbers of rows"),
        (lambda: OPS.linear_experts(x, [data], [], e[:1], 40, 0), r"experts: \[1, 1\] for x \[2, 96\]"),
        (lambda: OPS.linear_experts(x, [data], [], e + 1, 40, 0), r"expert 1 at 0: experts are 0\.\.0"),
        (lambda: OPS.linear_experts(x, [data], [], e.float(), 40, 0), "experts: I32 or I64 is needed, found F32"),
        (lambda: OPS.packed_rows(data, ids + 39, 96, torch.float32), r"id 40 at 0: rows are 0\.\.39"),
        (lambda: OPS.packed_rows(data, ids - 2, 96, torch.float32), r"id -1 at 0: rows are 0\.\.39"),
        (lambda: OPS.packed_rows(data, ids, 95, torch.float32), "columns: 95 are given, the matrix has 96"),
        (lambda: OPS.packed_rows(data, ids, 96, torch.int32), "dtype: F32, F16 or BF16 is needed, found I32"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            call()
    with pytest.raises(ValueError, match="activations are int8, int8-g128"):
        tersor.torch.linear(x, matrix, activations="int7")
    with pytest.raises(TypeError, match="a QuantizedTensor or a PackedMatrix is needed, found float"):
        tersor.torch.linear(x, 1.0)
    with pytest.raises(TypeError, match="found Tensor"):
        tersor.linear(x, x)


@pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 pytest -s -k overhead")
def test_overhead_of_a_call():
    """A 64x64 matrix, one token, one thread: what a call takes beyond the native one, at most 10 us."""
    matrix = packed(64, 64)
    held, x, weight = tersor.torch.packed_tensor(matrix), normal(1, 64), dense(matrix)
    plain, y = x.numpy(), np.empty((1, 64), np.float32)
    product = (matrix.data.ctypes.data, matrix.nbytes, "F32", 0, 0, 0, 0, y.ctypes.data, y.nbytes)
    layer = tersor.nn.QuantLinear(tersor.nn.PackedWeight(tersor.quantize(np.ones((64, 64), np.float32), "int4-g32")))

    def micros(call):
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(500):
                call()
            best = min(best, (time.perf_counter() - start) / 500)
        return 1e6 * best

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            native = micros(
                lambda: tersor._core.gemm_linear("F32", plain.ctypes.data, 1, 64, [product], "int8", 1)
            ) - micros(lambda: plain.ctypes.data)
            for name, call in {
                "torch.ops.tersor.linear_forward": lambda: OPS.linear_forward(x, held.data, NO_BIAS, 64, 0),
                "torch.ops.tersor.linear": lambda: OPS.linear(x, held.data, NO_BIAS, 64, 0),
                "tersor.torch.linear": lambda: tersor.torch.linear(x, matrix),
                "tersor.linear, torch": lambda: tersor.linear(x, matrix),
                "tersor.linear, NumPy": lambda: tersor.linear(plain, matrix),
                "QuantLinear": lambda: layer(x),
                "torch.nn.functional.linear, dense": lambda: torch.nn.functional.linear(x, weight),
            }.items():
                took = micros(call)
                print(f"{name}: {took:.2f} us, {took - native:.2f} over the kernel's {native:.2f}")
                assert took - native < 10
    finally:
        torch.set_num_threads(before)
