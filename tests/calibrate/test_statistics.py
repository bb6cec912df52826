"""Second moments: as NumPy sums them, whatever the pieces, and what is refused adds nothing."""

import ml_dtypes
import numpy as np
import pytest

from tersor.calibrate import Statistics
from tersor.formats import ChannelScales, Hadamard, Permutation


def test_second_moments_are_those_of_all_tokens():
    x = np.random.default_rng(0).standard_normal((2, 5, 33), np.float32)
    whole, pieces = Statistics(33), Statistics(33)
    whole.update(x)
    for piece in (x[:1], x[1, :2], x[1, 2:]):
        pieces.update(piece)
    want = np.einsum("abi,abj->ij", x.astype(np.float64), x) / 10
    assert whole.tokens == pieces.tokens == 10
    assert whole.columns == 33
    np.testing.assert_allclose(whole.hessian, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pieces.hessian, want, rtol=1e-5, atol=1e-6)
    assert not Statistics(4).hessian.any()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_read_as_they_are(dtype):
    x = np.random.default_rng(1).standard_normal((7, 8)).astype(dtype)
    found = Statistics(8)
    found.update(x)
    single = x.astype(np.float32)
    np.testing.assert_allclose(found.hessian, single.T @ single / 7, rtol=1e-6)


def test_tensors_of_torch_are_read():
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 4, 16, dtype=torch.bfloat16, requires_grad=True)
    found = Statistics(16)
    found.update(x)
    single = x.detach().float().reshape(-1, 16).numpy()
    np.testing.assert_allclose(found.hessian, single.T @ single / 12, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_added_is_refused_and_leaves_no_trace():
    with pytest.raises(ValueError, match="columns are 1 or more, not 0"):
        Statistics(0)
    found = Statistics(4)
    with pytest.raises(TypeError, match="not I32"):
        found.update(np.zeros((2, 4), np.int32))
    with pytest.raises(ValueError, match=r"x is \[2, 5\], \[\.\.\., 4\] is needed"):
        found.update(np.zeros((2, 5), np.float32))
    x = np.ones((5000, 4), np.float32)
    x[4500, 2] = np.nan
    with pytest.raises(ValueError, match="token 4500 has nan in column 2"):
        found.update(x)
    assert found.tokens == 0
    assert not found.hessian.any()


def test_moments_of_transformed_inputs_come_from_those_of_the_inputs():
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 48), np.float32) * np.linspace(0.1, 5, 48, dtype=np.float32)
    before = Statistics(48)
    before.update(x)
    for transform in (
        Hadamard(7),
        Permutation(random.permutation(48)),
        ChannelScales(random.uniform(0.1, 3, 48).astype(np.float16)),
    ):
        after = Statistics(48)
        after.update(transform.inputs(x))
        found = before.transformed(transform)
        assert found.tokens == 50
        np.testing.assert_allclose(found.hessian, after.hessian, rtol=1e-4, atol=1e-4 * after.hessian.max())
        np.testing.assert_array_equal(found.hessian, found.hessian.T)


def test_known_moments_are_taken_and_go_on():
    random = np.random.default_rng(0)
    whole, first = Statistics(8), Statistics(8)
    x = random.standard_normal((30, 8), np.float32)
    whole.update(x)
    first.update(x[:10])
    going_on = Statistics.of(first.hessian, 10)
    going_on.update(x[10:])
    assert going_on.tokens == 30
    np.testing.assert_allclose(going_on.hessian, whole.hessian, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"a hessian is \[K, K\], not \[8, 7\]"):
        Statistics.of(first.hessian[:, :7], 3)
    with pytest.raises(ValueError, match="tokens are 0 or more, not -1"):
        Statistics.of(first.hessian, -1)
    skewed = first.hessian
    skewed[2, 5] += 0.1 * np.abs(skewed).max()
    with pytest.raises(ValueError, match=r"a hessian is symmetric, this one and its transpose are .* apart"):
        Statistics.of(skewed, 3)
