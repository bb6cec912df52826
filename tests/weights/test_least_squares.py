"""tersor.weights.LeastSquares: a smaller weighted error than the search of smaller ranges, for any shape."""

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.weights import LeastSquares, MissingStatisticsError

FORMATS = ("q4_0", "q4_1", "q4_k", "int3-g64", "int3-g64-minimum-bf16", "int2-g16-fp32")


def problem(rows=64, columns=512):
    random = np.random.default_rng(0)
    weight = (random.standard_t(4, (rows, columns)) * 0.02).astype(np.float32)
    return weight, np.exp(random.standard_normal(columns) * 1.5).astype(np.float32)


def error(q, weight, importance):
    """Sums of w (q - x)^2, in float64."""
    return float((np.square(q.dequantize(np.float32).astype(np.float64) - weight) * importance).sum())


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_weighted_error_falls(fmt):
    weight, importance = problem()
    ours = error(LeastSquares().fit(weight, fmt, importance), weight, importance)
    assert ours < 0.9 * error(tersor.quantize(weight, fmt, clip="mse"), weight, importance)
    grid = tersor.formats.parse(fmt)
    parts = grid.encode(weight, clip="mse", seed=0, threads=1, importance=importance)
    searched = tersor.formats.QuantizedTensor(format=grid, shape=weight.shape, parts=parts)
    if "minimums" in parts:
        assert ours < 0.9 * error(searched, weight, importance)
        assert ours < error(LeastSquares(candidates=1).fit(weight, fmt, importance), weight, importance)
    else:
        assert ours < error(searched, weight, importance)


@pytest.mark.parametrize("fmt", ["q4_0", "q4_1"])
def test_scales_a_percent_away_are_worse(fmt):
    """With the codes that were chosen."""
    weight, importance = problem()
    q = LeastSquares().fit(weight, fmt, importance)
    best = error(q, weight, importance)
    for factor in (0.99, 1.01):
        parts = {**q.parts, "scales": (q.parts["scales"] * np.float16(factor)).astype(np.float16)}
        moved = tersor.formats.QuantizedTensor(format=q.format, shape=q.shape, parts=parts)
        assert error(moved, weight, importance) > best


@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (2, 300), (5, 256)])
@pytest.mark.parametrize("fmt", FORMATS)
def test_any_shape_and_any_dtype(fmt, shape):
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float16)
    q = LeastSquares().fit(weight, fmt, np.ones(shape[1]))
    assert (q.shape, q.dtype) == (shape, "F16")
    assert q.relative_error(weight) < (0.2 if "4" in fmt else 0.6)
    zeros = LeastSquares().fit(np.zeros(shape, np.float32), fmt, np.zeros(shape[1]))
    assert not zeros.dequantize().any()


def test_statistics_give_the_diagonal():
    weight, _ = problem(8, 64)
    x = np.random.default_rng(3).standard_normal((50, 64)).astype(np.float32)
    statistics = Statistics(64)
    statistics.update(x)
    one = LeastSquares().solve(weight, "q4_0", statistics)
    two = LeastSquares().fit(weight, "q4_0", np.square(x).mean(axis=0))
    assert (one.parts["codes"] == two.parts["codes"]).mean() > 0.99


def test_what_cannot_be_fitted_is_refused():
    weight, importance = problem(8, 64)
    for fmt in ("int4-zero", "ternary", "int8", "nf4", "int4-g32-super6"):
        with pytest.raises(TypeError, match="no groups with a scale"):
            LeastSquares().fit(weight, fmt, importance)
    for fmt in ("q4_0", "q4_k"):
        for bad, text in (
            (importance[:3], r"importance is \[3\], \[64\] is needed"),
            (-importance, "importance of column 0 is -"),
            (importance * np.nan, "importance of column 0 is nan"),
        ):
            with pytest.raises(ValueError, match=text):
                LeastSquares().fit(weight, fmt, bad)
        broken = weight.copy()
        broken[3, 5] = np.nan
        with pytest.raises(ValueError, match=r"1 of 512 weights are not finite, the first is nan at \[3, 5\]"):
            LeastSquares().fit(broken, fmt, importance)
        with pytest.raises(ValueError, match="beyond what its dtype holds: bf16 and fp32 hold more"):
            LeastSquares().fit(weight * np.float32(1e10), fmt, importance)
    with pytest.raises(MissingStatisticsError):
        LeastSquares().solve(weight, "q4_0")
    with pytest.raises(ValueError, match="1 or more, not 0"):
        LeastSquares(candidates=0)
