"""Substituted beside a module whose weights were exchanged for good, and its gradients beside autograd's."""

import itertools

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tersor.train import Substituted, batches  # noqa: E402


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4)).eval()


class Conv1D(torch.nn.Module):
    """GPT-2's linear layer, whose weight is [K, N]."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return x @ self.weight, "a second output"


def squared(outputs, target):
    return (outputs - target).square().mean(-1)


def calls(count=3):
    chance = torch.Generator().manual_seed(1)
    return [((torch.randn(2, 8, generator=chance),), {}) for _ in range(count)]


def test_outputs_and_gradients_are_those_of_the_exchanged_weight():
    module, given = network(), calls()
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
    targets = [torch.zeros(2, 4)] * 3
    run = Substituted(module, {"0": (6, 8)})
    before = module[0].weight.detach().clone()
    loss = run.mean_loss({"0": weight}, given, lambda i: targets[i], squared)
    run.pull_back({"0": weight * 1}, given, targets, squared)
    assert torch.equal(module[0].weight, before)
    assert all(parameter.grad is None for parameter in module.parameters())
    with torch.no_grad():
        module[0].weight.copy_(weight)
    want = sum(module(x).square().mean() for (x,), _ in given) / 3
    want.backward()
    assert loss == pytest.approx(want.item(), rel=1e-6)
    torch.testing.assert_close(weight.grad, module[0].weight.grad)


def test_a_weight_that_lies_turned_is_given_as_n_k():
    module = Conv1D().eval()
    run = Substituted(module, {"": (5, 8)})
    assert torch.equal(run.dense(None)[""], module.weight.T)
    x = torch.ones(1, 8)
    torch.testing.assert_close(run.outputs({"": run.dense(None)[""] * 2}, ((x,), {})), 2 * x @ module.weight.detach())


def test_a_layer_that_no_input_reaches_has_no_gradient():
    module = network()
    module.add_module("expert", torch.nn.Linear(8, 8))
    module.forward = lambda x: module[0](x)
    weight = torch.ones(8, 8, requires_grad=True)
    run = Substituted(module, {"0": (6, 8), "expert": (8, 8)})
    first = torch.ones(6, 8, requires_grad=True)
    run.pull_back({"0": first * 1, "expert": weight * 1}, calls(1), [torch.zeros(2, 6)], squared)
    assert not weight.grad.any()
    assert first.grad.any()


def test_batches_take_each_once_before_any_again():
    drawn = list(itertools.islice(batches(5, 3, seed=4), 10))
    flat = [i for batch in drawn for i in batch]
    assert all(len(batch) == 3 for batch in drawn)
    for first in range(0, 30, 5):
        assert sorted(flat[first : first + 5]) == [0, 1, 2, 3, 4]
    assert drawn == list(itertools.islice(batches(5, 3, seed=4), 10))
    assert drawn != list(itertools.islice(batches(5, 3, seed=5), 10))


def test_bad_input():
    with pytest.raises(ValueError, match="training mode"):
        Substituted(network().train(), {"0": (6, 8)})
    with pytest.raises(ValueError, match="no layer is named"):
        Substituted(network(), {})
    for name in ("7", "1"):  # none, and one without a weight
        with pytest.raises(ValueError, match=f"no layer '{name}' with a weight"):
            Substituted(network(), {name: (6, 8)})
    with pytest.raises(ValueError, match=r"0: the layer's weight is \[6, 8\], \[8, 6\] is needed"):
        Substituted(network(), {"0": (8, 6)})
    run = Substituted(network(), {"0": (6, 8)})
    with pytest.raises(ValueError, match="weights have no '0', found 2"):
        run.dense({"2": torch.zeros(4, 6)})
    with pytest.raises(ValueError, match=r"0: a weight is \[8, 6\], \[6, 8\] is needed"):
        run.dense({"0": torch.zeros(8, 6)})
    weights = {"0": torch.full((6, 8), torch.nan)}
    with pytest.raises(ValueError, match="loss over the inputs is nan"):
        run.mean_loss(weights, calls(), lambda i: torch.zeros(2, 4), squared)
    with pytest.raises(ValueError, match=r"an output is \[2, 4\], its target \[2, 5\]"):
        run.mean_loss(weights, calls(), lambda i: torch.zeros(2, 5), squared)
    module = network()
    module.forward = lambda x: {"x": x}
    with pytest.raises(TypeError, match="gives a dict"):
        Substituted(module, {"0": (6, 8)}).outputs({}, calls()[0])
