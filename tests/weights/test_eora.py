"""Low rank in the eigenspace of the inputs: the paper's term, and the best there is."""

import numpy as np
import pytest

import tersor
from tersor.calibrate import Statistics
from tersor.formats import LowRank
from tersor.weights import LayerRecipe, eora


def left_over(rows, columns, seed=0, tokens=600):
    """What 2 bits leave of a matrix, inputs of which few directions matter, and their statistics."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns), np.float32)
    mixing = random.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 10)
    x = (random.standard_normal((tokens, columns)) @ mixing.T).astype(np.float32)
    statistics = Statistics(columns)
    statistics.update(x)
    return weight - tersor.quantize(weight, "int2-g32").dequantize(np.float32), x, statistics


def paper(left, hessian, rank):
    """B A of the paper's equations, through the root of H and back."""
    values, vectors = np.linalg.eigh(hessian)
    root = vectors * np.sqrt(values)
    u, s, vt = np.linalg.svd(left @ root)
    return (u[:, :rank] * s[:rank]) @ (vt[:rank] @ np.linalg.inv(root))


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (100, 32)])
def test_it_is_the_paper_s_and_no_term_of_its_rank_is_better(shape):
    left, x, statistics = left_over(*shape)
    for rank in (1, 5, 30):
        u, v = eora.factors(left, statistics, rank)
        assert u.shape == (shape[0], rank)
        assert v.shape == (rank, shape[1])
        hessian = x.T.astype(np.float64) @ x / len(x)
        if rank == 5:
            np.testing.assert_allclose(u @ v, paper(left, hessian, rank), atol=0.02 * np.abs(u @ v).max())
        outputs = x @ left.T.astype(np.float64)
        singular = np.linalg.svd(outputs, compute_uv=False)
        error = np.square(outputs - x @ (u @ v).T).sum()
        assert error == pytest.approx(np.square(singular[rank:]).sum(), rel=1e-3, abs=1e-6 * np.square(outputs).sum())


def test_it_is_better_than_a_plain_decomposition():
    left, x, statistics = left_over(48, 64)
    for rank in (1, 4, 16):
        u, v = eora.factors(left, statistics, rank)
        left_svd, singular, right_svd = np.linalg.svd(left, full_matrices=False)
        plain = (left_svd[:, :rank] * singular[:rank]) @ right_svd[:rank]
        assert np.linalg.norm(x @ (left - u @ v).T) < np.linalg.norm(x @ (left - plain).T)
        assert np.linalg.norm(left - u @ v) > np.linalg.norm(left - plain)
        eight_bits = eora.low_rank(left, statistics, rank).apply(np.zeros_like(left))
        assert np.linalg.norm(x @ (left - eight_bits).T) < np.linalg.norm(x @ (left - LowRank.fit(left, rank).apply(
            np.zeros_like(left))).T)  # fmt: skip


def test_each_rank_is_better_than_the_one_below():
    weight = left_over(32, 128)[0] * 3
    _, _, statistics = left_over(32, 128)
    errors = [
        LayerRecipe(format="int3-g64", rank=rank).solve(weight, statistics).errors["outputs"] for rank in (0, 1, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_fewer_tokens_than_columns_and_nothing_left():
    """H is singular: the paper's root has no inverse, and none is needed."""
    left, x, statistics = left_over(24, 64, tokens=10)
    u, v = eora.factors(left, statistics, 12)
    assert np.linalg.norm(x @ (left - u @ v).T) < 1e-3 * np.linalg.norm(x @ left.T)
    u, v = eora.factors(np.zeros((24, 64), np.float32), statistics, 3)
    assert not (u @ v).any()
    for bad in (0, 25):
        with pytest.raises(ValueError, match=rf"rank {bad}, 1..24 are possible for \[24, 64\]"):
            eora.factors(left, statistics, bad)


def test_factors_are_rounded_as_the_plain_fit_rounds_them():
    left, _, _ = left_over(24, 32)
    singular_u, singular, singular_v = np.linalg.svd(left, full_matrices=False)
    root = np.sqrt(singular[:4])
    for dtype in ("fp16", "bf16", "int8"):
        made = LowRank.of_factors(singular_u[:, :4] * root, singular_v[:4] * root[:, None], dtype=dtype)
        for name, part in LowRank.fit(left, 4, dtype=dtype).parts().items():
            np.testing.assert_array_equal(made.parts()[name], part)
    with pytest.raises(ValueError, match=r"factors are \[24, 4\] and \[3, 32\]"):
        LowRank.of_factors(singular_u[:, :4], singular_v[:3])
    with pytest.raises(ValueError, match='a low-rank term is "fp16", "bf16" or "int8", not'):
        LowRank.of_factors(singular_u[:, :4], singular_v[:4], dtype="fp32")
