"""The run over a model: architectures by the types of their modules, the same bytes after a crash and on any thread."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

from tersor.formats.model_folder import ModelFolder  # noqa: E402
from tersor.nn.quantized import read_exactly  # noqa: E402
from tersor.transformers import model_facts  # noqa: E402
from tersor.transformers.quantizing import Target, quantize  # noqa: E402
from tersor.weights import LayerRecipe, Recipe, Rule  # noqa: E402

VOCABULARY = 96
SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
FEW = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
MOE = {"num_experts": 4, "moe_intermediate_size": 48, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
# class, numbers, matrices that are quantized
ZOO = {
    "llama": ("LlamaForCausalLM", SMALL, 14),
    "mistral": ("MistralForCausalLM", SMALL, 14),
    "qwen2": ("Qwen2ForCausalLM", SMALL, 14),
    "qwen3": ("Qwen3ForCausalLM", {**SMALL, "head_dim": 16}, 14),
    "gemma2": ("Gemma2ForCausalLM", {**SMALL, "head_dim": 16}, 14),
    "gemma3": ("Gemma3ForCausalLM", {**SMALL, "head_dim": 16, "num_hidden_layers": 3, "sliding_window_pattern": 2}, 21),
    "phi": ("PhiForCausalLM", SMALL, 12),
    "phi3": ("Phi3ForCausalLM", SMALL, 8),
    "gpt2": ("GPT2LMHeadModel", GPT2, 8),
    "gpt_neox": ("GPTNeoXForCausalLM", FEW, 8),
    "mixtral": ("MixtralForCausalLM", {**SMALL, "num_local_experts": 4}, 24),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**SMALL, **MOE, "head_dim": 16}, 24),
    "bert": ("BertModel", FEW, 12),
    "albert": ("AlbertModel", {**FEW, "embedding_size": 32}, 8),  # one block, called twice
}
RECIPE = Recipe(layer=LayerRecipe(format="int4-g32"), samples=4, length=32)


def _tokenizer(folder):
    import tokenizers

    letters = "abcdefghijklmnopqrstuvwxyz "
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(folder)


def _text(seed: int = 0, count: int = 32 * 24) -> str:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    return "".join(np.random.default_rng(seed).choice(letters, count))


def _made(folder, name: str):
    """A random model in a folder of its own; returns the model, in float32."""
    class_name, numbers, _ = ZOO[name]
    found = getattr(transformers, class_name)
    torch.manual_seed(0)
    found(found.config_class(**numbers)).to(torch.bfloat16).save_pretrained(folder)
    _tokenizer(folder)
    return found.from_pretrained(folder, dtype=torch.float32).eval()


def _outputs(model):
    ids = torch.arange(40)[None] * 7 % VOCABULARY
    with torch.no_grad():
        return model(input_ids=ids)[0]


def _exact(model):
    read_exactly(model)
    return model


@pytest.mark.parametrize("name", ZOO)
def test_every_architecture(tmp_path, name):
    dense = _made(tmp_path / "in", name)
    made = quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text())
    found = [layer for layer in made.layers if layer.format]
    assert len(found) == ZOO[name][2]
    assert all(layer.reason for layer in made.layers if not layer.format)
    assert made.loss.windows == 8
    # The model is the dense one with the matrices that the file has in the place of its own.
    state = dense.state_dict()
    with ModelFolder(tmp_path / "out") as folder:
        for parameter, row in folder.rows.items():
            matrix = torch.from_numpy(folder.get(parameter).dequantize(np.float32))
            if row["module"] == "expert":
                rest, _, number = parameter.rpartition(".")
                state[rest][int(number)] = matrix
            else:
                state[parameter].copy_(matrix.T if row["module"] == "conv1d" else matrix)
    dense.load_state_dict(state)
    loaded = _exact(getattr(transformers, ZOO[name][0]).from_pretrained(tmp_path / "out", dtype=torch.float32).eval())
    wanted, given = _outputs(dense), _outputs(loaded)
    assert float((given - wanted).norm() / wanted.norm()) < 1e-5
    loaded.save_pretrained(tmp_path / "again")
    again = _exact(type(loaded).from_pretrained(tmp_path / "again", dtype=torch.float32).eval())
    assert torch.equal(_outputs(again), given)


def test_what_runs_is_what_was_solved(tmp_path):
    """Blocks are calibrated behind quantized ones, and the printed error is that of the layer's outputs."""
    _made(tmp_path / "in", "llama")
    results = {}
    for solver in ("rtn", "gptq"):
        recipe = Recipe(layer=LayerRecipe(format="int3-g32", solver=solver), samples=16, length=32)
        made = quantize(tmp_path / "in", tmp_path / solver, recipe, text=_text())
        results[solver] = {layer.name: layer for layer in made.layers if layer.format}
        assert all(layer.bits_per_weight == 3.5 for layer in results[solver].values())
    assert all(layer.tokens == 16 * 32 and layer.output_error > 0 for layer in results["gptq"].values())
    assert all(layer.tokens == 0 for layer in results["rtn"].values())


def test_rules_embeddings_and_a_tied_head(tmp_path):
    class_name, numbers, _ = ZOO["llama"]
    found = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = found(found.config_class(**{**numbers, "tie_word_embeddings": True}))
    model.save_pretrained(tmp_path / "in")
    _tokenizer(tmp_path / "in")
    recipe = Recipe(
        layer=LayerRecipe(format="int4-g32"),
        rules=(Rule(pattern="*.down_proj.weight"), Rule(pattern="*.1.self_attn.q*", layer=LayerRecipe(format="int8"))),
        embeddings=LayerRecipe(format="int8-g32", solver="rtn"),
        samples=4,
        length=32,
    )
    made = quantize(tmp_path / "in", tmp_path / "out", recipe, text=_text())
    rows = {layer.name: layer for layer in made.layers}
    assert rows["model.layers.0.mlp.down_proj.weight"].reason == "the recipe leaves it dense"
    assert rows["model.layers.1.self_attn.q_proj.weight"].format == "int8-channel"
    assert rows["lm_head.weight"].tied_to == "model.embed_tokens.weight"
    loaded = found.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.packed_weight is loaded.model.embed_tokens.packed_weight
    facts = [model_facts(tmp_path / folder) for folder in ("in", "out")]
    assert facts[0].weights == facts[1].weights  # tied ones once
    assert (
        Recipe.from_yaml(json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["recipe"])
        == recipe
    )


def _bytes(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "config.json", "README.md")}


def test_threads_decide_no_byte(tmp_path):
    _made(tmp_path / "in", "llama")
    for threads in (1, 2, 3):
        quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text(), threads=threads, overwrite=True)
        (tmp_path / "out").rename(tmp_path / f"out{threads}")
    assert _bytes(tmp_path / "out1") == _bytes(tmp_path / "out2") == _bytes(tmp_path / "out3")


CHILD = """
import os, signal, sys
from tersor.transformers.quantizing import quantize
from tersor.weights import LayerRecipe, Recipe

def die(row, done, total):
    if done == 12:  # in the second block
        os.kill(os.getpid(), signal.SIGKILL)

recipe = Recipe(layer=LayerRecipe(format="int4-g32"), samples=4, length=32)
quantize(sys.argv[1], sys.argv[2], recipe, text=open(sys.argv[3]).read(), progress=die)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    _made(tmp_path / "in", "llama")
    (tmp_path / "text").write_text(_text())
    quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text())
    whole = _bytes(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    command = [sys.executable, "-c", CHILD, tmp_path / "in", tmp_path / "out", tmp_path / "text"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out/.parts").glob("*.safetensors"))) == 2
    with pytest.raises(FileExistsError, match="--resume goes on"):
        quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text())
    with pytest.raises(ValueError, match="was begun with another calibration"):
        quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text(1), resume=True)
    quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text(), resume=True)
    assert _bytes(tmp_path / "out") == whole


def test_a_run_that_ended_while_it_wrote_the_model_goes_on(tmp_path, monkeypatch):
    """Cut off between the weights and config.json, and while parts are taken away."""
    from tersor.formats import model_folder

    _made(tmp_path / "in", "llama")
    quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text())
    whole = _bytes(tmp_path / "out")

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    for name in ("write_json", "shutil"):
        with monkeypatch.context() as patched:
            if name == "shutil":
                patched.setattr(model_folder.os, "replace", _only(model_folder.os.replace, ".parts", stop))
            else:
                patched.setattr(model_folder, "write_json", _only(model_folder.write_json, "config.json", stop))
            with pytest.raises(KeyboardInterrupt):
                quantize(tmp_path / "in", tmp_path / name, RECIPE, text=_text())
        other = Recipe(layer=LayerRecipe(format="int8-g32"), samples=4, length=32)
        with pytest.raises(ValueError, match="was begun with another recipe"):
            quantize(tmp_path / "in", tmp_path / name, other, text=_text(), resume=True)
        quantize(tmp_path / "in", tmp_path / name, RECIPE, text=_text(), resume=True)
        assert _bytes(tmp_path / name) == whole
        assert not any(path.name.startswith(".") for path in (tmp_path / name).iterdir())


def _only(function, ending: str, instead):
    def chosen(first, *rest, **named):
        return (instead if str(first).endswith(ending) else function)(first, *rest, **named)

    return chosen


def test_what_is_not_ours_is_not_overwritten(tmp_path):
    _made(tmp_path / "home/in", "llama")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_text("kept")
    for out, told in ((tmp_path / "home", "neither around it"), (tmp_path / "home/in/out", "neither around it")):
        with pytest.raises(ValueError, match=told):
            quantize(tmp_path / "home/in", out, RECIPE, text=_text(), overwrite=True)
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(FileExistsError, match="nothing that tersor quantize has made"):
            quantize(tmp_path / "home/in", tmp_path / "photos", RECIPE, text=_text(), **options)
    assert (tmp_path / "photos/one.jpg").read_text() == "kept"
    quantize(tmp_path / "home/in", tmp_path / "out", RECIPE, text=_text())
    with pytest.raises(ValueError, match="the calibration text has 3 tokens"):
        quantize(tmp_path / "home/in", tmp_path / "out", RECIPE, text="abc", overwrite=True)
    assert (tmp_path / "out/config.json").exists()  # what stands there goes last


def test_what_is_tied_beside_the_embedding_is_in_the_file(tmp_path):
    """BERT's head has a bias under two names; a masked model predicts no next token."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**FEW, architectures=["BertForMaskedLM"])
    transformers.BertForMaskedLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "in")
    _tokenizer(tmp_path / "in")
    embeddings = LayerRecipe(format="int8-g32", solver="rtn")
    recipe = dataclasses.replace(RECIPE, embeddings=embeddings)
    made = quantize(tmp_path / "in", tmp_path / "out", recipe, text=_text())
    assert (made.loss.perplexity, made.loss.kl_mean > 0) == (None, True)
    model = transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert model.dtype == torch.bfloat16
    assert torch.isfinite(_outputs(model)).all()


def test_an_encoder_with_a_decoder_is_rounded_without_a_text(tmp_path):
    config = transformers.T5Config(d_model=64, d_ff=96, num_layers=2, num_heads=4, d_kv=16, vocab_size=VOCABULARY)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "in")
    _tokenizer(tmp_path / "in")
    made = quantize(tmp_path / "in", tmp_path / "out", Recipe(layer=LayerRecipe(format="int4-g32", solver="rtn")))
    assert sum(bool(layer.format) for layer in made.layers) == 2 * (4 + 2) + 2 * (8 + 2)
    with pytest.raises(ValueError, match="an encoder with a decoder"):
        quantize(tmp_path / "in", tmp_path / "text", RECIPE, text=_text())


def test_experts_stay_together(tmp_path):
    _made(tmp_path / "in", "mixtral")
    recipe = Recipe(layer=RECIPE.layer, rules=(Rule(pattern="*.0.mlp.experts.*_proj.1"),), samples=4, length=32)
    made = quantize(tmp_path / "in", tmp_path / "out", recipe, text=_text())
    dense = [layer for layer in made.layers if ".0.mlp.experts." in layer.name]
    assert len(dense) == 8
    assert not any(layer.format for layer in dense)
    assert all("stays dense" in layer.reason or "leaves it dense" in layer.reason for layer in dense)
    transformers.MixtralForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("solver", ["learned", "discquant"])
def test_what_learns_is_better_than_what_it_began_with(tmp_path, solver):
    _made(tmp_path / "in", "llama")
    losses = {}
    for name in ("gptq", solver):
        recipe = Recipe(layer=LayerRecipe(format="int2-g32", solver=name), samples=8, length=32)
        made = quantize(tmp_path / "in", tmp_path / name, recipe, text=_text())
        losses[name] = made.loss.kl_mean
        with ModelFolder(tmp_path / name) as folder:
            assert all(row["format"]["bits"] == 2 for row in folder.rows.values())
    assert losses[solver] < losses["gptq"]


def test_bits_land_within_the_target(tmp_path):  # EvoPress: tests/nn/test_allocating.py
    _made(tmp_path / "in", "llama")
    recipe = Recipe(layer=LayerRecipe(format="int4-g32"), samples=4, length=32)
    target = Target(bits_per_weight=4.0)
    made = quantize(tmp_path / "in", tmp_path / "out", recipe, text=_text(), target=target)
    assert 3.96 <= made.bits_per_weight <= 4.0
    assert made.predicted > 0
    assert len({layer.format for layer in made.layers if layer.format}) > 1
    size = int(made.bytes * 1.04)
    fitted = quantize(tmp_path / "in", tmp_path / "size", recipe, text=_text(), target=Target(size=size))
    assert 0.9 * size <= fitted.bytes <= size  # a header weighs in so small a model
    with pytest.raises(ValueError, match="one of the two"):
        Target()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("llama", "abc", r"the calibration text has 3 tokens, 64 are needed"),
        ("llama", None, r"q_proj.weight: its solver needs a calibration text"),
    ],
)
def test_texts_that_do_not_serve(tmp_path, name, text, told):
    _made(tmp_path / "in", name)
    with pytest.raises(ValueError, match=told):
        quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=text)


def test_models_that_cannot_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is needed"):
        quantize(tmp_path, tmp_path / "out", RECIPE)
    _made(tmp_path / "in", "llama")
    with pytest.raises(ValueError, match="must go elsewhere"):
        quantize(tmp_path / "in", tmp_path / "in", RECIPE)
    quantize(tmp_path / "in", tmp_path / "out", RECIPE, text=_text())
    with pytest.raises(ValueError, match="is quantized already"):
        quantize(tmp_path / "out", tmp_path / "twice", RECIPE, text=_text())
    unknown = dataclasses.replace(RECIPE, rules=(Rule(pattern="*.nothing"),))
    with pytest.raises(ValueError, match=r"the rule '\*.nothing' names no layer"):
        quantize(tmp_path / "in", tmp_path / "out3", unknown, text=_text())
    assert not (tmp_path / "out3").exists()
    with pytest.raises(ValueError, match=r"no layer would be quantized: .*the recipe leaves it dense"):
        quantize(tmp_path / "in", tmp_path / "out3", Recipe(layer=RECIPE.layer, rules=(Rule(pattern="*"),)))
    config = json.loads((tmp_path / "in/config.json").read_text())
    (tmp_path / "in/config.json").write_text(json.dumps({**config, "architectures": ["Nothing"]}))
    with pytest.raises(ValueError, match="names the class Nothing"):
        quantize(tmp_path / "in", tmp_path / "out2", RECIPE)


def test_stock_transformers_refuses_it(tmp_path):
    """A process that never imported tersor stops, and says why."""
    _made(tmp_path / "in", "llama")
    recipe = Recipe(layer=LayerRecipe(format="int8", solver="rtn"))
    quantize(tmp_path / "in", tmp_path / "out", recipe)
    code = "import sys, transformers; transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "MISMATCH" in found.stderr
