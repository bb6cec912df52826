"""DiscQuant on a tiny language model: the divergence falls, what it returns is stored as it was, and it repeats."""

import dataclasses
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor  # noqa: E402
from tersor.formats import QuantizedTensor  # noqa: E402
from tersor.nn import DiscQuant  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = ("up", "down", "head")


class Model(torch.nn.Module):
    """Each token from the one before it; gives an object with logits, as those of transformers do."""

    def __init__(self, vocabulary=40, dim=24):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, dim)
        self.up = torch.nn.Linear(dim, 48)
        self.down = torch.nn.Linear(48, dim)
        self.head = torch.nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        return types.SimpleNamespace(logits=self.head(x + self.down(torch.relu(self.up(x)))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().eval()


def windows(count=8, length=40):
    return torch.randint(40, (count, length), generator=torch.Generator().manual_seed(1))


def nearest(model, fmt="int3-g16"):
    return {name: tersor.quantize(model.get_submodule(name).weight.detach(), fmt) for name in LAYERS}


def divergence(model, layers, ids):
    weights = {f"{name}.weight": torch.from_numpy(q.dequantize()) for name, q in layers.items()}
    with torch.no_grad():
        want = model(ids).logits.double().log_softmax(-1)
        made = torch.func.functional_call(model, weights, (ids,)).logits.double().log_softmax(-1)
    return float((want.exp() * (want - made)).sum(-1).mean())


@pytest.mark.parametrize("fmt", ["int2-g16-zero", "int3-g16", "int4-channel"])
def test_the_divergence_falls(model, fmt, tmp_path):
    ids, start, seen = windows(), nearest(model, fmt), []
    solver = DiscQuant(steps=40, learning_rate=2e-2, batch=4)
    refined = solver.refine(model, ids, start, progress=lambda *at: seen.append(at))
    before, after = divergence(model, start, ids), divergence(model, refined, ids)
    assert after < 0.8 * before
    assert [step for step, _ in seen] == [0, 10, 20, 30, 40]
    assert seen[0][1] == pytest.approx(before, rel=1e-3)
    assert min(loss for _, loss in seen) == pytest.approx(after, rel=1e-3)
    for name, q in refined.items():
        assert (q.format, q.shape, q.nbytes) == (start[name].format, start[name].shape, start[name].nbytes)
        q.save(tmp_path / f"{name}.tsr")
        np.testing.assert_array_equal(QuantizedTensor.load(tmp_path / f"{name}.tsr").dequantize(), q.dequantize())


def test_codes_go_to_neighbors_of_the_start_where_scales_stay(model):
    start = nearest(model)
    refined = DiscQuant(steps=40, learning_rate=2e-2, learn_scales=False).refine(model, windows(), start)
    for name, q in refined.items():
        codes, before = (one.format.symbols(one.parts, one.shape)["codes"].astype(int) for one in (q, start[name]))
        assert set(np.unique(codes - before)) == {-1, 0, 1}
        np.testing.assert_array_equal(q.parts["scales"], start[name].parts["scales"])


def test_the_dense_weights_may_lie_elsewhere(model):
    ids, start, solver = windows(), nearest(model), DiscQuant(steps=4, learning_rate=2e-2)
    want = solver.refine(model, ids, start)
    dense = {name: model.get_submodule(name).weight.detach().clone() for name in LAYERS}
    with torch.no_grad():
        for name in LAYERS:
            model.get_submodule(name).weight.copy_(torch.from_numpy(start[name].dequantize()))
    found = solver.refine(model, ids, start, weights=dense)
    for name, q in want.items():
        np.testing.assert_array_equal(found[name].dequantize(), q.dequantize())


def test_steps_that_help_nothing_give_the_start(model):
    start = nearest(model, "int8-g16")
    dense = {name: torch.from_numpy(q.dequantize()) for name, q in start.items()}
    assert DiscQuant(steps=3, learning_rate=1.0).refine(model, windows(), start, weights=dense) == start


def test_the_same_again(model):
    start, solver = nearest(model), DiscQuant(steps=8, learning_rate=2e-2, batch=3)
    first, second, other = (
        one.refine(model, windows(), start) for one in (solver, solver, dataclasses.replace(solver, seed=1))
    )
    for name, q in first.items():
        for part in q.parts:
            np.testing.assert_array_equal(q.parts[part], second[name].parts[part])
    assert any(not np.array_equal(q.parts["codes"], other[name].parts["codes"]) for name, q in first.items())


def test_bad_input(model):
    start, solver = nearest(model), DiscQuant(steps=1)
    with pytest.raises(ValueError, match="there are no windows"):
        solver.refine(model, [], start)
    with pytest.raises(ValueError, match="no layer 'gate'"):
        solver.refine(model, windows(), {"gate": start["up"]})
    with pytest.raises(ValueError, match=r"down: the layer's weight is \[24, 48\], \[48, 24\] is needed"):
        solver.refine(model, windows(), {"down": start["up"]})
    with pytest.raises(TypeError, match="int_group format"):
        solver.refine(model, windows(), nearest(model, "nf4"))
    with pytest.raises(ValueError, match="training mode"):
        solver.refine(model.train(), windows(), start)
    with pytest.raises(ValueError, match="steps is 1 or more, not 0"):
        DiscQuant(steps=0)
