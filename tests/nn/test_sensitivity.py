"""What each weight costs beside running the whole model again and again, and that the model stays what it was."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tersor  # noqa: E402
from tersor.budget import DynamicProgramming, Point  # noqa: E402
from tersor.nn.sensitivity import Probe, measure_sensitivity, rate_points  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
WINDOWS = [torch.from_numpy(np.random.default_rng(i).integers(0, 61, 20 + 80 * i)) for i in range(2)]


def model(kind="llama"):
    torch.manual_seed(0)
    if kind == "llama":
        config = transformers.LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=1)
        made = transformers.LlamaForCausalLM(config)
    elif kind == "gpt2":
        made = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=2, n_positions=128)
        )
    else:
        made = transformers.BertModel(transformers.BertConfig(**SIZES, intermediate_size=48))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter *= 8  # outputs that differ
    return made.eval()


def rounded(weight, step=0.05):
    scale = step * weight.abs().max()
    return (weight / scale).round() * scale


def matrices(of):
    return [name for name, parameter in of.named_parameters() if parameter.ndim > 1]


def expected(of, name):
    """Plainly: two whole models and NumPy in double precision."""
    dense, other = [], []
    for found, change in ((dense, False), (other, True)):
        changed = model(of)
        with torch.no_grad():
            if change:
                weight = dict(changed.named_parameters())[name]
                weight.copy_(rounded(weight))
            for window in WINDOWS:
                given = changed(input_ids=window[None])
                found.append((given.logits if "logits" in given else given.last_hidden_state)[0].double().numpy())
    a, b = np.concatenate(dense), np.concatenate(other)
    if of == "bert":
        return float(np.mean(1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))
    p, q = (x - x.max(1, keepdims=True) for x in (a, b))
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (p, q))
    return float(np.mean((np.exp(p) * (p - q)).sum(1)))


@pytest.mark.parametrize("of", ["llama", "gpt2", "bert"])
def test_costs_are_those_of_whole_models(of):
    made = model(of)
    names = matrices(made)
    assert len(names) > 9
    found = measure_sensitivity(made, WINDOWS, dict.fromkeys(names, rounded))
    assert list(found) == names
    for name in names[::3] + names[-1:]:
        assert found[name] == pytest.approx(expected(of, name), rel=1e-3, abs=1e-9), name
    costly = [cost for cost in found.values() if cost > 1e-6]
    assert len(costly) > len(names) / 2


@pytest.mark.parametrize("of", ["llama", "bert"])
def test_blocks_before_a_weight_do_not_run_again(of):
    made = model(of)
    blocks = made.model.layers if of == "llama" else made.encoder.layer
    ran = [0, 0, 0]
    for i, block in enumerate(blocks):
        inner = next(block.children())
        inner.register_forward_hook(lambda module, inputs, output, i=i: ran.__setitem__(i, ran[i] + 1))
    names = [name for name in matrices(made) if ".2." in name]
    measure_sensitivity(made, WINDOWS, dict.fromkeys(names, rounded))
    assert ran[:2] == [2, 2]
    assert ran[2] == 2 + 1 + 2 * len(names)  # the dense outputs, the trial of the way round, each weight


def test_a_block_that_reads_more_than_its_input_runs_behind_those_it_reads():
    """The third block looks at what the first computed: leaving that out would give other outputs."""
    made, seen = model(), []
    blocks = made.model.layers
    blocks[0].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output))
    blocks[2].register_forward_hook(lambda module, inputs, output: output + seen.pop())
    name = "model.layers.2.mlp.down_proj"
    found = measure_sensitivity(made, WINDOWS, {name: rounded})
    whole = measure_sensitivity(made, WINDOWS, {name: rounded, "model.embed_tokens": rounded})
    assert found[name] == whole[name] > 0
    assert seen == []


def test_the_model_stays_what_it_was():
    made = model()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in made.state_dict().items()}
    hooked = made.model.layers[0]
    hooked.forward = hooked.forward  # as tools have it that wrap a forward

    def unchanged():
        return hooked.__dict__["forward"] and all(
            tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
            for name, tensor in made.state_dict().items()
        )

    def broken(weight):
        weight.zero_()
        raise RuntimeError("no such format")

    names = matrices(made)
    measure_sensitivity(made, WINDOWS, {name: lambda weight: weight.zero_() for name in names})
    assert unchanged()
    with pytest.raises(RuntimeError, match="no such format"):
        measure_sensitivity(made, WINDOWS, {names[-1]: broken})
    assert unchanged()
    with pytest.raises(ValueError, match=r"outputs with the other weight of model.layers.2.mlp.up_proj are not finite"):
        measure_sensitivity(made, WINDOWS, {"model.layers.2.mlp.up_proj": lambda weight: weight / 0})
    assert unchanged()
    assert not any("forward" in block.__dict__ for block in made.model.layers[1:])
    assert not any(block._forward_hooks for block in made.model.layers)


def test_progress_is_what_a_later_call_goes_on_with():
    made, told = model(), {}
    layers = dict.fromkeys(matrices(made)[:6], rounded)

    class StopError(Exception):
        pass

    def progress(name, cost):
        told[name] = cost
        if len(told) == 3:
            raise StopError

    with pytest.raises(StopError):
        measure_sensitivity(made, WINDOWS, layers, progress=progress)
    calls = []
    rest = {name: lambda weight: calls.append(1) or rounded(weight) for name in layers}
    again = measure_sensitivity(made, WINDOWS, rest, done=told)
    assert len(calls) == 3
    assert again == measure_sensitivity(made, WINDOWS, layers)
    assert measure_sensitivity(made, WINDOWS, layers, done=again) == again


def test_costs_go_with_the_square_of_small_errors_and_add_up():
    """What rate_points builds on, on a model of ours and formats of ours."""
    made = model()
    names = [name for name in matrices(made) if "proj" in name]
    weights = {name: made.get_parameter(name).detach() for name in names}
    stored = {name: {bits: tersor.quantize(weight, f"int{bits}-g32") for bits in (5, 6, 8)}
              for name, weight in weights.items()}  # fmt: skip

    def other(bits):
        return lambda name: lambda weight: torch.from_numpy(stored[name][bits].dequantize(np.float32).copy())

    probes = measure_sensitivity(made, WINDOWS, {name: other(6)(name) for name in names})
    points = rate_points(
        {name: [Probe(some[6].errors["weights"], probes[name])] for name, some in stored.items()},
        {name: [Point(q.nbytes, q.errors["weights"]) for q in some.values()] for name, some in stored.items()},
    )
    assert [points[name][1].error for name in names] == pytest.approx(list(probes.values()))
    eighth = measure_sensitivity(made, WINDOWS, {name: other(8)(name) for name in names})
    assert sum(points[name][2].error for name in names) == pytest.approx(sum(eighth.values()), rel=0.35)
    found = DynamicProgramming().choose(points, sum(some[6].nbytes for some in stored.values()))
    assert found.error <= sum(probes.values())


def test_costs_are_interpolated_between_probes_and_go_with_the_square_outside():
    options = {"a": [Point(i, error) for i, error in enumerate([0.0, 0.05, 0.1, 0.15, 0.2, 0.4])]}
    points = rate_points({"a": [Probe(0.2, 6.0), Probe(0.1, 1.0)]}, options)["a"]
    assert [rate for rate, _ in points] == list(range(6))
    between = 1 + 5 * (0.15**2 - 0.1**2) / (0.2**2 - 0.1**2)
    assert [cost for _, cost in points] == pytest.approx([0, 0.25, 1, between, 6, 24])


def test_what_cannot_be_measured_is_refused():
    made = model()
    for layers, text in (
        ({"model.layers.7": rounded}, "the model has no weight named 'model.layers.7'"),
        ({"lm_head": lambda weight: weight[:3]}, r"the other weight of lm_head is \[3, 32\], \[61, 32\] is needed"),
    ):
        with pytest.raises(ValueError, match=text):
            measure_sensitivity(made, WINDOWS, layers)
    with pytest.raises(ValueError, match="one window or more is needed"):
        measure_sensitivity(made, [], {"lm_head": rounded})
    with pytest.raises(ValueError, match="evaluation mode is needed"):
        measure_sensitivity(model().train(), WINDOWS, {"lm_head": rounded})
    with torch.no_grad():
        made.lm_head.weight[0] = np.nan
    with pytest.raises(ValueError, match="outputs of the model itself are not finite"):
        measure_sensitivity(made, WINDOWS, {"lm_head": rounded})
    for probes in ({}, {"a": []}, {"a": [Probe(0.1, 1.0), Probe(0.0, 1.0)]}, {"b": [Probe(0.1, 1.0)]}):
        with pytest.raises(ValueError, match="a needs a probe, each with an error above 0"):
            rate_points(probes, {"a": [Point(1, 0.1)]})
