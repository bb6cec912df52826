"""IntegerGrid beside the formats' own dequantizer, and its gradients beside differences."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor  # noqa: E402
from tersor.formats import ChannelScales, Hadamard, LowRank, Outliers, Permutation  # noqa: E402
from tersor.train import IntegerGrid, round_through  # noqa: E402

FORMATS = [
    "int1-g32", "ternary", "int2-g16-zero", "int3-g32", "int3-g128-minimum-bf16", "int4-channel", "int4-tensor-fp32",
    "int4-g32-minimum-super6", "int5-g16-super8", "int8",
]  # fmt: skip


def matrix(rows=6, columns=72, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def recorded(weight):
    """A tensor with every transform and side term."""
    rng = np.random.default_rng(1)
    transforms = [
        ChannelScales(rng.uniform(0.5, 2, weight.shape[1]).astype(np.float32)),
        Hadamard(3),
        Permutation(rng.permutation(weight.shape[1])),
    ]
    terms = [Outliers.fit(weight, 0.02), LowRank.fit(weight, 2)]
    return tersor.quantize(weight, "int4-g32", transforms=transforms, side_terms=terms)


@pytest.mark.parametrize("fmt", FORMATS)
def test_codes_stand_for_what_the_format_says(fmt):
    weight = matrix()
    weight[2] = 0  # scales of 0
    q = tersor.quantize(weight, fmt)
    grid = IntegerGrid(q)
    stored = grid.stored(grid.codes, grid.scales)
    np.testing.assert_allclose(grid.weight(stored).numpy(), q.dequantize(np.float32), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grid.places(stored, grid.scales).numpy(), grid.codes.numpy(), atol=1e-4)
    assert grid.codes.max() <= grid.highest
    again = grid.quantized(grid.codes, grid.scales, torch.from_numpy(weight))
    for name, part in q.parts.items():
        np.testing.assert_array_equal(again.parts[name], part)
    assert again.errors["weights"] == q.errors["weights"]


def test_transforms_and_side_terms_are_passed():
    weight = matrix()
    q = recorded(weight)
    grid = IntegerGrid(q)
    stored = grid.stored(grid.codes, grid.scales)
    np.testing.assert_allclose(grid.weight(stored).numpy(), q.dequantize(np.float32), rtol=1e-5, atol=1e-5)
    nearest = grid.places(grid.prepared(torch.from_numpy(weight)), grid.scales).round().clamp(0, grid.highest)
    assert torch.equal(nearest, grid.codes)


def test_the_gradient_of_a_transformed_matrix_is_its_difference():
    grid = IntegerGrid(recorded(matrix()))
    stored = grid.stored(grid.codes, grid.scales).requires_grad_()
    toward, by = torch.from_numpy(matrix(seed=2)), torch.from_numpy(matrix(seed=3))
    (grid.weight(stored) * toward).sum().backward()
    with torch.no_grad():
        difference = ((grid.weight(stored + by) - grid.weight(stored)) * toward).double().sum()
        assert (stored.grad * by).double().sum() == pytest.approx(difference.item(), rel=1e-4)


def test_rounding_keeps_the_gradient():
    x = torch.tensor([0.5, 1.5, -0.2], requires_grad=True)
    y = round_through(x)
    assert y.tolist() == [0, 2, 0]
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [1, 2, 3]


def test_scales_are_rounded_as_they_are_stored():
    grid = IntegerGrid(tersor.quantize(matrix(), "int3-g32"))
    scales = (grid.scales * 1.2345).requires_grad_()
    rounded = grid.rounded(scales)
    assert torch.equal(rounded, scales.half().float())
    assert torch.equal(grid.rounded(torch.tensor([[1e9]])), torch.tensor([[65504.0]]))
    rounded.sum().backward()
    assert torch.equal(scales.grad, torch.ones_like(scales))


def test_bad_input():
    with pytest.raises(TypeError, match="int_group format is needed, not in nf4"):
        IntegerGrid(tersor.quantize(matrix(), "nf4"))
    grid = IntegerGrid(tersor.quantize(matrix(), "int3-g32"))
    with pytest.raises(ValueError, match=r"\[6, 71\], its quantized matrix \[6, 72\]"):
        grid.prepared(torch.zeros(6, 71))
    with pytest.raises(tersor.FormatError):
        grid.quantized(grid.codes + 8, grid.scales, torch.from_numpy(matrix()))
