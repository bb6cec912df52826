"""tersor.transformers.from_pretrained: the same parameters and logits, bit for bit, as from .safetensors."""

import json
import os
import shutil

import pytest

import tersor

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch", reason="PyTorch is not here")
transformers = pytest.importorskip("transformers", minversion="5", reason="transformers >= 5 is not here")

import safetensors.torch  # noqa: E402

import tersor.torch  # noqa: E402
import tersor.transformers  # noqa: E402
from tersor.cli import main  # noqa: E402

IDS = torch.arange(2 * 24).reshape(2, 24)


def same_models(got, want):
    assert type(got) is type(want)
    assert not got.training
    theirs = want.state_dict()
    assert list(got.state_dict()) == list(theirs)
    for name, tensor in got.state_dict().items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor.view(torch.uint8), theirs[name].view(torch.uint8)), name
    with torch.inference_mode():
        ours, want = got(IDS), want(IDS)
    key = "logits" if "logits" in want else "last_hidden_state"
    assert torch.equal(ours[key], want[key])


def copied(source, target):
    """A checkpoint's folder without its weights."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    return target


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of transformers' own making, in three shards, with tied embeddings."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("small") / "model"
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize("name", ["lm_a", "lm_b"])
def test_a_real_model(data, tmp_path, name):
    source = data / "models" / name
    folder = copied(source, tmp_path / name)
    assert main(["compress", "-q", str(source / "model.safetensors"), "-o", str(folder / "model.tsr")]) == 0
    want = transformers.AutoModelForCausalLM.from_pretrained(source)
    got = tersor.transformers.from_pretrained(folder)
    same_models(got, want)
    assert got.generation_config.to_dict() == want.generation_config.to_dict()
    same_models(tersor.transformers.from_pretrained(folder, transformers.AutoModelForCausalLM), want)


@pytest.mark.parametrize("ending", [".safetensors.tsr", ".tsr"])
def test_shards(small, tmp_path, ending):
    folder = copied(small, tmp_path / "model")
    shutil.copy(small / "model.safetensors.index.json", folder)
    for shard in small.glob("*.safetensors"):
        assert main(["compress", "-q", str(shard), "-o", str(folder / (shard.stem + ending))]) == 0
    want = transformers.AutoModelForCausalLM.from_pretrained(small)
    got = tersor.transformers.from_pretrained(folder)
    same_models(got, want)
    assert got.lm_head.weight is got.model.embed_tokens.weight


def test_classes_and_dtypes(small, tmp_path):
    folder = copied(small, tmp_path / "model")
    want = transformers.AutoModelForCausalLM.from_pretrained(small)
    tersor.torch.save_model(want, folder / "model.safetensors.tsr")
    same_models(tersor.transformers.from_pretrained(folder, transformers.LlamaForCausalLM), want)
    same_models(
        tersor.transformers.from_pretrained(folder, transformers.AutoModel, dtype=torch.float32),
        transformers.AutoModel.from_pretrained(small, dtype=torch.float32),
    )


def test_what_is_missing_is_said(small, tmp_path):
    folder = copied(small, tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"none of model\.tsr"):
        tersor.transformers.from_pretrained(folder)
    index = folder / "model.safetensors.index.json"
    for text, error, match in (
        ("{", tersor.FormatError, "weight_map is needed"),
        ('{"weight_map": {"a": "../a.safetensors"}}', tersor.FormatError, "a file name is needed"),
        ('{"weight_map": {"a": "a.safetensors"}}', FileNotFoundError, r"no shard a\.safetensors\.tsr and no a\.tsr"),
    ):
        index.write_text(text)
        with pytest.raises(error, match=match):
            tersor.transformers.from_pretrained(folder)
    index.write_text(json.dumps({"weight_map": {"a": "s.safetensors", "b": "s.safetensors"}}))
    tersor.torch.save_file({"a": torch.zeros(3)}, folder / "s.tsr")
    with pytest.raises(tersor.FormatError, match="'b' the first"):
        tersor.transformers.from_pretrained(folder)
    (folder / "model.tsr").write_bytes(b"no file of ours")
    with pytest.raises(tersor.FormatError, match=r"model\.tsr"):
        tersor.transformers.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["NoSuchModel"]}))
    with pytest.raises(ValueError, match="NoSuchModel"):
        tersor.transformers.from_pretrained(folder)


def test_safetensors_of_transformers_is_the_reference(small):
    """What the other tests compare with is what lies in the files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(small)
    state = model.state_dict()
    for shard in small.glob("*.safetensors"):
        for name, tensor in safetensors.torch.load_file(shard).items():
            assert torch.equal(state[name], tensor)


@pytest.fixture(scope="module")
def in_few_bits(small, tmp_path_factory):
    """`small`, quantized without a text."""
    from tersor.transformers.quantizing import quantize
    from tersor.weights import LayerRecipe, Recipe

    out = tmp_path_factory.mktemp("few") / "model"
    quantize(small, out, Recipe(layer=LayerRecipe(format="int4-g32", solver="rtn")))
    return out


def test_a_quantized_model_loads_generates_and_compiles(in_few_bits):
    model = transformers.AutoModelForCausalLM.from_pretrained(in_few_bits).eval()
    assert model.dtype == torch.bfloat16
    assert isinstance(model.model.layers[0].mlp.up_proj, tersor.nn.QuantLinear)
    made = model.generate(IDS[:1], max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert made.shape == (1, 28)
    wide = transformers.AutoModelForCausalLM.from_pretrained(in_few_bits, dtype=torch.float32).eval()
    with torch.no_grad():
        compiled = torch.compile(wide, fullgraph=True, backend="aot_eager")(IDS).logits
        assert torch.allclose(compiled, wide(IDS).logits, atol=1e-3)
    same_models(tersor.transformers.from_pretrained(in_few_bits, dtype=torch.float32), wide)


def test_a_device_that_layers_do_not_run_on_is_refused(in_few_bits):
    with pytest.raises(ValueError, match="low-bit layers run on the CPU, the device map asks for"):
        transformers.AutoModelForCausalLM.from_pretrained(in_few_bits, device_map={"": "meta"})


def test_arrays_that_are_missing_are_named(in_few_bits, tmp_path):
    shutil.copytree(in_few_bits, tmp_path / "cut")
    arrays = safetensors.torch.load_file(tmp_path / "cut/model.safetensors")
    del arrays["model.layers.1.mlp.up_proj.scales"]
    safetensors.torch.save_file(arrays, tmp_path / "cut/model.safetensors", {"format": "pt"})
    with pytest.raises(tersor.FormatError, match=r"1 arrays .* are missing, 'model.layers.1.mlp.up_proj.scales'"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")


def test_a_model_of_another_shape_is_refused(in_few_bits, tmp_path):
    shutil.copytree(in_few_bits, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    with pytest.raises(tersor.FormatError, match=r"is \[64, 96\] in the file, the model has \[64, 128\]"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "other")


def test_adapters_train_on_it(in_few_bits, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not here")
    from tersor.transformers.adapters import lora

    def config():
        return lora(peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))

    model = transformers.AutoModelForCausalLM.from_pretrained(in_few_bits, dtype=torch.float32)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config()).train()
    optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        losses.append(adapted(input_ids=IDS, labels=IDS).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = adapted.eval()(IDS).logits
        fresh = transformers.AutoModelForCausalLM.from_pretrained(in_few_bits, dtype=torch.float32)
        again = peft.PeftModel.from_pretrained(fresh, tmp_path, config=config()).eval()
        assert torch.equal(again(IDS).logits, wanted)
    with pytest.raises(ValueError, match="do not merge into a packed matrix"):
        again.merge_and_unload()
    with pytest.raises(TypeError, match=r"a peft\.LoraConfig is needed, found dict"):
        lora({})
