"""QuantLinear, QuantEmbedding and convert_: beside dequantized weights, in files, tied, compiled, in a tiny Llama."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor  # noqa: E402
import tersor.torch  # noqa: E402
from tersor.formats import Hadamard, Outliers  # noqa: E402
from tersor.nn import QuantEmbedding, QuantLinear, convert_  # noqa: E402

FORMATS = ["int4-g32", "ternary", "int3-g64-zero", "q4_k", "nf4", "mxfp4", "nvfp4", "int8"]


def dense(rows=40, columns=96, bias=True, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(columns, rows, bias=bias)


def tokens(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Tied(torch.nn.Module):
    """An embedding, a block, and a head that has the embedding's weight."""

    def __init__(self, vocabulary=50, dim=64):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, dim, padding_idx=1)
        self.block = torch.nn.Sequential(torch.nn.Linear(dim, 96), torch.nn.ReLU(), torch.nn.Linear(96, dim))
        self.norm = torch.nn.LayerNorm(dim)
        self.head = torch.nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.norm(x + self.block(x)))


@pytest.fixture
def tied():
    torch.manual_seed(0)
    return Tied().eval()


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_layer_is_its_dequantized_weight(fmt):
    linear = dense()
    layer = QuantLinear.from_float(linear, fmt)
    q = tersor.quantize(linear.weight.detach(), fmt)
    assert torch.equal(layer.weight, torch.from_numpy(q.dequantize()))
    x = tokens(2, 3, 96)
    want = torch.nn.functional.linear(x, layer.weight, linear.bias)
    assert torch.linalg.norm(layer(x) - want) < 0.02 * torch.linalg.norm(want)
    assert torch.equal(layer(x), tersor.linear(x, q, linear.bias))
    assert f"{q.bits_per_weight:.2f} bits/weight" in repr(layer)
    assert str(q.format) in repr(layer)


def test_gradients_beside_dense():
    linear = dense()
    layer = QuantLinear.from_float(linear, "int4-g32")
    assert layer.bias is linear.bias  # a parameter as before
    ours, theirs = tokens(5, 96).requires_grad_(), tokens(5, 96).requires_grad_()
    layer(ours).pow(2).sum().backward()
    bias, linear.bias.grad = linear.bias.grad, None
    torch.nn.functional.linear(theirs, layer.weight, linear.bias).pow(2).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.05, atol=0.05)
    torch.testing.assert_close(bias, linear.bias.grad, rtol=0.05, atol=0.05)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_state_dict_is_the_parts_bit_for_bit(fmt):
    q = tersor.quantize(dense().weight.detach(), fmt)
    layer = QuantLinear.from_quantized(q, torch.ones(40))
    state = layer.state_dict()
    assert set(state) == {*q.parts, "bias"}
    assert all(type(tensor) is torch.Tensor for tensor in state.values())
    for name, array in q.parts.items():
        assert state[name].shape == array.shape
        assert state[name].reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()
    other = QuantLinear.from_float(dense(seed=5), fmt)
    before = other(tokens(2, 96))
    other.load_state_dict(state)
    assert torch.equal(other(tokens(2, 96)), layer(tokens(2, 96)))
    assert not torch.equal(other(tokens(2, 96)), before)
    assert list(other.quantized().parts) == list(q.parts)


def test_codes_are_in_memory_once():
    """After packing nothing of the size of the codes is held but the packed matrix."""
    layer = QuantLinear.from_float(dense(512, 512, bias=False), "int4-g128")
    held = layer.packed_weight
    kept = sum(array.nbytes for array in held._kept.values())
    assert set(held._kept) == {"scales"}
    assert kept == 512 * 512 // 128 * 2
    assert held.packed.nbytes < 512 * 512 * 4.125 / 8 + 4096


def test_loading_what_does_not_fit():
    layer = QuantLinear.from_float(dense(), "int4-g32")
    state = layer.state_dict()
    y = layer(tokens(1, 96))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "scales"'):
        layer.load_state_dict({name: tensor for name, tensor in state.items() if name != "scales"})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "zeros"'):
        layer.load_state_dict({**state, "zeros": torch.zeros(3)})
    for bad, text in [
        ({"codes": state["codes"][:-1]}, "stored in int4-g32.*codes"),
        ({"scales": state["scales"].float()}, "stored in int4-g32.*scales"),
        ({"scales": torch.full_like(state["scales"], torch.inf)}, "stored in int4-g32.*scales"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            layer.load_state_dict({**state, **bad})
        assert torch.equal(layer(tokens(1, 96)), y)  # it stays as it was
    missing, unexpected = layer.load_state_dict({"bias": torch.zeros(40)}, strict=False)
    assert missing == ["codes", "scales"]
    assert not unexpected


def test_copies_casts_and_pickles():
    layer = QuantLinear.from_float(dense(), "int4-g32", activations="int8-g128")
    x = tokens(2, 96)
    y = layer(x)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
    for other in copies:
        assert torch.equal(other(x), y)
        assert other.activations == "int8-g128"
    copies[0].load_state_dict(QuantLinear.from_float(dense(seed=3), "int4-g32").state_dict())
    assert torch.equal(layer(x), y)  # a copy that loads leaves its origin as it is
    half = copies[1].to(torch.bfloat16)
    assert half.bias.dtype == torch.bfloat16
    assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert torch.equal(half.weight, layer.weight)
    assert half.quantized().parts["scales"].dtype == np.float16  # the stored numbers are not cast
    with pytest.raises(RuntimeError, match="low-bit layers run on the CPU, meta is asked for"):
        copies[2].to("meta")


def test_embedding():
    embedding = torch.nn.Embedding(50, 64, padding_idx=3)
    layer = QuantEmbedding.from_float(embedding, "int4-g32")
    ids = torch.tensor([[0, 49], [3, 0]])
    assert torch.equal(layer(ids), layer.weight[ids])
    assert torch.equal(layer(ids.int()), layer.weight[ids])
    assert layer.to(torch.bfloat16)(ids).dtype == torch.bfloat16
    assert torch.equal(layer(ids), layer.weight[ids].to(torch.bfloat16))
    assert "50, 64, padding_idx=3, int4-g32, 4.50 bits/weight" in repr(layer)
    with pytest.raises(RuntimeError, match=r"id 50 at 0: rows are 0\.\.49"):
        layer(torch.tensor([50]))
    with pytest.raises(ValueError, match="max_norm"):
        QuantEmbedding.from_float(torch.nn.Embedding(5, 64, max_norm=1.0), "int4-g32")
    head = QuantLinear.from_embedding(layer)
    assert head.packed_weight is layer.packed_weight
    assert head(tokens(2, 64)).shape == (2, 50)


def test_activation_error():
    layer = QuantLinear.from_float(dense(256, 1024), "int4-g128")
    x = tokens(8, 1024)
    error = layer.activation_error(x)
    exact = x.double() @ layer.weight.double().T
    want = torch.linalg.norm(layer(x).double() - layer.bias - exact) / torch.linalg.norm(exact)
    assert error == pytest.approx(float(want.detach()), rel=1e-3)
    assert 1e-3 < error < 1e-2
    x[:, 7] *= 100
    assert layer.activation_error(x) > 2 * error  # what a column of outliers costs
    by_token = layer.activation_error(x)
    layer.activations = "int8-g128"
    assert layer.activation_error(x) < by_token
    layer.activations = "exact"
    assert layer.activation_error(x) < 1e-5
    assert QuantLinear.from_float(dense(), "int4-g32").activation_error(torch.zeros(1, 96)) == 0


def test_compiled_whole(tied):
    convert_(tied, "int4-g32")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(torch.compile(tied, fullgraph=True)(ids), tied(ids))
    block = torch.compile(tied.block, fullgraph=True)
    ours, theirs = tokens(4, 64).requires_grad_(), tokens(4, 64).requires_grad_()
    block(ours).sum().backward()
    tied.block(theirs).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_convert_and_its_report(tied):
    hooked = []
    tied.block[0].register_forward_hook(lambda *_: hooked.append(1))
    ids = torch.tensor([[4, 5, 6]])
    want = tied(ids)
    report = {row.name: row for row in convert_(tied, "int8-g32")}
    assert list(report) == ["embed", "block.0", "block.2", "head"]
    assert isinstance(tied.block[0], QuantLinear)
    assert isinstance(tied.embed, QuantEmbedding)
    assert tied.head.packed_weight is tied.embed.packed_weight
    row = report["block.0"]
    assert row.format == "int8-g32"
    assert row.nbytes == 96 * 64 + 96 * 2 * 2
    assert row.bits_per_weight == 8.5
    assert 0 < row.error < 0.01
    assert report["head"].tied_to == "embed"
    assert report["head"].nbytes == 0
    assert torch.linalg.norm(tied(ids) - want) < 0.03 * torch.linalg.norm(want)
    assert hooked
    assert all(not row.reason for row in report.values())
    assert convert_(tied, "int4-g32") == []  # nothing dense is left


def test_ties_through_files(tied, tmp_path):
    convert_(tied, "int4-g32")
    ids = torch.tensor([[4, 5, 6]])
    y = tied(ids)
    state = tied.state_dict()
    assert state["head.codes"].data_ptr() == state["embed.codes"].data_ptr()
    torch.manual_seed(7)
    other = Tied().eval()
    convert_(other, "int4-g32")
    assert not torch.equal(other(ids), y)
    other.load_state_dict(state)
    assert torch.equal(other(ids), y)
    tersor.torch.save_model(tied, tmp_path / "model.tsr")  # which stores what is shared once
    torch.manual_seed(8)
    third = Tied().eval()
    convert_(third, "int4-g32")
    assert tersor.torch.load_model(third, tmp_path / "model.tsr") == (set(), [])
    assert torch.equal(third(ids), y)
    for both in copy.deepcopy(tied), pickle.loads(pickle.dumps(tied)):
        assert both.head.packed_weight is both.embed.packed_weight
        assert both.head.packed_weight is not tied.head.packed_weight
        assert torch.equal(both(ids), y)


def test_what_stays_dense_says_why(tied):
    class Own(torch.nn.Linear):
        pass

    tied.own = Own(64, 64)
    tied.bad = torch.nn.Linear(64, 64)
    tied.bad.weight.data[3, 5] = torch.nan
    tied.shared = torch.nn.Linear(64, 64)
    tied.holder = torch.nn.ParameterList([tied.shared.weight])
    tied.patched = torch.nn.Linear(64, 64)
    tied.patched.forward = lambda x: x
    tied.limited = torch.nn.Embedding(5, 64, max_norm=1.0)
    tied.wide = torch.nn.Linear(64, 64, dtype=torch.float64)
    tied.absent = torch.nn.Linear(64, 64, device="meta")
    report = {row.name: row for row in convert_(tied, "int4-g32", skip=["head", "block.?"])}
    for name, text in {
        "embed": "its weight is that of head, which is skipped",
        "head": "its weight is that of head, which is skipped",
        "block.0": "skipped",
        "bad": "1 ",
        "shared": "another module holds the weight as well",
        "patched": "a forward of its own",
        "limited": "max_norm",
        "wide": "not F64",
        "absent": "the weight is on meta",
    }.items():
        assert text in report[name].reason, (name, report[name].reason)
        assert not report[name].format
        assert not isinstance(tied.get_submodule(name), (QuantLinear, QuantEmbedding))
    assert report["block.0"].bits_per_weight == 32
    assert "own" not in report
    assert torch.isfinite(tied(torch.tensor([[4]]))).all()


def test_what_cannot_be_packed_stays_dense(tied):
    (row,) = convert_(torch.nn.Sequential(torch.nn.Linear(64, 8)), "codebook16-channel")
    assert "8 bits do not hold these levels" in row.reason
    rows = convert_(tied, "fp8-e4m3", activations="int8")
    assert "8 bits do not hold these levels" in rows[1].reason
    with pytest.raises(ValueError, match="8 bits do not hold"):
        QuantLinear.from_float(dense(), "fp8-e4m3", activations="int8")
    assert QuantLinear.from_float(dense(), "fp8-e4m3", activations="exact").activation_error(tokens(3, 96)) < 1e-5


def test_transforms_and_side_terms_are_kept():
    weight = dense().weight.detach()
    recorded = {"transforms": [Hadamard(seed=1)], "side_terms": [Outliers.fit(weight.numpy(), 0.02)]}
    q = tersor.quantize(weight, "int8", **recorded)
    layer, other = (
        QuantLinear.from_quantized(q),
        QuantLinear.from_quantized(tersor.quantize(weight * 2, "int8", **recorded)),
    )
    x = tokens(5, 96)
    want = x.double() @ torch.from_numpy(q.dequantize(np.float32)).double().T
    assert (layer(x) - want).norm() < 0.02 * want.norm()
    assert torch.allclose(layer.weight, torch.from_numpy(q.dequantize(np.float32)), atol=1e-6)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_what_is_refused(tied):
    for call, error, text in [
        (lambda: convert_([tied], "int4-g32"), TypeError, "found list"),
        (lambda: convert_(tied, "int7"), ValueError, "no format is named 'int7'"),
        (lambda: convert_(tied, "int4-g32", skip="lm_head"), ValueError, "no linear or embedding layer is named"),
        (lambda: convert_(tied, "int4-g32", activations="int7"), ValueError, "activations are int8"),
        (lambda: QuantLinear.from_float(dense().to("meta"), "int4-g32"), ValueError, "the weight is on meta"),
        (
            lambda: QuantLinear.from_quantized(tersor.quantize(np.ones((8, 64), np.float32), "int4-g32"), tokens(9)),
            ValueError,
            r"bias is \[9\], \[8\] is needed",
        ),
    ]:
        with pytest.raises(error, match=text):
            call()
    assert isinstance(tied.head, torch.nn.Linear)


def test_a_tiny_llama():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0, eos_token_id=None, bos_token_id=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.arange(2, 18).reshape(2, 8)
    with torch.no_grad():
        want = model(ids).logits
        report = convert_(model, "int8-g64")
        got = model(ids).logits
    assert len(report) == 2 * 7 + 2
    assert not any(row.reason for row in report)
    assert model.lm_head.packed_weight is model.model.embed_tokens.packed_weight
    assert torch.linalg.norm(got - want) < 0.05 * torch.linalg.norm(want)
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert generated.shape == (2, 12)
    half = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        assert half(ids).logits.dtype == torch.bfloat16


def test_nothing_is_printed():
    script = "import torch, tersor.nn; tersor.nn.convert_(torch.nn.Sequential(torch.nn.Linear(64, 64)), 'int4-g32')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
