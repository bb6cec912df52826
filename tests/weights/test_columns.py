"""Solvers by columns beside GPTQ as its paper has it, in double precision, and what each of them promises."""

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.weights import GPTQ, CoordinateDescent, MissingStatisticsError, Nearest

FORMATS = [
    "int2-g32", "int3-g64", "int4-g128", "int4-g32-zero", "int8", "ternary", "mxfp4", "nvfp4", "nf4", "fp8-e4m3",
    "codebook16-channel", "codebook6-tensor", "codebook100-channel", "q4_k",
]  # fmt: skip


def inputs(tokens, columns, seed=0):
    """Correlated ones, some columns far larger than others."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((tokens, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    return ((mixed + 0.5 * mixed[:, :1]) * np.exp(random.standard_normal(columns))).astype(np.float32)


def statistics_of(x):
    found = Statistics(x.shape[1])
    found.update(x)
    return found


def matrix(rows, columns, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def output_error(q, weight, x):
    """Squared error of the layer's outputs over its inputs."""
    return float(np.square(x.astype(np.float64) @ (q.dequantize(np.float32) - weight).T.astype(np.float64)).sum())


def paper(weight, levels, hessian, order):
    """Algorithm 1 of GPTQ with given levels [N, K, L]: the inverse's Cholesky factor, columns one by one."""
    work, places = weight.astype(np.float64), np.asarray(order)
    upper = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(places, places)])).T
    found = np.empty_like(work)
    for place, k in enumerate(places):
        here = levels[:, k]
        found[:, k] = here[np.arange(len(work)), np.abs(here - work[:, k, None]).argmin(1)]
        error = (work[:, k] - found[:, k]) / upper[place, place]
        work[:, places[place:]] -= np.outer(error, upper[place, place:])
    return found


@pytest.mark.parametrize("order", ["activations", "columns"])
def test_gptq_is_the_paper_s(order):
    """Of most rows every weight; a rounding that the precision of floats decides changes all that follow in its row."""
    weight, x = matrix(64, 96), inputs(400, 96)
    statistics = statistics_of(x)
    q = GPTQ(order=order).solve(weight, "int4-g32", statistics)
    scales = q.parts["scales"].astype(np.float64).repeat(32, 1)
    levels = scales[:, :, None] * np.arange(-8, 8)
    hessian = statistics.hessian.astype(np.float64)
    places = np.argsort(-np.diag(hessian), kind="stable") if order == "activations" else np.arange(96)
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(96)
    want = paper(weight, levels, hessian, places)
    same = np.isclose(q.dequantize(np.float32), want, rtol=1e-5, atol=1e-6).all(1)
    assert same.mean() > 0.9
    off = want - weight
    assert output_error(q, weight, x) == pytest.approx(np.square(x.astype(np.float64) @ off.T).sum(), rel=0.01)


@pytest.mark.parametrize("name", FORMATS)
def test_each_step_lowers_the_error_of_the_outputs(name):
    weight, x = matrix(48, 256), inputs(600, 256)
    statistics = statistics_of(x)
    nearest = Nearest(clip="mse").solve(weight, name, statistics)
    gptq = GPTQ().solve(weight, name, statistics)
    descent = CoordinateDescent(clip="mse").solve(weight, name, statistics)
    errors = [output_error(q, weight, x) for q in (nearest, gptq, descent)]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < errors[1]
    for q in (gptq, descent):
        assert q.nbytes == nearest.nbytes
        assert q.format == nearest.format
        for part, array in nearest.parts.items():  # scales are those that were chosen before
            if part != "codes":
                np.testing.assert_array_equal(q.parts[part], array)


def test_no_row_is_worse_after_descent_than_before():
    """Few tokens, so that damping weighs much: it is no part of what descent lowers."""
    weight, x = matrix(400, 24), inputs(30, 24)
    statistics = statistics_of(x)
    before, after = (solver.solve(weight, "int2-g32", statistics) for solver in (GPTQ(), CoordinateDescent(clip="mse")))
    errors = [np.square(x.astype(np.float64) @ (q.dequantize(np.float32) - weight).T).sum(0) for q in (before, after)]
    assert (errors[1] <= errors[0] * (1 + 1e-5)).all()
    assert errors[1].sum() < 0.99 * errors[0].sum()


def test_codes_to_begin_from_are_checked_and_left_alone():
    weight, statistics = matrix(8, 64), statistics_of(inputs(100, 64))
    q = GPTQ().solve(weight, "int4-g32", statistics)
    codes = q.format.symbols(q.parts, q.shape)["codes"]
    given = (weight, q.parts, statistics.hessian, np.arange(64, dtype=np.uint32))
    strided = np.asfortranarray(codes)
    found, _ = q.format.choose(*given, codes=strided, passes=2)
    np.testing.assert_array_equal(strided, codes)
    np.testing.assert_array_equal(found, q.format.choose(*given, codes=codes, passes=2)[0])
    for bad, text in ((codes[:4], r"uint8 \[4, 64\]"), (codes.astype(np.int64), "int64"), (codes + 16, "code")):
        with pytest.raises(ValueError, match=text):
            q.format.choose(*given, codes=bad, passes=1)


def test_tensors_of_torch_are_solved_as_arrays_are():
    torch = pytest.importorskip("torch")
    weight, statistics = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).bfloat16().T, Statistics(64)
    statistics.update(inputs(100, 64))
    q = GPTQ().solve(weight, "int4-g32", statistics)
    same = GPTQ().solve(weight.float().numpy(), "int4-g32", statistics)
    assert q.dtype == "BF16"
    np.testing.assert_array_equal(q.parts["codes"], same.parts["codes"])


@pytest.mark.parametrize("solver", [GPTQ(clip="none"), CoordinateDescent(clip="none")])
@pytest.mark.parametrize("name", ["int4-g32", "int3-g64", "nf4", "mxfp4", "int1-g64", "ternary"])
def test_columns_that_do_not_move_each_other_are_rounded_to_nearest(solver, name):
    weight = matrix(33, 70)
    found = Statistics(70)
    found.update(np.diag(np.linspace(0.5, 3, 70)).astype(np.float32))
    got, want = solver.solve(weight, name, found), tersor.quantize(weight, name)
    np.testing.assert_array_equal(got.dequantize(np.float32), want.dequantize(np.float32))


@pytest.mark.parametrize("solver", [GPTQ(), CoordinateDescent(passes=3)])
def test_the_number_of_threads_changes_nothing(solver):
    weight, statistics = matrix(100, 130), statistics_of(inputs(300, 130))
    one, three = (solver.solve(weight, "int3-g64", statistics, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.parts["codes"], three.parts["codes"])


@pytest.mark.parametrize("solver", [GPTQ(damping=0.0), CoordinateDescent(damping=0.0), GPTQ()])
def test_few_tokens_and_columns_that_no_input_reaches(solver):
    """No Cholesky factor: damping grows until there is one."""
    weight, x = matrix(20, 128), inputs(10, 128)
    x[:, ::3] = 0
    q = solver.solve(weight, "int4-g32", statistics_of(x))
    assert np.isfinite(q.dequantize(np.float32)).all()
    assert output_error(q, weight, x) < output_error(tersor.quantize(weight, "int4-g32", clip="mse"), weight, x)
    nothing = Statistics(128)
    nothing.update(np.zeros((3, 128), np.float32))
    assert solver.solve(weight, "int4-g32", nothing).relative_error(weight) < 0.12


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (33, 192)])
def test_any_shape(shape):
    weight, statistics = matrix(*shape), statistics_of(inputs(50, shape[1]))
    for solver in (GPTQ(), CoordinateDescent(), Nearest()):
        q = solver.solve(weight, "int8-g64", statistics)
        assert q.shape == shape
        assert q.errors["weights"] < 0.05


def test_the_dtype_of_the_weights_is_kept():
    weight = matrix(8, 64).astype(np.float16)
    q = GPTQ().solve(weight, "int4-g32", statistics_of(inputs(100, 64)))
    assert q.dtype == "F16"
    assert q.dequantize().dtype == np.float16


def test_what_cannot_be_solved_is_refused():
    weight, statistics = matrix(8, 64), statistics_of(inputs(100, 64))
    for given in (None, Statistics(64)):
        with pytest.raises(MissingStatisticsError, match="one token or more"):
            GPTQ().solve(weight, "int4-g32", given)
    with pytest.raises(ValueError, match="statistics of 64 columns for a matrix of 63"):
        CoordinateDescent().solve(weight[:, :63].copy(), "int4-g32", statistics)
    with pytest.raises(TypeError, match="a format with a code a weight is needed"):
        GPTQ().solve(weight, "vq-d8-k256-s2", statistics)
    bad = weight.copy()
    bad[3, 5] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        GPTQ().solve(bad, "int4-g32", statistics)
    huge = Statistics(64)
    huge.update(np.full((2, 64), 3e30, np.float32))
    with pytest.raises(ValueError, match="statistics are not finite"):
        GPTQ().solve(weight, "int4-g32", huge)
    for options, text in {
        ("order", "rows"): "order is one of activations, columns, not 'rows'",
        ("damping", 1.5): r"damping is in \[0, 1\], not 1.5",
        ("clip", "max"): "clip is one of none, mse, hessian, search, not 'max'",
    }.items():
        for solver in (GPTQ, CoordinateDescent):
            with pytest.raises(ValueError, match=text):
                solver(**dict([options]))
    with pytest.raises(ValueError, match="passes are 1 or more, not 0"):
        CoordinateDescent(passes=0)
