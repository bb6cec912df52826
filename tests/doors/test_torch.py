"""tersor.torch: safetensors.torch's functions and behaviors over .tsr files, and the operators in torch.ops.tersor."""

import pathlib
import resource

import numpy as np
import pytest
import safetensors.torch
import torch

import tersor
import tersor.numpy
import tersor.torch

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.int16,
    torch.uint16, torch.float16, torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.float64, torch.int64,
    torch.uint64, torch.complex64,
]  # fmt: skip


def of_bits(dtype, shape, seed=0):
    count = int(np.prod(shape)) * dtype.itemsize
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, count, np.uint8)
    return torch.from_numpy(bits).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def bits_of(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(got, want):
    assert (got.dtype, got.shape, got.device) == (want.dtype, want.shape, want.device)
    assert bits_of(got) == bits_of(want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype):
    for shape in ((), (0, 3), (4, 5), (200, 301)):
        want = of_bits(dtype, shape)
        data = tersor.torch.compress(want)
        assert (data.dtype, data.dim()) == (torch.uint8, 1)
        assert_same(tersor.torch.decompress(data), want)
        assert bytes(data.numpy()) == tersor.compress(want)  # through DLPack
        assert_same(tersor.torch.load(tersor.torch.save({"x": want}))["x"], want)


def test_numpy_and_torch_write_the_same_bytes():
    weights = torch.randn(300, 400)
    assert tersor.torch.save({"w": weights}) == tersor.numpy.save({"w": weights.numpy()})
    assert tersor.compress(weights.bfloat16()) == bytes(tersor.torch.compress(weights.bfloat16()).numpy())


def test_file_round_trip(tmp_path):
    state = torch.nn.TransformerEncoderLayer(64, 4).state_dict()
    path = tmp_path / "m.tsr"
    tersor.torch.save_file(state, path, {"format": "pt"})
    for device in ("cpu", torch.device("cpu")):
        loaded = tersor.torch.load_file(path, device)
        assert loaded.keys() == state.keys()
        for name, tensor in state.items():
            assert_same(loaded[name], tensor)
    with tersor.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert_same(file.get_tensor("linear1.weight"), state["linear1.weight"])
        assert_same(file.get_slice("linear1.weight")[3:9, ::2], state["linear1.weight"][3:9, ::2].contiguous())
        assert_same(file.get_slice("linear1.bias")[5], state["linear1.bias"][5])


def test_loaded_tensors_are_ordinary(tmp_path):
    tersor.torch.save_file({"x": torch.ones(3)}, tmp_path / "m.tsr")
    loaded = tersor.torch.load_file(tmp_path / "m.tsr")["x"]
    loaded += 1
    assert loaded.requires_grad_().sum().item() == 6
    assert tersor.torch.load_file(tmp_path / "m.tsr", "meta")["x"].device.type == "meta"


def test_parameters_and_conjugates():
    parameter = torch.nn.Parameter(torch.randn(5))
    assert_same(tersor.torch.load(tersor.torch.save({"p": parameter}))["p"], parameter.detach())
    assert_same(torch.from_numpy(tersor.decompress(tersor.compress(parameter))), parameter.detach())
    numbers = torch.randn(4, dtype=torch.complex64)
    assert_same(tersor.torch.load(tersor.torch.save({"c": numbers.conj()}))["c"], numbers.conj().resolve_conj())


def bad_tensors():
    square = torch.randn(4, 4)
    return {
        "strided": {"a": square.t()},
        "shared": {"a": square, "b": square},
        "overlapping": {"a": square[:3], "b": square[2:]},
        "sparse": {"a": square.to_sparse()},
        "no tensor": {"a": [1.0]},
        "no dict": [square],
    }


@pytest.mark.parametrize("case", bad_tensors())
def test_refuses_what_safetensors_refuses(tmp_path, case):
    tensors = bad_tensors()[case]
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - its type is what the test is about
        safetensors.torch.save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(theirs.type, match="share memory" if theirs.type is RuntimeError else "needed|found"):
        tersor.torch.save_file(tensors, tmp_path / "m.tsr")
    assert not (tmp_path / "m.tsr").exists()


def test_a_tensor_without_elements_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found one on device meta"):
        tersor.torch.save_file({"a": torch.empty(3, device="meta")}, tmp_path / "m.tsr")


def test_strided_bf16_through_dlpack_is_put_in_order():
    square = torch.randn(5, 7).bfloat16()
    assert tersor.compress(square.t()) == tersor.compress(square.t().contiguous())


def test_rows_of_one_storage_are_taken(tmp_path):
    """Views that do not overlap may be saved, by safetensors and here."""
    square = torch.randn(4, 4)
    tensors = {"a": square[:2], "b": square[2:]}
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors")
    assert_same(tersor.torch.load(tersor.torch.save(tensors))["b"], square[2:].clone())


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight


def test_save_model_and_load_model(tmp_path):
    model, twin = Tied(), Tied()
    tersor.torch.save_model(model, tmp_path / "m.tsr", {"by": "test"})
    safetensors.torch.save_model(model, tmp_path / "m.safetensors", {"by": "test"})
    with (
        tersor.safe_open(tmp_path / "m.tsr", "pt") as ours,
        safetensors.safe_open(tmp_path / "m.safetensors", "pt") as theirs,
    ):
        assert ours.keys() == theirs.keys()
        assert ours.metadata() == theirs.metadata()
    missing, unexpected = tersor.torch.load_model(twin, tmp_path / "m.tsr")
    assert (set(missing), list(unexpected)) == (set(), [])
    assert twin.head.weight.data_ptr() == twin.embedding.weight.data_ptr()
    for name, tensor in model.state_dict().items():
        assert_same(twin.state_dict()[name], tensor)


def test_load_model_says_what_does_not_fit(tmp_path):
    tersor.torch.save_model(torch.nn.Linear(3, 2), tmp_path / "m.tsr")
    with pytest.raises(RuntimeError, match="Sequential") as caught:
        tersor.torch.load_model(torch.nn.Sequential(torch.nn.Linear(3, 2)), tmp_path / "m.tsr")
    assert "missing in the file: 0.bias, 0.weight\n" in str(caught.value)
    assert "unexpected in the file: bias, weight" in str(caught.value)
    missing, unexpected = tersor.torch.load_model(torch.nn.Linear(3, 2, bias=False), tmp_path / "m.tsr", strict=False)
    assert (set(missing), list(unexpected)) == (set(), ["bias"])


def test_a_model_that_shares_only_parts_is_refused(tmp_path):
    model = torch.nn.Module()
    storage = torch.randn(10)
    model.a, model.b = torch.nn.Parameter(storage[:6]), torch.nn.Parameter(storage[4:])
    with pytest.raises(RuntimeError, match="none covers all of it"):
        tersor.torch.save_model(model, tmp_path / "m.tsr")


def test_force_contiguous(tmp_path):
    model = torch.nn.Linear(4, 4)
    model.weight = torch.nn.Parameter(torch.randn(4, 4).t())
    tersor.torch.save_model(model, tmp_path / "m.tsr")
    assert_same(tersor.torch.load_file(tmp_path / "m.tsr")["weight"], model.weight.detach().contiguous())
    with pytest.raises(ValueError, match="contiguous"):
        tersor.torch.save_model(model, tmp_path / "m.tsr", force_contiguous=False)


@pytest.mark.parametrize(
    ("stranger", "kind", "text"),
    [
        ([1.0], ValueError, "a torch.Tensor is needed, found list"),
        (torch.eye(3).to_sparse(), ValueError, "a dense tensor is needed"),
        (torch.zeros(3, device="meta"), ValueError, "a tensor with elements is needed"),
        (torch.zeros(3, dtype=torch.complex128), TypeError, "dtype torch.complex128 is not one of"),
    ],
    ids=["list", "sparse", "meta", "complex128"],
)
def test_errors_name_the_tensor_where_there_are_many(stranger, kind, text):
    with pytest.raises(kind, match=f"^{text}"):
        tersor.torch.compress(stranger)
    with pytest.raises(kind, match=f"^tensor 'odd': {text}"):
        tersor.torch.save({"even": torch.zeros(2), "odd": stranger})


def test_decompress_into_out():
    want = torch.randn(100, 20).bfloat16()
    data = tersor.torch.compress(want, level=9)
    out = torch.zeros_like(want)
    assert tersor.torch.decompress(data, out) is out
    assert_same(out, want)
    with pytest.raises(ValueError, match="strided"):
        tersor.torch.decompress(data, torch.zeros(20, 100, dtype=torch.bfloat16).t())
    with pytest.raises(TypeError, match="out is F32"):
        tersor.torch.decompress(data, torch.zeros(100, 20))
    with pytest.raises(tersor.FormatError):
        tersor.torch.decompress(data[:-1])


def test_torch_threads_are_obeyed(monkeypatch):
    seen = []
    data = tersor.torch.compress(torch.randn(10))
    save = tersor._core.save
    monkeypatch.setattr(tersor._core, "save", lambda *arguments: seen.append(arguments[-1]) or save(*arguments))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        tersor.torch.save({"x": torch.randn(10)})
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
    assert len(data)


# ---- operators -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    want = torch.randn(64, 33).bfloat16()
    return tersor.torch.compress(want), want


def test_operator_fills_out(pair):
    data, want = pair
    out = torch.zeros_like(want)
    assert torch.ops.tersor.decompress_into(data, out) is None
    assert_same(out, want)
    for dtype in DTYPES:
        want = of_bits(dtype, (7, 3))
        out = torch.empty_like(want)
        torch.ops.tersor.decompress_into(tersor.torch.compress(want), out)
        assert_same(out, want)


def test_operator_passes_opcheck(pair):
    data, want = pair
    torch.library.opcheck(torch.ops.tersor.decompress_into.default, (data, torch.zeros_like(want)))


def test_operator_compiles_without_graph_breaks(pair):
    data, want = pair

    @torch.compile(fullgraph=True, backend="aot_eager")
    def embed(packed, x):
        weight = x.new_empty(64, 33)
        torch.ops.tersor.decompress_into(packed, weight)
        return x @ weight

    x = torch.randn(5, 64).bfloat16()
    torch.testing.assert_close(embed(data, x), x @ want)


def test_operator_says_what_is_wrong(pair):
    data, want = pair
    operator = torch.ops.tersor.decompress_into
    with pytest.raises(RuntimeError, match=r"out is F32 \[64, 33\].*BF16 \[64, 33\]"):
        operator(data, torch.zeros(64, 33))
    with pytest.raises(RuntimeError, match=r"out is BF16 \[33, 64\]"):
        operator(data, torch.zeros(33, 64, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="contiguous"):
        operator(data, torch.zeros(33, 64, dtype=torch.bfloat16).t())
    with pytest.raises(RuntimeError, match="data: uint8"):
        operator(data.float(), want)
    with pytest.raises(RuntimeError, match="dtype"):
        operator(data, torch.zeros(64, 33, dtype=torch.complex128))
    with pytest.raises(RuntimeError):
        operator(data[:-3], torch.zeros_like(want))


def test_operator_does_not_leak():
    """60 000 calls; the two handles of a call, not given back, would cost 64 bytes."""
    want = torch.randn(4)
    data, out = tersor.torch.compress(want), torch.zeros(4)
    call = torch.ops.tersor.decompress_into.default

    def run(times):
        for _ in range(times):
            call(data, out)
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = run(5_000)
    assert run(60_000) - before < 2_000_000
    assert_same(out, want)


def test_operators_are_registered_once_and_named_by_show_config():
    tersor._core.register_torch_ops()
    facts = tersor.show_config("dicts")["torch"]
    assert facts == {"version": torch.__version__, "operators": True}
