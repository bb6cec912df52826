"""A layer of several parts is the sum that its page writes, and transforms do what they are chosen for."""

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.formats import Hadamard, Permutation
from tersor.weights import LayerRecipe


def layer(rows=48, columns=256, seed=0):
    """Weights, inputs and their statistics: some columns of the inputs are far larger than others."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((600, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    x = (x * np.exp(random.standard_normal(columns))).astype(np.float32)
    statistics = Statistics(columns)
    statistics.update(x)
    return random.standard_normal((rows, columns), np.float32), x, statistics


RECIPES = [
    {"transform": transform, "outliers": outliers, "outlier_kind": kind or "sensitivity", "rank": rank}
    for transform in ("", "awq", "smooth", "hadamard", "permute")
    for outliers, kind, rank in ((0.01, "sensitivity", 0), (0.02, "columns", 3), (0.01, "magnitude", 0), (0, "", 2))
]  # fmt: skip


@pytest.mark.parametrize("options", RECIPES, ids=lambda one: "-".join(str(value) for value in one.values()))
def test_a_matrix_is_what_the_page_says(options):
    weight, x, statistics = layer(24, 128)
    q = LayerRecipe(format="int4-g32", **options).solve(weight, statistics)
    stored = np.empty(q.shape, np.float32)
    q.format.decode(q.parts, q.shape, stored)
    matrix = stored.astype(np.float64)
    for transform in q.transforms:
        if options["transform"] in ("awq", "smooth"):
            matrix = matrix / transform.scales.astype(np.float64)
        elif options["transform"] == "permute":
            matrix = matrix[:, np.argsort(transform.order)]
        else:
            matrix = matrix @ transform.apply(np.eye(128, dtype=np.float32)).T
    for term in q.side_terms:
        parts = term.parts()
        if term.kind == "outliers":
            rows = np.repeat(np.arange(24), np.diff(parts["row_starts"].astype(int)))
            matrix[rows, parts["columns"]] += parts["values"]
        else:
            matrix += (parts["u"] * parts["u_scales"].astype(np.float64)) @ (parts["v"] * parts["v_scales"].astype(
                np.float64)[:, None])  # fmt: skip
    np.testing.assert_allclose(q.dequantize(np.float32), matrix, atol=2e-5)
    assert len(q.transforms) == (options["transform"] != "")
    assert [term.kind for term in q.side_terms] == ["outliers"] * (options["outliers"] > 0) + ["low_rank"] * (
        options["rank"] > 0
    )
    y = tersor.linear(x, q, activations="exact")
    np.testing.assert_allclose(y, x @ q.dequantize(np.float32).T, rtol=1e-3, atol=1e-3 * np.abs(y).max())
    off = np.linalg.norm(x @ (q.dequantize(np.float32) - weight).T) / np.linalg.norm(x @ weight.T)
    assert q.errors["outputs"] == pytest.approx(off, rel=1e-3)
    assert off < 0.1


@pytest.mark.parametrize("solver", ["rtn", "gptq"])
def test_rotating_spreads_channels_of_large_weights(solver):
    """Two columns of large weights: each widens the scale of its group in every row; rotated, no column is large."""
    weight, _, statistics = layer(64, 256)
    weight[:, [3, 200]] *= 20
    for seed in range(3):
        plain, rotated = (
            LayerRecipe(format="int3-g128", solver=solver, grid="minmax", transform=transform, seed=seed).solve(
                weight, statistics
            )
            for transform in ("", "hadamard")
        )
        assert rotated.nbytes == plain.nbytes
        assert rotated.transforms == (Hadamard(seed),)
        assert rotated.errors["weights"] < 0.8 * plain.errors["weights"]


def test_permuting_puts_columns_of_like_inputs_together():
    """Small weights stand where inputs are large; in order, those of a size share their groups and so their scales."""
    weight, x, _ = layer(64, 256)
    sizes = np.where(np.arange(256) % 2, 8, 1).astype(np.float32)
    x, weight = np.random.default_rng(0).standard_normal(x.shape, np.float32) / sizes, weight * sizes
    statistics = Statistics(256)
    statistics.update(x)
    plain, permuted = (
        LayerRecipe(format="int3-g128", transform=transform).solve(weight, statistics) for transform in ("", "permute")
    )
    assert isinstance(permuted.transforms[0], Permutation)
    assert (permuted.transforms[0].order[:128] % 2 == 0).all()
    assert permuted.errors["outputs"] < 0.5 * plain.errors["outputs"]
    assert permuted.nbytes == plain.nbytes + 4 * 256


def test_a_rotation_of_all_is_solved_as_well_as_what_was_rotated():
    """Statistics go through the transform as inputs do: solved and undone, the codes are those of the rotated layer."""
    weight, x, statistics = layer(16, 64)
    turn = Hadamard(3)
    rotated = Statistics(64)
    rotated.update(turn.inputs(x))
    want = LayerRecipe(format="int4-g32", solver="cd").solve(turn.apply(weight), rotated)
    got = LayerRecipe(format="int4-g32", solver="cd", transform="hadamard", seed=3).solve(weight, statistics)
    assert (got.format.symbols(got.parts, got.shape)["codes"] == want.format.symbols(want.parts, want.shape)["codes"]
            ).mean() > 0.97  # fmt: skip
    assert got.errors["outputs"] == pytest.approx(want.errors["outputs"], rel=0.02)


def test_inputs_that_a_rotation_leaves_nothing_of_are_no_negative_squares():
    """Three directions that are columns of the rotation: all others have a mean square of 0, but for rounding."""
    for seed in range(4):
        turn, random = Hadamard(seed), np.random.default_rng(seed)
        rows = turn.inputs(np.eye(64, dtype=np.float32)).T[[5, 9, 20]]
        statistics = Statistics(64)
        statistics.update(random.standard_normal((5, 1), np.float32) * np.float32([1.37, 0.113, 2.22]) @ rows)
        assert np.diag(statistics.transformed(turn).hessian).min() >= 0
        q = LayerRecipe(format="int4-g32", transform="hadamard", seed=seed).solve(layer(8, 64)[0], statistics)
        assert q.errors["outputs"] < 0.02
