"""Weights and columns that stay in 16 bits: those that matter, with their best values, for fewer bytes than groups."""

import dataclasses

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.formats import Outliers
from tersor.weights import LayerRecipe, llm_int8, spqr


def layer(rows=64, columns=256, planted=0.008, seed=0):
    """Weights of which some are ten times as large, which of them, correlated inputs and their statistics."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns), np.float32)
    large = random.random(weight.shape) < planted
    weight[large] *= 10
    x = random.standard_normal((800, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    x = (x * np.exp(random.standard_normal(columns))).astype(np.float32)
    statistics = Statistics(columns)
    statistics.update(x)
    return weight, large, x, statistics


def test_spqr_is_better_than_gptq_of_as_many_bytes():
    weight, _, _, statistics = layer()
    spqr_3bit = LayerRecipe(format="int3-g128", outliers=0.01).solve(weight, statistics)
    smaller_groups = LayerRecipe(format="int3-g16").solve(weight, statistics)
    assert spqr_3bit.nbytes < smaller_groups.nbytes
    assert spqr_3bit.errors["outputs"] < 0.8 * smaller_groups.errors["outputs"]
    by_size = LayerRecipe(format="int3-g128", outliers=0.01, outlier_kind="magnitude").solve(weight, statistics)
    assert spqr_3bit.nbytes == by_size.nbytes
    assert spqr_3bit.errors["outputs"] < by_size.errors["outputs"]


def test_large_weights_are_found_where_inputs_are_alike():
    weight, large, x, _ = layer()
    even = Statistics(256)
    even.update(np.random.default_rng(1).standard_normal(x.shape, np.float32))
    found = spqr.outliers(weight, "int4-g128", even, large.mean(), damping=0.01)
    mask = found.apply(np.zeros_like(weight)) != 0
    assert mask.sum() == large.sum()
    clearly = large & (np.abs(weight) > 5)
    assert mask[clearly].all()
    np.testing.assert_array_equal(found.values, weight[mask].astype(np.float16))


@pytest.mark.parametrize("columns", [5, 256, 600])
def test_what_the_others_tell_of_an_input_is_numpy_s_inverse(columns):
    """Of more columns than a block, as of fewer."""
    _, _, _, statistics = layer(1, columns)
    damped = statistics.hessian.astype(np.float64)
    damped += 0.01 * np.diag(damped).mean() * np.eye(columns)
    found = spqr._conditional(statistics.hessian, 0.01)
    np.testing.assert_allclose(found, 1 / np.diag(np.linalg.inv(damped)), rtol=1e-4)


def test_what_costs_nothing_is_not_taken():
    _, _, _, statistics = layer(4, 64)
    levels = np.random.default_rng(0).integers(-3, 4, (4, 64)).astype(np.float32)
    levels[:, ::32] = -4  # so that all are levels of int3-g32
    assert spqr.outliers(levels, "int3-g32", statistics, 0.5, damping=0.01).values.size == 0


def test_values_are_set_to_the_best_beside_the_codes():
    """Against NumPy's least squares over the tokens, row by row."""
    weight, _, x, statistics = layer(8, 64)
    left = weight - tersor.quantize(weight, "int2-g32").dequantize(np.float32)
    found = Outliers.fit(left, 0.1, values="fp32")
    best = spqr.refitted(found, left, statistics, damping=0.0)
    np.testing.assert_array_equal(best.columns, found.columns)
    for row in range(8):
        places = found.columns[found.row_starts[row] : found.row_starts[row + 1]]
        want = np.linalg.lstsq(x[:, places].astype(np.float64), x @ left[row].astype(np.float64), rcond=None)[0]
        got = best.values[found.row_starts[row] : found.row_starts[row + 1]]
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)
    for damping in (0.0, 0.01, 1.0):
        best = spqr.refitted(found, left, statistics, damping=damping)
        before, after = (np.linalg.norm(x @ (left - one.apply(np.zeros_like(left))).T) for one in (found, best))
        assert after < before


@pytest.mark.parametrize("kind", ["sensitivity", "columns"])
def test_inputs_that_are_all_zero_do_no_harm(kind):
    weight, _, _, _ = layer(8, 64)
    statistics = Statistics(64)
    statistics.update(np.zeros((3, 64), np.float32))
    q = LayerRecipe(format="int4-g32", outliers=0.05, outlier_kind=kind, damping=0.0).solve(weight, statistics)
    assert q.errors["outputs"] == 0
    assert q.errors["weights"] < 0.15


def test_columns_of_the_largest_inputs_are_as_they_were():
    weight, _, x, statistics = layer()
    recipe = LayerRecipe(format="int8", solver="rtn", outliers=0.01, outlier_kind="columns")
    q = recipe.solve(weight, statistics)
    largest = np.argsort(-np.square(x).sum(0))[:3]  # 1 % of 256, rounded up
    mask = np.zeros_like(weight, bool)
    mask[:, largest] = True
    np.testing.assert_array_equal(llm_int8.outlier_columns(weight, statistics, 0.01).columns, np.nonzero(mask)[1])
    np.testing.assert_array_equal(q.dequantize(np.float32)[:, largest], weight[:, largest].astype(np.float16))
    plain = dataclasses.replace(recipe, outliers=0.0).solve(weight, statistics)
    assert q.errors["outputs"] < 0.9 * plain.errors["outputs"]
