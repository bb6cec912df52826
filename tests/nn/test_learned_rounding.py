"""LearnedRounding on blocks of two layers: the loss falls, what it returns is stored as it was, and it repeats."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor  # noqa: E402
from tersor.calibrate import Statistics  # noqa: E402
from tersor.formats import Hadamard, Outliers, QuantizedTensor  # noqa: E402
from tersor.nn import LearnedRounding  # noqa: E402
from tersor.weights import GPTQ  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = [
    "int1-g16", "ternary-g16", "int2-g16-zero", "int3-g32", "int3-g32-minimum", "int3-channel-bf16", "int3-tensor-fp32",
    "int4-g32-minimum-super6",
]  # fmt: skip


class Block(torch.nn.Module):
    """A residual block that gives a tuple and takes a keyword, as decoder layers do."""

    def __init__(self, dim=24, inner=40):
        super().__init__()
        self.norm = torch.nn.LayerNorm(dim)
        self.up = torch.nn.Linear(dim, inner)
        self.down = torch.nn.Linear(inner, dim, bias=False)

    def forward(self, x, *, gain):
        return x + self.down(torch.nn.functional.silu(self.up(self.norm(x)))) * gain, None


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block().eval()


def problem(block, count=8, tokens=48):
    """Inputs with correlated columns, and what the dense block gives for them."""
    chance = torch.Generator().manual_seed(1)
    mixing = torch.randn(24, 24, generator=chance)
    inputs = [((torch.randn(1, tokens, 24, generator=chance) @ mixing,), {"gain": 2.0}) for _ in range(count)]
    with torch.no_grad():
        return inputs, [block(*args, **kwargs)[0] for args, kwargs in inputs]


def nearest(block, fmt):
    return {name: tersor.quantize(block.get_submodule(name).weight.detach(), fmt) for name in ("up", "down")}


def error(block, layers, inputs, targets):
    with torch.no_grad():
        weights = {f"{name}.weight": torch.from_numpy(q.dequantize()) for name, q in layers.items()}
        made = [torch.func.functional_call(block, weights, *call)[0] for call in inputs]
        return float(np.mean([(a - b).double().square().mean() for a, b in zip(made, targets, strict=True)]))


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_error_of_the_block_falls_in_every_format(block, fmt):
    inputs, targets = problem(block)
    start, seen = nearest(block, fmt), []
    refined = LearnedRounding(steps=40, learning_rate=2e-2).refine(
        block, inputs, targets, start, progress=lambda *at: seen.append(at)
    )
    before, after = error(block, start, inputs, targets), error(block, refined, inputs, targets)
    assert after < 0.95 * before
    assert [step for step, _ in seen] == [0, 10, 20, 30, 40]
    assert seen[0][1] == pytest.approx(before, rel=1e-4)
    assert min(loss for _, loss in seen) == pytest.approx(after, rel=1e-4)
    for name, q in refined.items():
        assert (q.format, q.shape, q.dtype, q.nbytes) == (
            start[name].format, start[name].shape, start[name].dtype, start[name].nbytes,
        )  # fmt: skip
        assert q.errors["weights"] == q.relative_error(block.get_submodule(name).weight.detach())


def test_codes_of_gptq_become_better(block):
    inputs, targets = problem(block)
    statistics = Statistics(24)
    for (x,), _ in inputs:
        statistics.update(block.norm(x).detach())
    start = nearest(block, "int3-g32") | {"up": GPTQ().solve(block.up.weight.detach(), "int3-g32", statistics)}
    refined = LearnedRounding(steps=40).refine(block, inputs, targets, start)
    assert error(block, refined, inputs, targets) < 0.95 * error(block, start, inputs, targets)


def test_transforms_and_side_terms_stay(block, tmp_path):
    inputs, targets = problem(block)
    weight = block.up.weight.detach()
    start = {
        "up": tersor.quantize(
            weight, "int3-g32", transforms=[Hadamard(5)], side_terms=[Outliers.fit(weight.numpy(), 0.02)]
        )
    }
    refined = LearnedRounding(steps=30, learning_rate=2e-2).refine(block, inputs, targets, start)
    assert error(block, refined, inputs, targets) < error(block, start, inputs, targets)
    assert refined["up"].transforms == start["up"].transforms
    assert refined["up"].side_terms == start["up"].side_terms
    refined["up"].save(tmp_path / "up.tsr")
    loaded = QuantizedTensor.load(tmp_path / "up.tsr")
    np.testing.assert_array_equal(loaded.dequantize(), refined["up"].dequantize())


class Conv1D(torch.nn.Module):
    """GPT-2's linear layer, whose weight is [K, N]."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(24, 32, generator=torch.Generator().manual_seed(3)))

    def forward(self, x, *, gain):
        return (x @ self.weight * gain,)


def test_a_weight_that_lies_turned_is_quantized_as_n_k():
    block = torch.nn.ModuleDict({"c": Conv1D()}).eval()
    block.forward = block["c"].forward
    inputs, targets = problem(block)
    start = {"c": tersor.quantize(block["c"].weight.detach().T.contiguous(), "int3-g32")}
    refined = LearnedRounding(steps=40, learning_rate=2e-2, batch=8).refine(block, inputs, targets, start)
    want = block["c"].weight.detach().T.contiguous()
    assert refined["c"].errors["weights"] == refined["c"].relative_error(want)

    def mse(q):
        weight = torch.from_numpy(q.dequantize()).T
        return float(
            np.mean([(x @ weight * 2.0 - y).square().mean() for ((x,), _), y in zip(inputs, targets, strict=True)])
        )

    assert mse(refined["c"]) < 0.95 * mse(start["c"])


def test_steps_that_help_nothing_give_the_start(block):
    inputs, targets = problem(block)
    start = nearest(block, "int4-g32")
    with torch.no_grad():  # of what the quantized block gives, nothing can come nearer than it
        weights = {f"{name}.weight": torch.from_numpy(q.dequantize()) for name, q in start.items()}
        targets = [torch.func.functional_call(block, weights, *call)[0] for call in inputs]
    refined = LearnedRounding(steps=4, learning_rate=0.5).refine(block, inputs, targets, start)
    assert refined == start


def test_scales_stay_where_they_are_told_to(block):
    inputs, targets = problem(block)
    start = nearest(block, "int3-g32")
    refined = LearnedRounding(steps=30, learning_rate=2e-2, learn_scales=False).refine(block, inputs, targets, start)
    for name, q in refined.items():
        np.testing.assert_array_equal(q.parts["scales"], start[name].parts["scales"])
        assert not np.array_equal(q.parts["codes"], start[name].parts["codes"])


def test_the_same_again_on_any_number_of_threads(block):
    inputs, targets = problem(block)
    start, results = nearest(block, "int3-g32"), []
    solver = LearnedRounding(steps=8, batch=3, learning_rate=2e-2)
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        results.append(solver.refine(block, inputs, targets, start))
    for other in results[1:]:
        for name, q in results[0].items():
            for part in q.parts:
                np.testing.assert_array_equal(q.parts[part], other[name].parts[part])
    seeded = dataclasses.replace(solver, seed=1).refine(block, inputs, targets, start)
    assert any(not np.array_equal(q.parts["codes"], seeded[name].parts["codes"]) for name, q in results[0].items())


def test_the_block_is_left_as_it_is(block):
    inputs, targets = problem(block)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with torch.no_grad():
        LearnedRounding(steps=2).refine(block, inputs, targets, nearest(block, "int3-g32"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in block.parameters())


def test_bad_input(block):
    inputs, targets = problem(block, count=2)
    start, solver = nearest(block, "int3-g32"), LearnedRounding(steps=1)
    with pytest.raises(ValueError, match="0 inputs and 0 targets"):
        solver.refine(block, [], [], start)
    with pytest.raises(ValueError, match="2 inputs and 1 targets"):
        solver.refine(block, inputs, targets[:1], start)
    with pytest.raises(ValueError, match="no layer 'gate'"):
        solver.refine(block, inputs, targets, {"gate": start["up"]})
    with pytest.raises(ValueError, match=r"down: the layer's weight is \[24, 40\], \[40, 24\] is needed"):
        solver.refine(block, inputs, targets, {"down": start["up"]})
    with pytest.raises(ValueError, match="weights have no 'up', found down"):
        solver.refine(block, inputs, targets, start, weights={"down": block.down.weight})
    with pytest.raises(TypeError, match="int_group format"):
        solver.refine(block, inputs, targets, nearest(block, "nf4"))
    with pytest.raises(ValueError, match="its target"):
        solver.refine(block, inputs, [target[:, :1] for target in targets], start)
    with pytest.raises(ValueError, match="loss over the inputs is nan"):
        solver.refine(block, inputs, [target * torch.nan for target in targets], start)
    for options, text in [
        ({"steps": 0}, "steps is 1 or more, not 0"),
        ({"batch": 0}, "batch is 1 or more, not 0"),
        ({"learning_rate": 0.0}, r"learning_rate is in \(0, 1\], not 0.0"),
        ({"seed": -1}, "a seed is 0 or more, not -1"),
    ]:
        with pytest.raises(ValueError, match=text):
            LearnedRounding(**options)
