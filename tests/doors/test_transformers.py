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
