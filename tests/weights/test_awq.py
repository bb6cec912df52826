"""Scales of columns: the search takes the best exponent, and smoothing does what it is for."""

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.formats import ChannelScales
from tersor.weights import LayerRecipe, awq


def layer(rows=40, columns=128, seed=0):
    """Weights, and inputs of which every 16th column is ten to forty times as large as the others."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((500, columns)).astype(np.float32)
    x[:, ::16] *= random.uniform(10, 40, columns // 16).astype(np.float32)
    statistics = Statistics(columns)
    statistics.update(x)
    return random.standard_normal((rows, columns), np.float32), x, statistics


def errors_of(weight, x, fmt):
    """The squared error of the outputs for each exponent, the paper's loop in plain NumPy."""
    rms = np.sqrt(np.square(x.astype(np.float64)).mean(0))
    found = []
    for step in range(20):
        s = rms ** (step / 20)
        s = (s / np.sqrt(s.max() * s.min())).astype(np.float16).astype(np.float32)
        q = tersor.quantize(weight * s, fmt, clip="mse").dequantize(np.float32) / s
        found.append(np.square(x.astype(np.float64) @ (q - weight).T).sum())
    return np.array(found), rms


def test_the_exponent_is_the_best_of_the_grid():
    weight, x, statistics = layer()
    errors, rms = errors_of(weight, x, "int3-g64")
    best = errors.argmin() / 20
    assert best > 0
    scales = awq.channel_scales(weight, "int3-g64", statistics).scales
    assert scales.dtype == np.float16
    want = rms**best / np.sqrt((rms**best).max() * (rms**best).min())
    np.testing.assert_allclose(scales, want, rtol=2e-3)
    q = LayerRecipe(format="int3-g64", solver="rtn", grid="mse", transform="awq").solve(weight, statistics)
    off = q.dequantize(np.float32) - weight
    assert np.square(x.astype(np.float64) @ off.T).sum() == pytest.approx(errors.min(), rel=1e-3)
    plain = LayerRecipe(format="int3-g64", solver="rtn", grid="mse").solve(weight, statistics)
    assert q.errors["outputs"] < 0.92 * plain.errors["outputs"]


@pytest.mark.parametrize("name", ["int2-g32", "int4-g128", "nf4", "mxfp4"])
def test_scales_are_never_worse_than_none(name):
    for seed in range(3):
        weight, _, statistics = layer(seed=seed)
        with_scales, without = (
            LayerRecipe(format=name, solver="rtn", grid="mse", transform=transform).solve(weight, statistics)
            for transform in ("awq", "")
        )
        assert with_scales.errors["outputs"] <= without.errors["outputs"]


def test_where_nothing_is_gained_nothing_is_stored():
    weight, statistics = layer()[0], Statistics(128)
    statistics.update(np.eye(128, dtype=np.float32))
    assert awq.channel_scales(weight, "int4-g32", statistics) is None
    q = LayerRecipe(format="int4-g32", transform="awq").solve(weight, statistics)
    assert q.transforms == ()


def test_columns_without_inputs_or_weights_have_scales_too():
    weight, x, _ = layer()
    weight[:, 5] = 0
    x[:, :8] = 0
    x[:, 100] *= 1e4
    statistics = Statistics(128)
    statistics.update(x)
    for scales in (awq.channel_scales(weight, "int4-g32", statistics), awq.smoothing(weight, statistics)):
        assert isinstance(scales, ChannelScales)
        assert np.isfinite(scales.scales).all()
        assert (scales.scales > 0).all()


def test_smoothing_is_the_formula_and_evens_out_what_is_read_in_8_bits():
    weight, x, statistics = layer()
    scales = awq.smoothing(weight, statistics).scales.astype(np.float64)
    ratio = np.sqrt(np.square(x.astype(np.float64)).mean(0)) / np.abs(weight).max(0)
    np.testing.assert_allclose(scales / scales[0], np.sqrt(ratio / ratio[0]), rtol=3e-3)
    want = x @ weight.T

    def error(transform):
        recipe = LayerRecipe(format="int8", solver="rtn", transform=transform, activations="int8")
        return np.linalg.norm(tersor.linear(x, recipe.solve(weight, statistics)) - want) / np.linalg.norm(want)

    assert error("smooth") < 0.7 * error("")
    with pytest.raises(ValueError, match=r"an exponent is in \[0, 1\], not 1.5"):
        awq.smoothing(weight, statistics, 1.5)
